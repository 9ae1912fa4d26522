package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/report"
)

// remembers waits until a daemon remembers, and returns how that goes.
func (s *site) remembers(t *testing.T, d *supervisor) recorded {
	t.Helper()
	var r *recorded
	eventually(t, stateTime, func() bool {
		r, _ = ask[*recorded](t.Context(), d.running.processes[collector].control, callRecorded, none{})
		if strings.Contains(s.log.String(), "what has ended is not remembered") {
			t.Skip(s.log.String())
		}
		return r != nil && r.Running
	}, func() string { return s.log.String() })
	return *r
}

// conversation is a connection within this host that is over.
func conversation(t *testing.T) (local, remote netip.AddrPort) {
	t.Helper()
	local, remote, end := talking(t)
	end()
	return local, remote
}

// talking is a connection within this host, and what ends it.
func talking(t *testing.T) (local, remote netip.AddrPort, end func()) {
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
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String()), func() { c.Close(); a.Close() }
}

// about asks a daemon for evidence about a connection; nil is NO-USER.
func (s *site) about(t *testing.T, d *supervisor, local, remote netip.AddrPort) *report.Report {
	t.Helper()
	to := netip.MustParseAddrPort(d.listeners[0].Addr().String())
	a, err := (&stop.Client{}).Ask(t.Context(), to, stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: stop.SV})
	if err != nil {
		t.Fatalf("%v; %s", err, s.log.String())
	}
	if a.Kind != stop.KindToken {
		if a.Reply.Error != stop.NoUser {
			t.Fatalf("it is answered by %q", a.Line)
		}
		return nil
	}
	r := s.redeem(t, a.Token)
	return &r
}

// itIsOver checks that a report is about a closed connection that this process had.
func itIsOver(t *testing.T, r *report.Report) {
	t.Helper()
	if r == nil {
		t.Fatal("what was closed before is not answered for")
	}
	if c := r.Connection; c == nil || c.Closed.IsZero() || len(c.Owners) != 1 || c.Owners[0] != os.Getpid() {
		t.Errorf("the connection is %+v", c)
	}
}

// gapsAbout are the gaps of a report, as one text.
func gapsAbout(r *report.Report) string {
	var all strings.Builder
	for _, g := range r.Gaps {
		all.WriteString(g.What + ": " + g.Why + "\n")
	}
	return all.String()
}

// TestRestart: a connection that was closed before a restart is answered after it; what was closed while no daemon ran is not, and what was
// there meanwhile has a gap.
func TestRestart(t *testing.T) {
	s := newSite(t)
	d := s.start(t)
	s.remembers(t, d)
	before := [2]netip.AddrPort{}
	before[0], before[1] = conversation(t)
	open, openRemote, end := talking(t)
	itIsOver(t, s.about(t, d, before[0], before[1]))
	d.stop()
	file := filepath.Join(pastDir(s.cfg.Store), "history")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(filepath.Base(os.Args[0]))) {
		t.Error("the name of a program can be read in it")
	}
	for path, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700 | fs.ModeDir} {
		if i, err := os.Stat(path); err != nil || i.Mode() != want {
			t.Errorf("%s has mode %v, %v", path, i.Mode(), err)
		}
	}
	meanwhileLocal, meanwhileRemote := conversation(t)

	d = s.start(t)
	s.remembers(t, d)
	itIsOver(t, s.about(t, d, before[0], before[1]))
	if r := s.about(t, d, meanwhileLocal, meanwhileRemote); r != nil {
		t.Errorf("what nobody saw is %+v", r.Connection)
	}
	after, afterRemote := conversation(t)
	itIsOver(t, s.about(t, d, after, afterRemote))
	if r := s.about(t, d, open, openRemote); r == nil || r.Connection.Opened.IsZero() {
		t.Errorf("what is open all the while is %+v", r)
	}
	end()
	r := s.about(t, d, open, openRemote)
	itIsOver(t, r)
	if gaps := gapsAbout(r); !strings.Contains(gaps, "who held the connection: nothing was remembered between") {
		t.Errorf("the gaps of what was open all the while are %q", gaps)
	}
	if n := strings.Count(s.log.String(), "what was remembered before is remembered again"); n != 1 {
		t.Errorf("said %d times: %s", n, s.log.String())
	}
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Error(s.log.String())
	}
	d.stop()
	key, err := LogKey(s.cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	p, err := translog.NewPolicy(key.Verifier(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := evidence.Audit(t.Context(), s.cfg.Store, p); err != nil || len(a.Findings) != 0 {
		t.Errorf("the audit finds %v, %v", a.Findings, err)
	}
}

// TestRestartOfProcesses: where a process ends the collector keeps what it remembers; where it is killed itself, there is what was kept last,
// and since then a loss.
func TestRestartOfProcesses(t *testing.T) {
	s := newSite(t)
	d := s.start(t)
	s.remembers(t, d)
	first, firstRemote := conversation(t)
	kill := func(r role) {
		t.Helper()
		if err := d.running.processes[r].process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-d.running.died
		d.running.end(endTime)
		if err := d.start(); err != nil {
			t.Fatal(err)
		}
		s.remembers(t, d)
	}
	kill(front)
	itIsOver(t, s.about(t, d, first, firstRemote))
	second, secondRemote := conversation(t)
	kill(collector)
	itIsOver(t, s.about(t, d, first, firstRemote))
	if r := s.about(t, d, second, secondRemote); r != nil {
		t.Errorf("what was not kept is %+v", r.Connection)
	}
	kill(keeper)
	itIsOver(t, s.about(t, d, first, firstRemote))
}

// TestAllKilled: nothing that was kept is lost where all are killed at once, the supervisor as well.
func TestAllKilled(t *testing.T) {
	local, remote := connection(t)
	r := newRound(t, local, remote)
	r.cfg.OnBehalf = nil
	r.start()
	r.wait(backWithin, "the daemon answers", r.answers)
	over, overRemote := conversation(t)
	ask := func(typ stop.Type) (stop.Answer, error) {
		return (&stop.Client{Timeout: time.Second}).Ask(t.Context(), r.to, stop.Request{Local: uint64(over.Port()), Remote: uint64(overRemote.Port()), Type: typ})
	}
	asked := func() bool {
		a, err := ask(stop.SV)
		return err == nil && a.Kind == stop.KindToken
	}
	r.wait(backWithin, "it remembers", func() bool {
		over, overRemote = conversation(t)
		return asked()
	})
	syscall.Kill(r.processes()[front], syscall.SIGKILL) // all stop, the collector keeps what it has, and all are started anew
	was := r.processes()[collector]
	r.wait(backWithin, "all are started anew", func() bool { return r.processes()[collector] != was && len(r.processes()) == len(victims) })
	r.wait(backWithin, "it remembers again", asked)
	pids := r.processes()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range pids {
		r.wait(backWithin, "all are dead", func() bool { return gone(pid) })
	}
	r.start()
	r.wait(backWithin, "it remembers after all were killed", asked)
	// Nobody looked meanwhile: the ports may have been another's since, whom ID would not tell from this one.
	r.wait(backWithin, "it says whose it was by ID no more", func() bool {
		a, err := ask(stop.ID)
		return err == nil && a.Kind == stop.KindError && a.Reply.Error == stop.NoUser
	})
	r.finish()
}

// TestNotRestored: what was kept and cannot be opened is removed, which is said in one line, and the daemon goes on.
func TestNotRestored(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(s *site, file string) error
		why  error
	}{
		"the key is gone": {func(s *site, _ string) error { return losePastKey(s.cfg.Store) }, recorder.ErrAltered},
		"an octet is another": {func(_ *site, file string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(file, b, 0o600)
		}, recorder.ErrAltered},
		"it is cut":       {func(_ *site, file string) error { return os.Truncate(file, 1000) }, recorder.ErrAltered},
		"it is no file":   {func(_ *site, file string) error { return errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)) }, translog.ErrIrregular},
		"it is not there": {func(_ *site, file string) error { return os.Remove(file) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			d := s.start(t)
			s.remembers(t, d)
			local, remote := conversation(t)
			itIsOver(t, s.about(t, d, local, remote))
			d.stop()
			file := filepath.Join(pastDir(s.cfg.Store), "history")
			if err := c.harm(s, file); err != nil {
				t.Fatal(err)
			}
			d = s.start(t)
			begun := s.remembers(t, d).Since
			if r := s.about(t, d, local, remote); r != nil {
				t.Errorf("it is answered for: %+v", r.Connection)
			}
			if time.Since(begun) > stateTime {
				t.Errorf("it remembers since %s", begun)
			}
			said := s.log.String()
			if c.why == nil {
				if strings.Contains(said, "what was remembered before") {
					t.Error(said)
				}
				return
			}
			if n := strings.Count(said, "what was remembered before is lost"); n != 1 || !strings.Contains(said, c.why.Error()) {
				t.Errorf("said %d times: %s", n, said)
			}
			if c.why == recorder.ErrAltered {
				if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("its file: %v", err)
				}
			}
			local, remote = conversation(t)
			itIsOver(t, s.about(t, d, local, remote))
			d.stop()
			if i, err := os.Stat(file); err != nil || !i.Mode().IsRegular() {
				t.Errorf("what is remembered now is not kept: %v", err)
			}
		})
	}
}

// TestPastKey: a store has one key, for as long as it was asked for, and another one then.
func TestPastKey(t *testing.T) {
	store, other := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "store")
	t.Cleanup(func() {
		for _, s := range []string{store, other} {
			if err := losePastKey(s); err != nil && !errors.Is(err, unix.ENOKEY) && !errors.Is(err, unix.EKEYEXPIRED) {
				t.Error(err)
			}
		}
	})
	key := func(store string, lasts time.Duration) string {
		t.Helper()
		k, err := pastKey(store, lasts, nil)
		if err != nil || len(k) != recorder.KeySize {
			t.Fatalf("%d octets, %v", len(k), err)
		}
		return string(k)
	}
	first := key(store, time.Hour)
	if key(store, time.Hour) != first {
		t.Error("it has another one at once")
	}
	if key(other, time.Hour) == first {
		t.Error("two stores have one key")
	}
	ends := func() {
		t.Helper()
		key(store, time.Second)
		eventually(t, stateTime, func() bool { return withPastKey(store, func(int) error { return nil }) != nil }, func() string { return "it does not end" })
	}
	ends()
	if k, err := pastKey(store, time.Hour, []byte(first)); err != nil || string(k) != first || key(store, time.Hour) != first {
		t.Errorf("who has it cannot have it again after its end: %v", err)
	}
	if name, _ := pastKeyName(store); !strings.Contains(name, "pid:[") {
		t.Errorf("its name is %q", name)
	}
	ends()
	if second := key(store, time.Hour); second == first || key(store, time.Hour) != second {
		t.Error("it is the same after its end, or is not kept then")
	}
}

// TestPastFile: a file takes the place of the one before only whole, and within its bound.
func TestPastFile(t *testing.T) {
	p := &pastFile{dir: t.TempDir(), most: 10}
	do := func(how byte, text string) error { return p.write(append([]byte{how}, text...)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		b, err := p.read(make([]byte, 8))
		if err != nil || string(b) != want {
			t.Fatalf("it is %q, %v; want %q", b, err, want)
		}
	}
	is("")
	must(do(pastRemoved, ""))
	must(do(pastBegins, "one"))
	is("")
	must(do(pastGoesOn, "two"))
	must(do(pastEnds, ""))
	is("onetwo")
	if b, err := p.read([]byte{0, 0, 0, 0, 0, 0, 0, 4}); string(b) != "wo" || err != nil {
		t.Errorf("from 4 on it is %q, %v", b, err)
	}
	if b, err := p.read([]byte{255, 255, 255, 255, 255, 255, 255, 255}); len(b) != 0 || err != nil {
		t.Errorf("behind its end it is %q, %v", b, err)
	}
	must(do(pastBegins, "three"))
	must(do(pastBegins, "four")) // who began before is not there any more
	if do(pastGoesOn, "1234567") == nil || do(pastEnds, "") == nil || do(pastGoesOn, "") == nil || do(9, "") == nil || p.write(nil) == nil {
		t.Error("what is too much, or was not begun, is written")
	}
	is("onetwo")
	if _, err := p.read(nil); err == nil {
		t.Error("no offset is one")
	}
	must(os.WriteFile(p.path()+".tmp", []byte("of a keeper before"), 0o600))
	must(do(pastBegins, "five"))
	must(do(pastEnds, ""))
	is("five")
	must(do(pastRemoved, ""))
	is("")
	if left, err := os.ReadDir(p.dir); len(left) != 0 || err != nil {
		t.Errorf("left are %v, %v", left, err)
	}
}
