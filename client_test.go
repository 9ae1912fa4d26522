package stop

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

const aToken = "s4oymiquy7qobjgx36tejs35zeqt24qpemsnzgtfeswmrw6csxbkq" // of the empty report

// A daemon answers each connection on loopback from one line, and keeps what it was sent.
type daemon struct {
	addr    netip.AddrPort
	mu      sync.Mutex
	lines   []string // with line endings
	sources []netip.Addr
}

// serve starts a daemon that gives each connection and its request line to answer and then closes it.
func serve(t *testing.T, answer func(conn *net.TCPConn, line string)) *daemon {
	t.Helper()
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			d.mu.Lock()
			d.lines = append(d.lines, line)
			d.sources = append(d.sources, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
			d.mu.Unlock()
			answer(conn, line)
			conn.Close()
		}
	}()
	return d
}

// asker asks from any port where it has not the privilege for those below 1024.
func asker(r Request) *Client {
	if !r.For.IsValid() || os.Geteuid() == 0 {
		return new(Client)
	}
	return &Client{Dial: func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
		return dialTCP(ctx, network, netip.AddrPortFrom(local.Addr(), 0), remote)
	}}
}

func (d *daemon) sent() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines...)
}

func say(reply string) func(*net.TCPConn, string) {
	return func(conn *net.TCPConn, _ string) { io.WriteString(conn, reply) }
}

// sayByForm answers plain to a line in the form of RFC 1413, other to any other.
func sayByForm(plain, other string) func(*net.TCPConn, string) {
	return func(conn *net.TCPConn, line string) {
		if strings.Contains(line, ":") {
			io.WriteString(conn, other)
			return
		}
		io.WriteString(conn, plain)
	}
}

var (
	plainRequest  = Request{Local: 968, Remote: 23}
	svRec         = Request{Local: 968, Remote: 23, Type: SVRec, SID: 92847523456}
	svRecOnBehalf = Request{Local: 968, Remote: 23, Type: SVRec, SID: 92847523456, For: netip.MustParseAddr("192.0.2.7")}
	aliceReply    = Reply{Local: 968, Remote: 23, System: "UNIX", UserID: "alice"}
	invalidPort   = Reply{Local: 968, Remote: 23, Error: InvalidPort}
)

func TestAsk(t *testing.T) {
	token := TokenOf(nil)
	tokenLine := "968 , 23 : USERID : OTHER : " + aToken
	tokenReply := Reply{Local: 968, Remote: 23, System: "OTHER", UserID: aToken}
	aliceLine := "968 , 23 : USERID : UNIX : alice"
	invalidLine := "968 , 23 : ERROR : INVALID-PORT"

	for _, test := range []struct {
		name   string
		answer func(*net.TCPConn, string)
		ask    Request
		want   Answer
		sent   []string
	}{
		{
			name: "a STOP daemon", answer: say(tokenLine + "\r\n"), ask: svRecOnBehalf,
			want: Answer{Sent: svRecOnBehalf.String(), Reply: tokenReply, Line: tokenLine, Kind: KindToken, Token: token},
			sent: []string{"968 , 23 : SV_REC : 92847523456 : 192.0.2.7\r\n"},
		}, {
			name: "more after the line", answer: say(tokenLine + "\n968 , 23 : ERROR : NO-USER\n"), ask: plainRequest,
			want: Answer{Sent: "968 , 23", Reply: tokenReply, Line: tokenLine, Kind: KindToken, Token: token},
			sent: []string{"968 , 23\r\n"},
		}, {
			name: "the end of the stream for a line ending", answer: say(tokenLine), ask: plainRequest,
			want: Answer{Sent: "968 , 23", Reply: tokenReply, Line: tokenLine, Kind: KindToken, Token: token},
			sent: []string{"968 , 23\r\n"},
		}, {
			name: "a legacy name", answer: say(aliceLine + "\r\n"), ask: svRec,
			want: Answer{Sent: svRec.String(), Reply: aliceReply, Line: aliceLine, Kind: KindLegacy},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n"},
		}, {
			name: "a name with an escape sequence", answer: say("968 , 23 : USERID : UNIX : \x1b[2J\\\r\n"), ask: svRec,
			want: Answer{
				Sent: svRec.String(), Reply: Reply{Local: 968, Remote: 23, System: "UNIX", UserID: "\x1b[2J\\"},
				Line: `968 , 23 : USERID : UNIX : \x1b[2J\\`, Kind: KindLegacy,
			},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n"},
		}, {
			name: "an error word", answer: say("968 , 23 : ERROR : NO-USER\r\n"), ask: svRec,
			want: Answer{
				Sent: svRec.String(), Reply: Reply{Local: 968, Remote: 23, Error: NoUser},
				Line: "968 , 23 : ERROR : NO-USER", Kind: KindError,
			},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n"},
		}, {
			name: "an echo, as nullidentd", ask: svRec,
			answer: func(conn *net.TCPConn, line string) { io.WriteString(conn, line[:20]+" : USERID : UNIX : alice\r\n") },
			want:   Answer{Sent: svRec.String(), Reply: aliceReply, Line: "968 , 23 : SV_REC :  : USERID : UNIX : alice", Kind: KindLegacy},
			sent:   []string{"968 , 23 : SV_REC : 92847523456\r\n"},
		}, {
			name: "RFC 1413 alone, as OpenBSD", answer: sayByForm(aliceLine+"\r\n", invalidLine+"\r\n"), ask: svRec,
			want: Answer{Sent: "968 , 23", Reply: aliceReply, Line: aliceLine, Kind: KindLegacy},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"},
		}, {
			name: "RFC 1413 alone, as bidentd", answer: sayByForm(aliceLine+"\r\n", "0, 0 : ERROR : INVALID-PORT\r\n"), ask: svRec,
			want: Answer{Sent: "968 , 23", Reply: aliceReply, Line: aliceLine, Kind: KindLegacy},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"},
		}, {
			name: "RFC 1413 alone, closing", answer: sayByForm(aliceLine+"\r\n", ""), ask: svRec,
			want: Answer{Sent: "968 , 23", Reply: aliceReply, Line: aliceLine, Kind: KindLegacy},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"},
		}, {
			name: "RFC 1413 alone, resetting", ask: svRec,
			answer: func(conn *net.TCPConn, line string) {
				if strings.Contains(line, ":") {
					conn.SetLinger(0)
					return
				}
				io.WriteString(conn, aliceLine+"\r\n")
			},
			want: Answer{Sent: "968 , 23", Reply: aliceReply, Line: aliceLine, Kind: KindLegacy},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"},
		}, {
			name: "INVALID-PORT twice", answer: say(invalidLine + "\r\n"), ask: svRec,
			want: Answer{Sent: "968 , 23", Reply: invalidPort, Line: invalidLine, Kind: KindError},
			sent: []string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"},
		}, {
			name: "INVALID-PORT to the form of RFC 1413", answer: say(invalidLine + "\r\n"), ask: plainRequest,
			want: Answer{Sent: "968 , 23", Reply: invalidPort, Line: invalidLine, Kind: KindError},
			sent: []string{"968 , 23\r\n"},
		}, {
			name: "INVALID-PORT on behalf", answer: say(invalidLine + "\r\n"), ask: svRecOnBehalf,
			want: Answer{Sent: svRecOnBehalf.String(), Reply: invalidPort, Line: invalidLine, Kind: KindError},
			sent: []string{"968 , 23 : SV_REC : 92847523456 : 192.0.2.7\r\n"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := serve(t, test.answer)
			got, err := asker(test.ask).Ask(t.Context(), d.addr, test.ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answer differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.sent, d.sent()); diff != "" {
				t.Errorf("lines sent differ (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever goes wrong, the Answer is zero and the error names the host and the cause.
func TestAskErrors(t *testing.T) {
	endless := func(conn *net.TCPConn, _ string) {
		for {
			if _, err := conn.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name   string
		answer func(*net.TCPConn, string)
		ask    Request
		cause  string
		lines  int
	}{
		{"a line that never ends", endless, svRec, "read reply: longer than 1200 octets", 1},
		{"a line over the bound", say(strings.Repeat("x", MaxReply+1) + "\n"), svRec, ": longer than 1200 octets", 1},
		{"closed at once, twice", say(""), svRec, "closed without a reply", 2},
		{"closed at once on behalf", say(""), svRecOnBehalf, "closed without a reply", 1},
		{"an empty line", say("\r\n"), svRec, `parse reply "": no comma between two ports`, 1},
		{"other ports", say("969 , 23 : USERID : UNIX : alice\r\n"), svRec, "ports are not 968 , 23", 1},
		{"not a reply", say("SSH-2.0-OpenSSH_9.2\r\n"), svRec, `parse reply "SSH-2.0-OpenSSH_9.2": no comma between two ports`, 1},
		{"an address with a zone", say(""), Request{Local: 968, Remote: 23, For: netip.MustParseAddr("fe80::1%lo")}, "address with a zone", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := serve(t, test.answer)
			got, err := asker(test.ask).Ask(t.Context(), d.addr, test.ask)
			if got != (Answer{}) {
				t.Errorf("answer %+v with an error is not zero", got)
			}
			if err == nil || !strings.HasPrefix(err.Error(), "ask "+d.addr.String()+": ") || !strings.HasSuffix(err.Error(), test.cause) {
				t.Errorf("error is %v, want one that ends in %q", err, test.cause)
			}
			if got := len(d.sent()); got != test.lines {
				t.Errorf("%d lines were sent, want %d", got, test.lines)
			}
		})
	}
}

// An answer that came is kept, whatever becomes of the second try.
func TestAskAgainFails(t *testing.T) {
	const invalidLine = "968 , 23 : ERROR : INVALID-PORT"
	want := Answer{Sent: svRec.String(), Reply: invalidPort, Line: invalidLine, Kind: KindError}
	for name, second := range map[string]string{
		"closed":      "",
		"not a reply": "SSH-2.0-OpenSSH_9.2\r\n",
		"too long":    strings.Repeat("x", MaxReply+1) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, sayByForm(second, invalidLine+"\r\n"))
			got, err := new(Client).Ask(t.Context(), d.addr, svRec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer differs (-want +got):\n%s", diff)
			}
			if got := d.sent(); len(got) != 2 {
				t.Errorf("sent are %q", got)
			}
		})
	}
	// It may have no time left, or nowhere to ask from.
	for name, fail := range map[string]func(context.Context) error{
		"silence":    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"no address": func(context.Context) error { return syscall.EADDRNOTAVAIL },
	} {
		for _, first := range []string{invalidLine + "\r\n", ""} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asked := 0
					speaks := pipeDial(func(conn net.Conn) {
						bufio.NewReader(conn).ReadString('\n')
						io.WriteString(conn, first)
					})
					c := &Client{Dial: func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
						if asked++; asked > 1 {
							return nil, fail(ctx)
						}
						return speaks(ctx, network, local, remote)
					}}
					got, err := c.Ask(t.Context(), netip.MustParseAddrPort("192.0.2.1:113"), svRec)
					switch {
					case first != "" && (err != nil || got != want):
						t.Errorf("Ask gives %+v, %v", got, err)
					case first == "" && (got != (Answer{}) || err == nil || errors.Is(err, syscall.EADDRNOTAVAIL)):
						t.Errorf("without an answer Ask gives %+v, %v", got, err)
					}
				})
			})
		}
	}
}

func TestAskNobody(t *testing.T) {
	// The end of a connection has a port that nobody listens on, nor can as long as it lasts.
	d := serve(t, func(conn *net.TCPConn, _ string) { silent(conn) })
	held, err := net.Dial("tcp4", d.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	got, err := new(Client).Ask(t.Context(), held.LocalAddr().(*net.TCPAddr).AddrPort(), svRec)
	if got != (Answer{}) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("asking a closed port gives %+v, %v", got, err)
	}
}

func TestAskFromSource(t *testing.T) {
	d := serve(t, sayByForm("968 , 23 : USERID : UNIX : alice\r\n", ""))
	source := netip.MustParseAddr("127.0.0.2")
	c := &Client{Source: source}
	if _, err := c.Ask(t.Context(), d.addr, svRec); err != nil {
		t.Fatal(err)
	}
	// Both questions, the one in the form of RFC 1413 too, are about the connection of 127.0.0.2.
	want := []string{source.String(), source.String()}
	var got []string
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, source := range d.sources {
		got = append(got, source.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources differ (-want +got):\n%s", diff)
	}
}

func TestAskFromSourceOfAnotherHost(t *testing.T) {
	d := serve(t, say("968 , 23 : USERID : UNIX : alice\r\n"))
	c := &Client{Source: netip.MustParseAddr("192.0.2.1")}
	got, err := c.Ask(t.Context(), d.addr, svRec)
	if got != (Answer{}) || !errors.Is(err, syscall.EADDRNOTAVAIL) || len(d.sent()) != 0 {
		t.Errorf("asking from an address of another host gives %+v, %v and sends %q", got, err, d.sent())
	}
}

func TestKind(t *testing.T) {
	var got []string
	for _, k := range []Kind{KindToken, KindLegacy, KindError, 0} {
		got = append(got, k.String())
	}
	if diff := cmp.Diff([]string{"token", "legacy", "error", "Kind(0)"}, got); diff != "" {
		t.Errorf("kinds differ (-want +got):\n%s", diff)
	}
}
