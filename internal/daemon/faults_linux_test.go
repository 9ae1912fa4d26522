package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
)

// What of the environment says what this program is to do.
const (
	failConfig = "STOPD_TEST_FAIL"   // to be a daemon with this configuration, in this directory
	failAbout  = "STOPD_TEST_FAULTS" // the ends of a connection, "LOCAL REMOTE", that has a previous host
)

// runToFail makes this program a daemon of its own, whose processes can all be killed.
func runToFail() {
	config := os.Getenv(failConfig)
	if config == "" || os.Getenv(roleVariable) != "" {
		return
	}
	if err := Run(context.Background(), config, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "stopd:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

const supervisorRole role = "supervisor"

// steps are where a request is when a process is killed. A message that crosses says so, on its way there (before) or
// delivered. Those without a message are found by the request itself.
var steps = []struct {
	name   string
	call   call
	answer bool
	before bool // the message is not delivered before the process has been sent the signal
	asks   bool // only where there is a previous host
}{
	{name: "accepted"},
	{name: "being looked up", call: callFind},
	{name: "looked up", call: callFind, answer: true, before: true},
	{name: "being examined", call: callCheckpoint, before: true}, // it, or one after it
	{name: "being kept", call: callKeep},
	{name: "kept", call: callKeep, answer: true, before: true},
	{name: "kept and not replied", call: callExamine, answer: true},
	{name: "replied"},
	{name: "previous host being asked", call: callAsk, asks: true},
	{name: "previous host has answered", call: callAsk, answer: true, before: true, asks: true},
	{name: "trace-back due", call: callTraceback},
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
				if n%every != 0 || step.asks && !traced {
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

// backWithin is how long a daemon may take to answer again: ending what does not end takes endTime, and starting is short. A
// process that hangs is noticed after two answers that it owes.
const (
	backWithin    = endTime + 15*time.Second
	noticedWithin = 2*(watchEvery+answerTime) + backWithin
)

// A round is one fault of one daemon.
type round struct {
	*testing.T
	*site
	tap           *tap
	to            netip.AddrPort
	local, remote netip.AddrPort // of the connection that is asked about
	sid           uint64

	mu      sync.Mutex
	cmd     *exec.Cmd
	ended   chan struct{} // when cmd has
	said    bytes.Buffer  // by the daemon
	seen    map[int]bool  // processes of the daemon, ever
	tokens  []stop.Token  // acknowledged
	refused []time.Time
}

func newRound(t *testing.T, local, remote netip.AddrPort) *round {
	s := newSite(t)
	l, err := net.Listen("tcp", netip.AddrPortFrom(local.Addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	r := &round{T: t, site: s, to: netip.MustParseAddrPort(l.Addr().String()), local: local, remote: remote, sid: rand.Uint64(), seen: map[int]bool{}}
	l.Close() // the daemon opens the same
	c := &s.cfg
	c.Volatile = true // on a host of a lab nothing else is there
	c.Listen, c.OnBehalf = []string{r.to.String()}, []netip.Prefix{netip.PrefixFrom(local.Addr(), local.Addr().BitLen())}
	c.Limits.PerSourcePerSecond, c.Limits.Burst, c.Limits.PerUserPerSecond, c.Limits.UserBurst = 1e6, 1e6, 1e6, 1e6 // over a bound a token stands for nothing
	c.Traceback.Timeout = Duration{time.Second}
	c.Reply.Slots.SVRec = Duration{500 * time.Millisecond} // so that what is done is not replied yet
	s.write(t)
	r.tap = listenTap(t, s.dir)
	return r
}

// start starts a daemon of its own.
func (r *round) start() {
	r.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), failConfig+"="+r.config)
	cmd.Stderr = writerFunc(func(b []byte) (int, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.said.Write(b)
	})
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.ended = cmd, ended
	r.seen[cmd.Process.Pid] = true
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// processes are those of the daemon, by role; fewer than five where it is starting.
func (r *round) processes() map[role]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[role]int{supervisorRole: r.cmd.Process.Pid}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		status, err := os.ReadFile(dir + "/status")
		if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", r.cmd.Process.Pid)) {
			continue
		}
		args, err := os.ReadFile(dir + "/cmdline")
		name, ok := strings.CutPrefix(strings.TrimSuffix(string(args), "\x00"), "stopd\x00")
		if pid, err2 := strconv.Atoi(filepath.Base(dir)); err == nil && err2 == nil && ok {
			found[role(name)] = pid
			r.seen[pid] = true
		}
	}
	return found
}

// wait waits for a state.
func (r *round) wait(within time.Duration, what string, is func() bool) {
	r.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.Fatalf("after %s not: %s; the daemon said\n%s", within, what, r.said.String())
		}
	}
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err != nil || bytes.Contains(b, []byte("\nState:\tZ"))
}

// ask asks once, as a client would, and notes the token that it gets.
func (r *round) ask(typ stop.Type, sid uint64, within time.Duration) (stop.Answer, error) {
	q := stop.Request{Local: uint64(r.local.Port()), Remote: uint64(r.remote.Port()), Type: typ, SID: sid, For: r.remote.Addr()}
	a, err := (&stop.Client{Source: r.local.Addr(), Timeout: within}).Ask(context.Background(), r.to, q)
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, syscall.ECONNREFUSED) {
		r.refused = append(r.refused, time.Now())
	}
	if err == nil {
		r.tokens = append(r.tokens, a.Token)
	}
	return a, err
}

// clients ask all the time, until the end.
func (r *round) clients(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				types := []stop.Type{stop.ID, stop.SV, stop.IDRec}
				var sid uint64
				if typ := types[n%3]; typ.Recursive() {
					sid = rand.Uint64()
				}
				r.ask(types[n%3], sid, 3*time.Second)
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	return wg.Wait
}

// answers reports whether a new client is answered.
func (r *round) answers() bool {
	_, err := r.ask(stop.ID, 0, time.Second)
	return err == nil
}

func (r *round) run(step int, victim role, signal syscall.Signal) {
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
	if !r.answers() {
		r.Fatal("no answer beside half a line")
	}
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
	var examined atomic.Bool
	var mu sync.Mutex
	is := func(x passing) bool {
		mu.Lock()
		defer mu.Unlock()
		switch x.call {
		case callExamine:
			if !bytes.Contains(x.asked, sid) {
				return false
			}
			examined.Store(true)
			var f stop.Finding
			if x.answer && json.Unmarshal(x.body, &f) == nil {
				mine = f.Token
			}
		case callCheckpoint:
			return examined.Load()
		case callTraceback:
			var t tracebacks
			return json.Unmarshal(x.asked, &t) == nil && t.Token == mine
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

// descriptors are how many the supervisor has.
func (r *round) descriptors() int {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		r.Error(err)
	}
	return len(files)
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

// finish ends the daemon as a service manager does, and holds what it kept to what it acknowledged.
func (r *round) finish() {
	if err := syscall.Kill(r.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		r.Fatal(err)
	}
	r.wait(2*finishTimeout+endTime, "it has ended", func() bool {
		select {
		case <-r.ended:
			return true
		default:
			return false
		}
	})
	if s := r.cmd.ProcessState; !s.Success() {
		r.Errorf("it ended with %v:\n%s", s, r.said.String())
	}
	for pid := range r.seen {
		r.wait(backWithin, "its processes have ended", func() bool { return gone(pid) })
	}
	key, err := LogKey(r.cfg.Store)
	if err != nil {
		r.Fatal(err)
	}
	store, err := evidence.Open(r.cfg.Store, evidence.Config{Recipients: []age.Recipient{r.id.Recipient()}, AllowVolatile: true, LogKey: &key, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Fatal(err)
	}
	for _, token := range r.tokens {
		sealed, err := store.Export(r.Context(), evidence.Redemption{Token: token, By: "test", Reason: "test"})
		if err == nil {
			_, err = evidence.Unseal(sealed, r.id)
		}
		if err != nil {
			r.Errorf("a token that was acknowledged: %v", err)
		}
	}
	if err := store.Close(); err != nil {
		r.Error(err)
	}
	if len(r.tokens) < 3 {
		r.Errorf("%d tokens: nobody asked", len(r.tokens))
	}
	r.audit(key)
}

func (r *round) audit(key translog.Key) {
	p, err := translog.NewPolicy(key.Verifier(), nil, 0)
	if err != nil {
		r.Fatal(err)
	}
	a, err := evidence.Audit(r.Context(), r.cfg.Store, p)
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range a.Findings {
		r.Errorf("audit: %v", f)
	}
}
