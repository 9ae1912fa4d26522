package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/netlab"
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

// backWithin is how long a daemon may take to answer again: ending what does not end takes endTime, and starting is short. A
// process that hangs is noticed after two answers that it owes.
const (
	backWithin    = endTime + time.Minute // on a machine that is busy
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
	r := &round{T: t, site: s, to: freePort(t, local.Addr()), local: local, remote: remote, sid: rand.Uint64(), seen: map[int]bool{}}
	c := &s.cfg
	c.Volatile = true // on a host of a lab nothing else is there
	c.Listen, c.OnBehalf = []string{r.to.String()}, []Network{{netip.PrefixFrom(local.Addr(), local.Addr().BitLen())}}
	c.Limits.PerSourcePerSecond, c.Limits.Burst, c.Limits.PerUserPerSecond, c.Limits.UserBurst = 1e6, 1e6, 1e6, 1e6 // over a bound a token stands for nothing
	c.Traceback.Timeout = Duration{time.Second}
	c.Reply.Slots.SVRec = Duration{500 * time.Millisecond} // so that what is done is not replied yet
	s.write(t)
	r.tap = listenTap(t, s.dir)
	return r
}

// freePort is a port of an address that nobody else listens on until the test has ended.
func freePort(t *testing.T, a netip.Addr) netip.AddrPort {
	t.Helper()
	at, free, err := netlab.FreePort(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(free)
	return at
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
	eventually(r, within, is, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Sprintf("after %s not: %s; the daemon said\n%s", within, what, r.said.String())
	})
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

// descriptors are how many the supervisor has.
func (r *round) descriptors() int {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		r.Error(err)
	}
	return len(files)
}

// acknowledged is how many tokens there are.
func (r *round) acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tokens)
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
