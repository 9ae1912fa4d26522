package linux

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
)

// conversation is a connection within this machine that is over.
func conversation(t *testing.T) host.Flow {
	t.Helper()
	l := loopback(t)
	c, a := connection(t, l)
	c.Close()
	io.Copy(io.Discard, a)
	a.Close()
	return host.Flow{Protocol: host.TCP, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
}

// gapsAbout are the gaps of who held a closed connection, as one text.
func gapsAbout(t *testing.T, h *Host, f host.Flow) string {
	t.Helper()
	c, err := h.Find(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	s := lookAt(t, h)
	hs, err := s.Holders(t.Context(), c.Object)
	if err != nil || len(hs) != 1 || hs[0].PID != os.Getpid() {
		t.Fatalf("it was held by %+v, %v", hs, err)
	}
	var all strings.Builder
	for _, g := range s.Gaps() {
		all.WriteString(g.What + ": " + g.Why + "\n")
	}
	return all.String()
}

// provoked are those of gapsAbout that have to do with what a test does: events may be lost by what others do on this machine.
func provoked(t *testing.T, h *Host, f host.Flow) string {
	t.Helper()
	var all strings.Builder
	for line := range strings.Lines(gapsAbout(t, h, f)) {
		if !strings.Contains(line, "events were lost between ") {
			all.WriteString(line)
		}
	}
	return all.String()
}

// open opens this machine, with a recorder that tells of failures.
func open(t *testing.T, r Recorder) *Host {
	t.Helper()
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Remember(r); errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestFails: a recorder that fails is begun again, and says that it did not look meanwhile; nothing of before is lost.
func TestFails(t *testing.T) {
	told := make(chan error, 2)
	h := open(t, Recorder{Memory: recorder.Smallest, Keep: time.Hour, Failed: func(err error) { told <- err }})
	open, err := net.Listen("tcp", "127.0.0.1:0") // a connection that is open all the while
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	c, err := net.Dial("tcp", open.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	before := conversation(t)
	if gaps := provoked(t, h, before); gaps != "" {
		t.Errorf("gaps are %s", gaps)
	}
	p := h.past.Load()
	for at := sinceBoot(); p.until() < at; { // else the loss begins before it
		time.Sleep(time.Millisecond)
	}
	p.mu.Lock()
	p.events.Stop()
	p.mu.Unlock()
	if err := <-told; err == nil {
		t.Fatal("it does not fail")
	}
	if s := h.Sources(); strings.Contains(strings.Join(s, " "), "recorder") {
		t.Errorf("sources are %q", s)
	}
	if r, ok := h.Recorded(); !ok || r.Running || r.Connections == 0 {
		t.Errorf("recorded is %+v, %v", r, ok)
	}
	if _, err := lookAt(t, h).Remembered(t.Context(), host.ID{PID: os.Getpid(), Start: 1}); err == nil || errors.Is(err, host.ErrNotFound) {
		t.Errorf("what is remembered: %v", err)
	}
	kept := false
	if err := h.Keep(func(of *recorder.History, at uint64) error {
		_, kept = of.Latest(before.Local, before.Remote, uint32(h.netns), at)
		return nil
	}); err != nil || !kept {
		t.Errorf("what there was is kept: %v, %v", kept, err)
	}
	lost := conversation(t)
	if err := <-told; err != nil {
		t.Fatalf("it does not go on: %v", err)
	}
	after := conversation(t)
	if s := h.Sources(); !strings.Contains(strings.Join(s, " "), "recorder") {
		t.Errorf("sources are %q", s)
	}
	if gaps := provoked(t, h, before); strings.Count(gaps, "\n") != 1 || !strings.Contains(gaps, "a later one of the same ends may be missing") {
		t.Errorf("gaps are %s", gaps)
	}
	if gaps := provoked(t, h, after); gaps != "" {
		t.Errorf("gaps are %s", gaps)
	}
	if s, err := h.Find(t.Context(), lost); err == nil && s.Recalled {
		t.Error("what was over before it went on is remembered")
	}
	c.Close()
	flow := host.Flow{Protocol: host.TCP, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
	if gaps := gapsAbout(t, h, flow); !strings.Contains(gaps, "nothing was remembered between") {
		t.Errorf("gaps of what was open meanwhile are %q", gaps)
	}
}

// TestRestored: what was closed before a restart is found after it; what ended meanwhile is said not to have been noticed.
func TestRestored(t *testing.T) {
	seal := recorder.Seal{Key: make([]byte, recorder.KeySize)}
	h := open(t, Recorder{Memory: recorder.Smallest, Keep: time.Hour})
	var err error
	if seal.Scope, err = h.Scope(); err != nil || !strings.Contains(seal.Scope, h.facts.BootID) {
		t.Fatalf("scope %q, %v", seal.Scope, err)
	}
	child, going := start(t, "hold", nil, nil), start(t, "hold", nil, nil)
	was, err := lookAt(t, h).Process(t.Context(), child.pid)
	if err != nil {
		t.Fatal(err)
	}
	is, err := lookAt(t, h).Process(t.Context(), going.pid)
	if err != nil {
		t.Fatal(err)
	}
	over := conversation(t)
	var b bytes.Buffer
	if err := h.Keep(func(of *recorder.History, at uint64) error { return of.Keep(&b, seal, at) }); err != nil {
		t.Fatal(err)
	}
	h.Close()
	child.end()

	waits := make(chan struct{})
	told := make(chan error, 1)
	h = open(t, Recorder{Memory: recorder.Smallest, Keep: time.Hour, Failed: func(err error) { told <- err },
		Restore: func(of *recorder.History, since uint64) {
			<-waits
			told <- of.Restore(&b, seal, since)
		}})
	if s, err := h.Find(t.Context(), over); err == nil && s.Recalled { // and it does not wait
		t.Error("it is found before it is restored")
	}
	if s := h.Sources(); strings.Contains(strings.Join(s, " "), "recorder") {
		t.Errorf("sources are %q", s)
	}
	meanwhile := conversation(t)
	close(waits)
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	if err := <-h.past.Load().first; err != nil {
		t.Fatal(err)
	}
	if gaps := provoked(t, h, over); strings.Count(gaps, "\n") != 1 || !strings.Contains(gaps, "a later one of the same ends may be missing") {
		t.Errorf("gaps are %s", gaps)
	}
	if gaps := provoked(t, h, meanwhile); gaps != "" {
		t.Errorf("gaps are %s", gaps)
	}
	s := lookAt(t, h)
	r, err := s.Remembered(t.Context(), was.ID())
	if err != nil || r.Process.Exited == nil || r.Parent.PID != os.Getpid() {
		t.Errorf("the child is %+v, %v", r, err)
	}
	why := ""
	for _, g := range r.Gaps {
		why += g.Why + "\n"
	}
	if !strings.Contains(why, "its end was not noticed") || !strings.Contains(why, "nothing was remembered between") {
		t.Errorf("its gaps are %q", why)
	}
	if r, err := s.Remembered(t.Context(), is.ID()); err != nil || r.Process.Exited != nil || r.Parent.PID != os.Getpid() {
		t.Errorf("the child that goes on is %+v, %v", r, err)
	}
}

// TestLaterLost: where events were lost after a connection was closed, a later one of the same ends may be missing.
func TestLaterLost(t *testing.T) {
	h := open(t, Recorder{Memory: 64 << 20, Keep: time.Hour})
	var f host.Flow
	unsure := func() bool {
		t.Helper()
		s, err := h.Find(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		return s.Unsure
	}
	// sure makes a connection after which nothing was lost, as may be by what others do on this machine.
	sure := func(why string) {
		t.Helper()
		for range 20 {
			if f = conversation(t); !unsure() && !strings.Contains(gapsAbout(t, h, f), "later") {
				return
			}
		}
		t.Fatal(why)
	}
	sure("it is unsure, and nothing was lost")
	time.Sleep(1100 * time.Millisecond) // losses that are nearer to each other are one
	p := h.past.Load()
	p.history.Lost(sinceBoot(), sinceBoot())
	if gaps := gapsAbout(t, h, f); !strings.Contains(gaps, "a later one of the same ends") {
		t.Errorf("the gaps are:\n%s", gaps)
	}
	if !unsure() {
		t.Error("it is sure")
	}
	sure("one that came after the loss is unsure")
}

// TestLaterMissing: a later connection of the same ends may be missing where the loss is no older than the end of the one that is known.
func TestLaterMissing(t *testing.T) {
	for name, c := range map[string]struct {
		of   recorder.Connection
		loss recorder.Loss
		want bool
	}{
		"after its end":                 {recorder.Connection{Opened: 10, Closed: 20}, recorder.Loss{Kind: recorder.Ring, From: 30, To: 40}, true},
		"before its end and after":      {recorder.Connection{Opened: 10, Closed: 20}, recorder.Loss{Kind: recorder.Off, From: 15, To: 25}, true},
		"before its end":                {recorder.Connection{Opened: 10, Closed: 20}, recorder.Loss{Kind: recorder.Ring, From: 12, To: 15}, false},
		"its end was not noticed":       {recorder.Connection{Opened: 10, Closed: 20, Unsure: true}, recorder.Loss{Kind: recorder.Ring, From: 12, To: 15}, true},
		"its end is not known":          {recorder.Connection{Opened: 10}, recorder.Loss{Kind: recorder.Full, From: 12, To: 15}, true},
		"before it":                     {recorder.Connection{Opened: 10}, recorder.Loss{Kind: recorder.Full, From: 2, To: 5}, false},
		"what ended earlier has gone":   {recorder.Connection{Opened: 10, Closed: 20}, recorder.Loss{Kind: recorder.Forgotten, From: 0, To: 30}, false},
		"what processes had is missing": {recorder.Connection{Opened: 10, Closed: 20}, recorder.Loss{Kind: recorder.Unjoined, From: 0, To: 30}, false},
	} {
		if got := laterMissing(c.of, c.loss); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestUnremembered: what the kernel does not tell of the past is said, with why.
func TestUnremembered(t *testing.T) {
	h := open(t, Recorder{Memory: recorder.Smallest, Keep: time.Hour})
	old := errors.New("the kernel is too old")
	for _, c := range []struct {
		untold, unjoined error
		want             string
	}{
		{nil, nil, ""},
		{old, nil, ", but who holds an accepted connection is not known before it ends: the kernel is too old"},
		{old, old, ", but who holds an accepted connection is not known before it ends: the kernel is too old, but what processes had in common is not known: the kernel is too old"},
	} {
		p := h.past.Load()
		p.mu.Lock()
		p.events.Untold, p.events.Unjoined = c.untold, c.unjoined
		p.mu.Unlock()
		if got := but(h.Unremembered()); got != c.want {
			t.Errorf("said is %q, not %q", got, c.want)
		}
	}
}
