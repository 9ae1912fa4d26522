package stop

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vectors is testdata/vectors.json, which says itself what its fields mean.
type vectors struct {
	About    []string
	Requests []requestVector
	Replies  []replyVector
	Tokens   []tokenVector
}

type vectorLine struct {
	Line, Hex string
}

type requestVector struct {
	Name string
	vectorLine
	Want  *wantRequest
	Error bool
}

type wantRequest struct {
	Local, Remote uint64
	PortsValid    bool `json:"ports_valid"`
	Type, SID     string
	For           string
	Canonical     string
}

type replyVector struct {
	Name, Asked string
	vectorLine
	Want  *wantReply
	Error bool
}

type wantReply struct {
	Kind            string
	Local, Remote   uint64
	System, Charset string
	UserID          string `json:"user_id"`
	ErrorWord       string `json:"error_word"`
	Canonical       string
}

type tokenVector struct {
	Name, Token, SHA256 string
	Error               bool
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// octets returns the vector's line without its line ending, which is LF or CR LF.
func (l vectorLine) octets(t testing.TB) []byte {
	t.Helper()
	line := l.Line
	if l.Hex != "" {
		b, err := hex.DecodeString(l.Hex)
		if err != nil {
			t.Fatal(err)
		}
		line = string(b)
	}
	line, ended := strings.CutSuffix(line, "\n")
	if !ended {
		t.Fatalf("line %q has no line ending", line)
	}
	return []byte(strings.TrimSuffix(line, "\r"))
}

// checkError wants a *SyntaxError of what, whose text is bounded.
func checkError(t *testing.T, err error, what string, bound int) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		t.Fatalf("error %v is not a *SyntaxError", err)
	}
	if syntax.What != what || len(syntax.Text) > bound || syntax.Reason == "" {
		t.Errorf("error has What %q, %d octets of Text, Reason %q", syntax.What, len(syntax.Text), syntax.Reason)
	}
}

func TestRequestVectors(t *testing.T) {
	for _, v := range readVectors(t).Requests {
		t.Run(v.Name, func(t *testing.T) {
			r, err := ParseRequest(v.octets(t))
			if v.Error {
				if r != (Request{}) {
					t.Errorf("Request %+v with an error is not zero", r)
				}
				checkError(t, err, "request", MaxLine)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := &wantRequest{
				Local: r.Local, Remote: r.Remote, PortsValid: r.PortsValid(), Type: r.Type.String(),
				SID: uintString(r.SID), Canonical: r.String(),
			}
			if r.For.IsValid() {
				got.For = r.For.String()
			}
			if diff := cmp.Diff(v.Want, got); diff != "" {
				t.Errorf("request differs (-want +got):\n%s", diff)
			}
			if again, err := ParseRequest([]byte(r.String())); err != nil || again != r {
				t.Errorf("canonical line parses as %+v, %v", again, err)
			}
		})
	}
}

func TestReplyVectors(t *testing.T) {
	for _, v := range readVectors(t).Replies {
		t.Run(v.Name, func(t *testing.T) {
			asked, err := ParseRequest([]byte(v.Asked))
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseReply(v.octets(t), asked)
			if v.Error {
				if r != (Reply{}) {
					t.Errorf("Reply %+v with an error is not zero", r)
				}
				checkError(t, err, "reply", MaxReply)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			kind, _ := r.kind()
			got := &wantReply{
				Kind: kind.String(), Local: r.Local, Remote: r.Remote, System: r.System, Charset: r.Charset,
				UserID: Printable(r.UserID), ErrorWord: string(r.Error), Canonical: Printable(r.String()),
			}
			if diff := cmp.Diff(v.Want, got); diff != "" {
				t.Errorf("reply differs (-want +got):\n%s", diff)
			}
			if again, err := ParseReply([]byte(r.String()), asked); err != nil || again != r {
				t.Errorf("canonical line parses as %+v, %v", again, err)
			}
		})
	}
}

func TestTokenVectors(t *testing.T) {
	for _, v := range readVectors(t).Tokens {
		t.Run(v.Name, func(t *testing.T) {
			token, err := ParseToken(v.Token)
			if v.Error {
				if token != (Token{}) {
					t.Errorf("Token %v with an error is not zero", token)
				}
				checkError(t, err, "token", tokenLen)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(token[:]); got != v.SHA256 {
				t.Errorf("token is %s, want %s", got, v.SHA256)
			}
			if got := token.String(); got != v.Token {
				t.Errorf("token is written %s, want %s", got, v.Token)
			}
		})
	}
}
