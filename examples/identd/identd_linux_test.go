package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// start builds the daemon, runs it and returns where it answers.
func start(t *testing.T, args ...string) netip.AddrPort {
	t.Helper()
	program := filepath.Join(t.TempDir(), "identd")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	var addr string
	if _, err := fmt.Fscanf(errs, "identd: listening on %s\n", &addr); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(addr)
}

// asks makes a connection within this host and returns a function that asks about it.
func asks(t *testing.T, daemon netip.AddrPort) func(stop.Request) stop.Answer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); in.Close() })
	return func(r stop.Request) stop.Answer {
		if r.Local == 0 {
			r.Local = uint64(c.LocalAddr().(*net.TCPAddr).Port)
		}
		r.Remote = uint64(c.RemoteAddr().(*net.TCPAddr).Port)
		a, err := (&stop.Client{}).Ask(t.Context(), daemon, r)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func TestNames(t *testing.T) {
	ask := asks(t, start(t))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if a := ask(stop.Request{}); a.Kind != stop.KindLegacy || a.Reply.UserID != me.Username {
		t.Errorf("answered %q", a.Line)
	}
	if a := ask(stop.Request{Local: 1}); a.Reply.Error != stop.NoUser {
		t.Errorf("answered %q", a.Line)
	}
}

func TestTokens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	ask := asks(t, start(t, "-stop", dir))
	for _, typ := range []stop.Type{stop.ID, stop.SV, stop.SVRec} {
		a := ask(stop.Request{Type: typ})
		if a.Kind != stop.KindToken {
			t.Fatalf("%s is answered %q", typ, a.Line)
		}
		file := filepath.Join(dir, a.Token.String())
		b, err := os.ReadFile(file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		r, err := report.Decode(b)
		if err != nil || stop.TokenOf(b) != a.Token || r.Request.Type != typ.String() {
			t.Errorf("%s: the report of %s is %v, %v", typ, a.Token, r.Request, err)
		}
		if typ.Full() && (len(r.Processes) == 0 || r.Processes[0].PID != os.Getpid()) {
			t.Errorf("%s: the processes are %v", typ, r.Processes)
		}
		text, err := os.ReadFile(file + ".txt")
		if err != nil || !strings.HasPrefix(string(text), "- BEGIN -\n") {
			t.Errorf("%s: the text is %.20q, %v", typ, text, err)
		}
	}
	if a := ask(stop.Request{Local: 1, Type: stop.SV}); a.Reply.Error != stop.NoUser {
		t.Errorf("answered %q", a.Line)
	}
}
