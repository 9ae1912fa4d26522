package bundle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/sshsig"
	"github.com/stopd/stopd/report"
)

// policyOf writes a policy of logs, of a site's witnesses and their quorum.
func (s *site) policyOf(quorum string, logs ...string) []byte {
	var b strings.Builder
	for _, l := range logs {
		fmt.Fprintf(&b, "log %s\n", l)
	}
	var all []string
	for i, w := range s.witnesses {
		all = append(all, fmt.Sprintf("w%d", i+1))
		fmt.Fprintf(&b, "witness w%d %s\n", i+1, w.Verifier())
	}
	if quorum != "none" {
		fmt.Fprintf(&b, "group all %s %s\n", quorum, strings.Join(all, " "))
		quorum = "all"
	}
	fmt.Fprintf(&b, "quorum %s\n", quorum)
	return []byte(b.String())
}

func TestPolicies(t *testing.T) {
	s := newSite(t, "stone.example", 3)
	other, third := newSite(t, "home.example", 1), newSite(t, "stone.example", 2)
	token := s.keep("report one", "[]")
	before := time.Now().Truncate(time.Second)
	s.cosign()
	b := mustOpen(t, s.bundle(token))
	fresh := mustOpen(t, s.bundle(s.keep("report two", "")))
	mine, theirs := s.key.Public(), other.key.Public()
	// Another key under the name of the log.
	text, err := note.NewEd25519VerifierKey(s.key.Origin(), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		b      *Bundle
		policy []byte
		want   Result
		says   string
	}{
		{"no policy", b, nil, Consistent, "Self-consistent only: nobody outside vouches for it"},
		{"all witnesses", b, s.policyOf("all", mine), Met, "existed no later than"},
		{"two of three", b, s.policyOf("2", mine), Met, "of the 3 witnesses that the policy names"},
		{"of several logs", b, s.policyOf("2", theirs, mine, third.key.Public()), Met, "existed no later than"},
		{"no witness", b, s.policyOf("none", mine), Met, "It asks for no witness: nobody outside vouches"},
		{"another log", b, s.policyOf("2", theirs), Unmet, "the policy does not name its log"},
		{"other witnesses", b, third.policyOf("1", mine), Unmet, "as many witnesses"},
		{"another key of the log", b, s.policyOf("2", text), Wrong, ""},
		{"not cosigned yet", fresh, s.policyOf("1", mine), Unmet, "as many witnesses"},
		{"not cosigned, no witness asked for", fresh, s.policyOf("none", mine), Met, "nobody outside vouches"},
	} {
		v, err := test.b.Verify(test.policy, nil)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		text := strings.Join(strings.Fields(v.Text()), " ")
		if v.Result != test.want || !strings.Contains(text, test.says) {
			t.Errorf("%s: %s (%s), want %s and %q in\n%s", test.name, v.Result, v.Why, test.want, test.says, v.Text())
		}
		if (v.Result == Met && v.Witnessed) == v.By("report").IsZero() {
			t.Errorf("%s: it existed by %v", test.name, v.By("report"))
		}
		if strings.Contains(text, "existed no later than") != (v.Result == Met && v.Witnessed) {
			t.Errorf("%s: it says that the report existed:\n%s", test.name, v.Text())
		}
	}
	v, err := b.Verify(s.policyOf("2", mine), nil)
	if err != nil {
		t.Fatal(err)
	}
	if by := v.By("report"); by.Before(before) || by.After(time.Now()) {
		t.Errorf("it existed by %v", by)
	}
	for _, bad := range []string{"", "quorum", "log x\nquorum none\n", "log " + mine + "\n", "log " + mine + "\nquorum w\n", "\x00"} {
		if v, err := b.Verify([]byte(bad), nil); err == nil {
			t.Errorf("policy %q is one: %s", bad, v.Result)
		}
	}
}

// A host whose clock contradicts the witnesses' is shown up.
func TestClockAhead(t *testing.T) {
	for ahead, want := range map[time.Duration]bool{0: false, time.Hour: true, -time.Hour: false} {
		s := newSiteAt(t, "stone.example", 1, func() time.Time { return time.Now().Add(ahead) })
		token := s.keep("report one", "")
		s.cosign()
		v, err := mustOpen(t, s.bundle(token)).Verify(s.policyOf("1", s.key.Public()), nil)
		if err != nil || v.Result != Met || strings.Contains(v.Text(), "ahead of the") != want {
			t.Errorf("%s ahead: %v, %s", ahead, err, v.Text())
		}
	}
}

// requestFor signs a request with ssh-keygen. It gives the request, its signature, and a list that allows alice the key.
func requestFor(t *testing.T, text string) (request, signature string, signers sshsig.Signers) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen")
	}
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "request")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-q", "-N", "", "-t", "ed25519", "-f", key}, {"-q", "-Y", "sign", "-n", RequestNamespace, "-f", key, file}} {
		if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
		}
	}
	sig, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if signers, err = sshsig.ParseSigners(append([]byte("alice "), public...)); err != nil {
		t.Fatal(err)
	}
	return text, string(sig), signers
}

func TestSignedRequests(t *testing.T) {
	s := newSite(t, "stone.example", 0)
	token, other := s.keep("report one", ""), s.keep("report two", "")
	text, signature, signers := requestFor(t, "To the administrator of stone.example:\nplease redeem "+token.String()+" for case 17.\n")
	_, _, strangers := requestFor(t, "x")
	asked := func(token stop.Token, by, request string) evidence.Redemption {
		return evidence.Redemption{Token: token, By: by, Reason: "case 17", Request: request, Signature: signature}
	}
	for _, test := range []struct {
		name    string
		r       evidence.Redemption
		signers sshsig.Signers
		want    bool
	}{
		{"as it was signed", asked(token, "alice", text), signers, true},
		{"nobody asks whose key it is", asked(token, "alice", text), nil, true},
		{"another text", asked(token, "alice", text+"P.S. and the next one\n"), signers, false},
		{"another token", asked(other, "alice", text), signers, false},
		{"another person", asked(token, "bob", text), signers, false},
		{"another's key", asked(token, "alice", text), strangers, false},
		{"nobody's key", asked(token, "alice", text), sshsig.Signers{}, false},
	} {
		if _, err := CheckRequest(test.r, test.signers, time.Now()); (err == nil) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	b := mustOpen(t, s.pack(s.redeem(asked(token, "alice", text))))
	v, err := b.Verify(nil, signers)
	if err != nil || v.Result != Consistent || !strings.Contains(v.Text(), "gives to alice") {
		t.Errorf("%v, %s", err, v.Text())
	}
	if v, err := b.Verify(s.policyOf("none", s.key.Public()), strangers); err != nil || v.Result != Wrong || strings.Contains(v.Text(), "was signed: redemption-") {
		t.Errorf("of strangers: %v, %s", err, v.Text())
	}
	if v, err := b.Verify(nil, nil); err != nil || !strings.Contains(strings.Join(strings.Fields(v.Text()), " "), "Whose key that is was not asked for") {
		t.Errorf("%v, %s", err, v.Text())
	}
	// One that somebody handed to the daemon past stopctl is kept, and proves nothing.
	b = mustOpen(t, s.pack(s.redeem(asked(other, "alice", text))))
	if v, err := b.Verify(nil, nil); err != nil || v.Result != Wrong || strings.Contains(v.Text(), "was signed: redemption-") || !strings.Contains(v.Text(), "It is not good") {
		t.Errorf("%v, %s", err, v.Text())
	}
	// Nor does it take anything from the evidence that is let out by another redemption.
	b = mustOpen(t, s.bundle(other))
	if v, err := b.Verify(s.policyOf("none", s.key.Public()), nil); err != nil || v.Result != Met || !strings.Contains(v.Text(), "It is not good") {
		t.Errorf("%v, %s", err, v.Text())
	}
	// And an earlier redemption that somebody asked for says nothing of the one that let it out.
	b = mustOpen(t, s.bundle(token))
	if v, err := b.Verify(s.policyOf("none", s.key.Public()), signers); err != nil || v.Result != Wrong || !strings.Contains(v.Why, "by no signed request") {
		t.Errorf("by an earlier redemption: %v, %s", err, v.Text())
	}
	// Where signatures are asked for, a bundle without one does not do.
	b = mustOpen(t, s.bundle(s.keep("report three", "")))
	if v, err := b.Verify(s.policyOf("none", s.key.Public()), signers); err != nil || v.Result != Wrong {
		t.Errorf("without a request: %v, %s", err, v.Result)
	}
}

func TestRequestNamesToken(t *testing.T) {
	token := stop.TokenOf([]byte("x"))
	text := token.String()
	for request, want := range map[string]bool{
		text: true, "Redeem " + text + ".": true, "(" + text + ")": true, "token=" + text + "\n": true,
		text[:10]: false, text[:len(text)-1]: false, text[1:]: false, "x" + text: false, text[:10] + "zz": false, strings.ToUpper(text): false, "": false,
	} {
		if names(request, token) != want {
			t.Errorf("%q names it: %t", request, !want)
		}
	}
}

func TestRedeemed(t *testing.T) {
	s := newSite(t, "stone.example", 0)
	whole := string(report.Encode(report.Report{Version: report.Version, Kind: report.KindNone, Reason: "no such connection"}))
	traceback := string(report.EncodeTraceback([]stop.Traceback{{Asked: true, Kind: "token", Token: "s"}}))
	token := s.keep(whole, traceback)
	r, unreadable, further, err := mustOpen(t, s.bundle(token)).Redeemed()
	if err != nil || unreadable+further != 0 || r.Token != token.String() || r.Report.Reason != "no such connection" || len(r.Traceback) != 1 || r.Traceback[0].Kind != "token" {
		t.Errorf("%+v, %d, %d, %v", r, unreadable, further, err)
	}
	// What root adds later takes nothing from what is there.
	for _, later := range []string{"[]", "rubbish"} {
		if err := s.store.KeepTraceback(t.Context(), token, []byte(later)); err != nil {
			t.Fatal(err)
		}
	}
	r, unreadable, further, err = mustOpen(t, s.bundle(token)).Redeemed()
	if err != nil || unreadable != 1 || further != 1 || len(r.Traceback) != 1 {
		t.Errorf("%+v, %d, %d, %v", r, unreadable, further, err)
	}
	if _, _, _, err := mustOpen(t, s.bundle(s.keep("not a report", ""))).Redeemed(); err == nil {
		t.Error("what is no report is one")
	}
}

// What is no report's own log, what nobody vouches for and what was written again is said.
func TestWhatIsNotProven(t *testing.T) {
	s := newSite(t, "stone.example", 1)
	r := report.Report{Version: report.Version, Kind: report.KindSV}
	said := func(token stop.Token) string {
		v, err := mustOpen(t, s.bundle(token)).Verify(s.policyOf("1", s.key.Public()), nil)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(v.Text()), " ")
	}
	for name, own := range map[string]bool{"stone.example": true, "stone": false, "innocent.example": false} {
		r.Host.Name = name
		token := s.keep(string(report.Encode(r)), "[]")
		s.cosign()
		text := said(token)
		if strings.Contains(text, "is not called after that host") == own || !strings.Contains(text, "Result") && !strings.Contains(text, "The policy is met") {
			t.Errorf("%s: %s", name, text)
		}
		if strings.Contains(text, "that can be read counts") || strings.Contains(text, "Too few of the witnesses") {
			t.Errorf("%s: %s", name, text)
		}
		if err := s.store.KeepTraceback(t.Context(), token, []byte("rubbish")); err != nil {
			t.Fatal(err)
		}
		text = said(token)
		for _, want := range []string{"The report existed no later than", "Not all of the bundle did: Record", "the first of the 2 that can be read counts", "Too few of the witnesses"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in %s", want, text)
			}
		}
	}
}

// What a hostile host puts into a report, a name or a reason does not reach the terminal, and changes no line.
func TestHostileWords(t *testing.T) {
	s := newSite(t, "stone.example", 0)
	const evil = "x\x1b[2J\nPROVEN\n9. \u202e\x9b"
	r := report.Report{Version: report.Version, Kind: report.KindDuplicate, SameAs: evil, Reason: evil}
	r.Host.Name = evil
	r.Request.Type = evil
	token := s.keep(string(report.Encode(r)), "")
	v, err := mustOpen(t, s.bundle(token)).Verify(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := v.Text()
	if strings.ContainsAny(text, "\x1b\u202e") || strings.Count(text, "\nPROVEN\n") != 1 {
		t.Errorf("%q", text)
	}
}
