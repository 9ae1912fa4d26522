package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/server"
)

// steps are where a request is when a process is killed. A message that crosses says so, on its way there (before) or
// delivered. Those without a message are found by the request itself.
var steps = []struct {
	name   string
	call   call
	answer bool
	before bool // the message is not delivered before the process has been sent the signal
}{
	{name: "accepted"},
	{name: "being looked up", call: callFind},
	{name: "looked up", call: callFind, answer: true, before: true},
	{name: "being examined", call: callExamine},
	{name: "being kept", call: callKeep},
	{name: "kept", call: callKeep, answer: true, before: true},
	{name: "kept and not replied", call: callExamine, answer: true},
	{name: "replied"},
	{name: "followed back", call: callFound},
	{name: "trace-back begun", call: callBegin},
	{name: "trace-back due", call: callKeepTraceback, before: true},
	{name: "trace-back being kept", call: callKeepTraceback},
}

// struck is what became of a process that was sent a signal.
var struck = map[syscall.Signal]string{syscall.SIGKILL: "killed", syscall.SIGSTOP: "stopped"}

var victims = []role{supervisorRole, front, tracer, collector, keeper}

// Each process of the daemon is killed, and stopped, at each step of a request while others ask all the time. The
// daemon answers again within a bounded time, every token that was acknowledged can be redeemed, the store's audit finds
// nothing, nothing is left over, and nobody is refused longer than the supervisor is away. Without a connection
// that has a previous host, the steps of a trace-back are those of one that has nobody to ask.
func TestFaults(t *testing.T) {
	every := 11 // a tenth: each process in five steps
	if os.Getenv("STOPD_SOAK") != "" {
		every = 1
	}
	var local, remote netip.AddrPort
	traced := false
	if about := os.Getenv(failAbout); about != "" {
		a, b, _ := strings.Cut(about, " ")
		local, remote, traced = netip.MustParseAddrPort(a), netip.MustParseAddrPort(b), true
	} else {
		local, remote = connection(t)
	}
	n := 0
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		if signal == syscall.SIGSTOP && !traced {
			continue // it takes half a minute, and is done where everything is
		}
		for i, step := range steps {
			for _, victim := range victims {
				n++
				if n%every != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", strings.ReplaceAll(step.name, " ", "-"), victim, struck[signal]), func(t *testing.T) {
					t.Parallel()
					r := newRound(t, local, remote)
					r.run(i, victim, signal)
				})
			}
		}
	}
}

func (r *round) run(step int, victim role, signal syscall.Signal) {
	r.cfg.Limits.Over = server.OverError // while a process is stopped the bounds are reached, and such a token has no record
	r.write(r.T)
	r.start()
	r.wait(backWithin, "the daemon answers", r.answers)
	r.refused = nil
	before := r.processes()
	if len(before) != len(victims) {
		r.Fatalf("its processes are %v", before)
	}
	descriptors := r.descriptors()
	ctx, cancel := context.WithCancel(r.Context())
	wait := r.clients(ctx)
	defer func() { cancel(); wait() }()

	var since time.Time
	strike := sync.OnceFunc(func() {
		since = time.Now()
		if err := syscall.Kill(before[victim], signal); err != nil {
			r.Error(err)
		}
		if signal == syscall.SIGKILL {
			r.wait(time.Minute, "it is dead", func() bool { return gone(before[victim]) })
		}
	})
	acknowledged := r.request(step, strike)
	if since.IsZero() {
		r.Fatalf("no request was %s", steps[step].name)
	}
	if steps[step].name == "replied" && !acknowledged {
		r.Error("no reply before the process was killed")
	}
	within := backWithin
	switch {
	case victim == supervisorRole && signal == syscall.SIGSTOP:
		// Nobody notices, and nobody misses it.
	case victim == supervisorRole:
		// Who starts services starts it again, once nothing of it is left.
		for pid := range r.seen {
			r.wait(backWithin, "all have ended with the supervisor", func() bool { return gone(pid) })
		}
		r.start()
	case signal == syscall.SIGSTOP:
		within = noticedWithin
	}
	if victim != supervisorRole {
		r.wait(within, "all are started anew", func() bool {
			now := r.processes()
			return len(now) == len(victims) && now[victim] != before[victim]
		})
	}
	r.wait(backWithin, "the daemon answers again", r.answers)
	r.Logf("%s %s, a request %s: it answers %s later", victim, struck[signal], steps[step].name, time.Since(since).Round(time.Millisecond))
	if victim == supervisorRole && signal == syscall.SIGSTOP {
		syscall.Kill(before[victim], syscall.SIGCONT)
	}
	others := r.acknowledged()
	r.wait(backWithin, "those who ask all the time are answered", func() bool { return r.acknowledged() >= others+3 })
	r.fresh(victim, descriptors)
	cancel()
	wait()
	r.finish()
}

// request brings a request of its own to a step, strikes there, and says whether it was acknowledged.
func (r *round) request(step int, strike func()) bool {
	s := steps[step]
	if s.name == "accepted" {
		r.halfALine(strike)
		return false
	}
	reached := make(chan struct{})
	done := sync.OnceFunc(func() { close(reached) })
	if s.call != callAnswer {
		r.tap.watch(r.strikeAt(step, func() { strike(); done() }))
		defer r.tap.watch(nil)
	}
	_, err := r.ask(stop.SVRec, r.sid, noticedWithin)
	if s.name == "replied" {
		strike()
		return err == nil
	}
	select { // a trace-back is kept after the reply
	case <-reached:
	case <-time.After(noticedWithin):
	}
	return err == nil
}

// halfALine strikes when the front has accepted a connection and not read a line of it: it has accepted a later one.
func (r *round) halfALine(strike func()) {
	c, err := net.Dial("tcp", r.to.String())
	if err != nil {
		r.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%d , ", r.local.Port())
	r.wait(backWithin, "the daemon answers beside half a line", r.answers)
	strike()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "%d\r\n", r.remote.Port())
	bufio.NewReader(c).ReadString('\n') // whatever comes
}

// strikeAt finds the message of a step among those of all requests.
func (r *round) strikeAt(step int, strike func()) func(passing, func()) {
	s := steps[step]
	sid := []byte(strconv.FormatUint(r.sid, 10))
	var mine stop.Token
	var mu sync.Mutex
	is := func(x passing) bool {
		mu.Lock()
		defer mu.Unlock()
		switch x.call {
		case callExamine:
			if !bytes.Contains(x.asked, sid) {
				return false
			}
			var e stop.Examined
			if x.answer && json.Unmarshal(x.body, &e) == nil {
				mine = e.Token
			}
		case callBegin:
			var t stop.Token
			return json.Unmarshal(x.asked, &t) == nil && t == mine
		case callKeepTraceback:
			var t keptTraceback
			return json.Unmarshal(x.asked, &t) == nil && t.Token == mine
		default:
			return bytes.Contains(x.asked, sid)
		}
		return true
	}
	return func(x passing, pass func()) {
		if !is(x) || x.call != s.call || x.answer != s.answer {
			return
		}
		if !s.before {
			pass()
		}
		strike()
	}
}

// fresh checks that nothing of the processes before is left, and who was refused.
func (r *round) fresh(victim role, descriptors int) {
	now := map[int]bool{}
	for _, pid := range r.processes() {
		now[pid] = true
	}
	if len(now) != len(victims) {
		r.Errorf("%d processes", len(now))
	}
	for pid := range r.seen {
		if !now[pid] && !gone(pid) {
			r.Errorf("process %d is left", pid)
		}
	}
	r.wait(backWithin, fmt.Sprintf("the supervisor has %d descriptors", descriptors), func() bool { return r.descriptors() <= descriptors })
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.refused); n > 0 {
		if long := r.refused[n-1].Sub(r.refused[0]); victim != supervisorRole || long > backWithin {
			r.Errorf("%d connections were refused, for %s", n, long)
		}
	}
}
