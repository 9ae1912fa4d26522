package linux

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// remembering is this machine, from now on remembered.
func remembering(t *testing.T) *Host {
	t.Helper()
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Remember(Recorder{Memory: 64 << 20, Keep: time.Hour}); err != nil { // room for what else happens meanwhile
		if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	return h
}

func lookAt(t *testing.T, h host.Host) host.Snapshot {
	t.Helper()
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestRemember: a closed connection is found with who held it, and an ended process with who made it; a replay answers alike.
func TestRemember(t *testing.T) {
	h := remembering(t)
	me, err := lookAt(t, h).Process(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	child := start(t, "hold", nil, nil)
	was, err := lookAt(t, h).Process(t.Context(), child.pid)
	if err != nil {
		t.Fatal(err)
	}

	l := loopback(t)
	c, a := connection(t, l)
	flow := host.Flow{Protocol: host.TCP, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
	open, err := h.Find(t.Context(), flow)
	if err != nil || open.Recalled || open.Inode == 0 || time.Since(open.Opened) > time.Minute {
		t.Fatalf("an open connection is %+v, %v", open, err)
	}
	io.WriteString(c, "octets")
	c.Close()
	io.Copy(io.Discard, a)
	a.Close()
	child.end()

	closed, err := h.Find(t.Context(), flow)
	if err != nil {
		t.Fatal(err)
	}
	if !closed.Recalled || closed.State != "CLOSED" || closed.Direction != host.Outbound || closed.DirectionSource != host.FromRecorder || closed.Cookie != open.Cookie ||
		int(closed.UID) != os.Getuid() || !closed.Closed.After(closed.Opened) || time.Since(closed.Closed) > time.Minute {
		t.Errorf("the closed connection is %+v", closed)
	}
	s := lookAt(t, h)
	holders, err := s.Holders(t.Context(), closed.Object)
	want := []host.Holder{{ID: me.ID(), FDs: []int{}, Mode: host.ReadWrite}}
	if d := cmp.Diff(want, holders); d != "" || err != nil {
		t.Errorf("holders of it: %v (-want +got):\n%s", err, d)
	}
	past, err := s.Remembered(t.Context(), was.ID())
	if err != nil {
		t.Fatal(err)
	}
	p := past.Process
	if past.Parent != me.ID() || p.Exited == nil || p.Exited.Before(p.Start) || p.ID() != was.ID() || p.Name != was.Name || p.RUID == nil || *p.RUID != *was.RUID ||
		*p.Session != *was.Session || p.Start.Sub(was.Start).Abs() > 20*time.Millisecond {
		t.Errorf("remembered is %+v, made by %v; it was %+v of %v", p, past.Parent, was, me.ID())
	}
	if _, err := s.Remembered(t.Context(), host.ID{PID: was.PID, Start: was.StartTicks + 1}); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("a process with its pid that started later: %v", err)
	}
	if _, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: flow.Remote, Remote: flow.Local}); err != nil {
		t.Errorf("the end that accepted: %v", err)
	}

	r, err := host.Record(t.Context(), h, s, []int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	replay := &host.Replay{Recording: r}
	again, err := replay.Find(t.Context(), flow)
	if d := cmp.Diff(closed, again, cmpopts.EquateComparable(closed.Local)); d != "" || err != nil {
		t.Errorf("replayed: %v (-want +got):\n%s", err, d)
	}
	if hs, err := lookAt(t, replay).Holders(t.Context(), closed.Object); cmp.Diff(want, hs) != "" || err != nil {
		t.Errorf("replayed, its holders are %+v, %v", hs, err)
	}
}

// TestNothingRemembered: without a recorder nothing is remembered, and that is no error.
func TestNothingRemembered(t *testing.T) {
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := lookAt(t, h).Remembered(t.Context(), host.ID{PID: os.Getpid(), Start: 1}); !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
	if _, err := lookAt(t, h).Holders(t.Context(), recalled+"1:1"); !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
}

// TestForgottenAtClose: whoever asks while the host is closed is answered.
func TestForgottenAtClose(t *testing.T) {
	h := remembering(t)
	p, err := h.catchUp()
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	if _, err := h.catchUp(); err == nil {
		t.Error("a past that is closed says nothing of it")
	}
}

// TestLossTold: where more happens than there is room for while nobody reads, each process that was there is told to have a gap, and none that
// came after it.
func TestLossTold(t *testing.T) {
	h := remembering(t)
	before := start(t, "hold", nil, nil)
	was, err := lookAt(t, h).Process(t.Context(), before.pid)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	p, err := h.catchUp()
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	for lost := uint64(0); lost == 0 && !t.Failed(); {
		for range 1000 {
			if c, err := net.Dial("tcp", nobody); err == nil {
				c.Close()
			}
		}
		if lost, err = p.events.Lost(); err != nil {
			t.Error(err)
		}
	}
	p.mu.Unlock()
	lossOf := func(id host.ID) (why string) {
		t.Helper()
		past, err := lookAt(t, h).Remembered(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range past.Gaps {
			if strings.HasPrefix(g.Why, "events were lost between ") {
				why = g.Why
			}
		}
		return why
	}
	if lossOf(was.ID()) == "" {
		t.Error("a process that was there has no gap")
	}
	why := "none"
	for range 20 { // what others do on this machine may lose events again
		after := start(t, "hold", nil, nil)
		is, err := lookAt(t, h).Process(t.Context(), after.pid)
		if err != nil {
			t.Fatal(err)
		}
		if why = lossOf(is.ID()); why == "" {
			break
		}
		after.end()
	}
	if why != "" {
		t.Errorf("a process that came later has the gap %q", why)
	}
}

// TestClockSet: dates are by the clock as it is when something is asked, whatever it was when it happened.
func TestClockSet(t *testing.T) {
	h := remembering(t)
	f := conversation(t)
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		h.boot.Add(int64(off)) // as if the clock had been set since
		s, err := h.Find(t.Context(), f)
		if err != nil || time.Since(s.Closed).Abs() > time.Minute || time.Since(s.Opened).Abs() > time.Minute {
			t.Errorf("it was open from %s to %s, %v", s.Opened, s.Closed, err)
		}
		h.boot.Add(int64(off))
		p, err := lookAt(t, h).Process(t.Context(), os.Getpid())
		if err != nil || time.Since(p.Start).Abs() > 10*time.Minute {
			t.Errorf("this began at %s, %v", p.Start, err)
		}
		if r, _ := h.Recorded(); time.Since(r.Since).Abs() > 10*time.Minute {
			t.Errorf("it remembers since %s", r.Since)
		}
	}
	before := h.at(0)
	h.readClock()
	if d := h.at(0).Sub(before).Abs(); d != 0 && d <= sameTime {
		t.Errorf("the time that this host was started goes %s apart", d)
	}
}

// TestPathNotRemembered: where the path of a program that has ended is not remembered, that is a gap; else there is none.
func TestPathNotRemembered(t *testing.T) {
	h := remembering(t)
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip(err)
	}
	for path, lacks := range map[string]bool{
		filepath.Join(t.TempDir(), "sleep"): false,
		filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("b", 100), strings.Repeat("c", 100), "sleep"): true,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, program, 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "1000")
		if err := cmd.Start(); err != nil {
			t.Skip(err)
		}
		was, err := lookAt(t, h).Process(t.Context(), cmd.Process.Pid)
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil {
			t.Fatal(err)
		}
		r, err := lookAt(t, h).Remembered(t.Context(), was.ID())
		if err != nil {
			t.Fatal(err)
		}
		if has := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.HasPrefix(g.Why, "the path of its program") }); has != lacks || (r.Process.Exe == "") != lacks {
			t.Errorf("of %s it is remembered that it was %q, with the gaps %+v", path, r.Process.Exe, r.Gaps)
		}
	}
}

// TestOwnBefore: a closed connection of the host's own counts beside those with its ends that were passed on, for as long as these are kept.
func TestOwnBefore(t *testing.T) {
	h := remembering(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	flow := host.Flow{Protocol: host.TCP, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
	c.(*net.TCPConn).SetLinger(0) // nothing of it is left
	c.Close()
	if own := h.ownBefore(flow); own != nil {
		t.Errorf("where nothing is passed on it is %+v", own)
	}
	h.passed = newPassed(time.Hour, 10)
	if own := h.ownBefore(flow); own == nil || !own.Recalled || own.Direction != host.Outbound || own.Closed.IsZero() || own.Local != flow.Local || own.Remote != flow.Remote {
		t.Errorf("it is %+v", own)
	}
	h.passed = newPassed(time.Nanosecond, 10)
	if own := h.ownBefore(flow); own != nil {
		t.Errorf("longer ago than others are kept it is %+v", own)
	}
}
