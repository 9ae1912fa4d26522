package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// stageLimit bounds one scenario.
const stageLimit = 4 * time.Minute // on a machine that is busy

// A stage is one scenario on the shared hosts. What its intruders start ends with it.
type stage struct {
	*world
	t    *testing.T
	ctx  context.Context
	port uint16 // free on every host, with those up to port+9
	dir  string // on b, mallory's own
	word string // what the intruder says, unlike any other
	// busy says that processes come and go all the time, so that no two looks are alike.
	busy bool
	// again is how often b was asked once more since there was no time for all of an answer.
	again int
}

func (w *world) stage(t *testing.T) *stage {
	t.Helper()
	return w.stageFor(t, stageLimit)
}

// stageFor is stage for a scenario with another bound.
func (w *world) stageFor(t *testing.T, limit time.Duration) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	w.rows++
	s := &stage{
		world: w, t: t, ctx: ctx, port: uint16(10000 + 10*w.rows),
		dir: fmt.Sprintf("/tmp/stage-%d", w.rows), word: fmt.Sprintf("word-%d-of-the-intruder", w.rows),
	}
	n := 0
	err := netlab.WaitFor(ctx, func() (bool, error) { // what ended with the last stage may be on its way still
		var err error
		n, err = w.atWork(ctx)
		return n == w.innocents, err
	})
	if err != nil {
		t.Fatalf("%d connections of innocents, want %d; %v", n, w.innocents, err)
	}
	_, err = w.b.Host.RunAs(ctx, "mallory", "mkdir", s.dir)
	s.must(err)
	t.Cleanup(s.clear)
	return s
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// wait waits for a state of the hosts.
func (s *stage) wait(what string, cond func() (bool, error)) {
	s.t.Helper()
	if err := netlab.WaitFor(s.ctx, cond); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

func (w *world) sites() []*site.Site {
	return append([]*site.Site{w.a, w.b, w.c, w.d, w.g}, w.behind...)
}

// clear ends what the intruders run, each process by its id, and waits until nothing of it is left.
func (s *stage) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
	defer cancel()
	for _, h := range s.sites() {
		err := netlab.WaitFor(ctx, func() (bool, error) {
			pids, err := processes(ctx, h.Host, intruders...)
			if err != nil || len(pids) == 0 {
				return len(pids) == 0, err
			}
			// One that has ended since is no error: the next look tells.
			_ = h.Host.Command(ctx, "kill", append([]string{"-KILL"}, decimal(pids)...)...).Run()
			return false, nil
		})
		if err != nil {
			s.t.Errorf("end the intruders' processes on %s: %v", h.Host.Name, err)
		}
	}
	err := netlab.WaitFor(ctx, func() (bool, error) {
		cs, err := connections(ctx, s.b.Host)
		return !slices.ContainsFunc(cs, func(c connection) bool {
			return s.of(s.a, c.remote.Addr()) || c.remote.Port() == victimPort
		}), err
	})
	if err != nil {
		s.t.Errorf("end the intruders' connections: %v", err)
	}
}

func decimal(pids []int) []string {
	var out []string
	for _, p := range pids {
		out = append(out, strconv.Itoa(p))
	}
	return out
}

// unremembered lets b remember nothing until the stage ends: what is found is what there is.
func (s *stage) unremembered() {
	s.t.Helper()
	remember := func(ctx context.Context, mode string) {
		s.must(s.b.Configure("mode", fmt.Sprintf("mode = %q", mode)))
		if s.b.Host.Systemd() {
			_, err := s.b.Host.Run(ctx, "systemctl", "restart", "stopd")
			s.must(err)
			return
		}
		s.must(s.b.Daemon.Stop(ctx))
		s.must(s.b.Run(ctx))
	}
	remember(s.ctx, "off")
	s.t.Cleanup(func() { remember(context.Background(), "require") })
}

// of reports whether an address is a site's.
func (w *world) of(s *site.Site, a netip.Addr) bool {
	return slices.ContainsFunc(s.Host.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// processes returns the processes of users on a host.
func processes(ctx context.Context, h *netlab.Host, users ...string) ([]int, error) {
	out, err := h.Run(ctx, "pgrep", "-U", strings.Join(users, ","))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, nil // none
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// A connection is an established TCP connection of a host, with the processes that hold it. Addresses are
// never mapped ones.
type connection struct {
	local, remote netip.AddrPort
	pids          []int
}

var ssPID = regexp.MustCompile(`pid=(\d+)`)

// connections returns the established TCP connections of a host.
func connections(ctx context.Context, h *netlab.Host) ([]connection, error) {
	return connectionsBy(ctx, h, "ss")
}

// connectionsBy is connections with another command in place of ss, such as one in a namespace of the host.
func connectionsBy(ctx context.Context, h *netlab.Host, argv ...string) ([]connection, error) {
	out, err := h.Run(ctx, argv[0], append(argv[1:], "-tnpH", "state", "established")...)
	if err != nil {
		return nil, err
	}
	var cs []connection
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("read connections of %s: %q", h.Name, line)
		}
		var c connection
		for i, end := range []*netip.AddrPort{&c.local, &c.remote} {
			ap, err := netip.ParseAddrPort(f[2+i])
			if err != nil {
				return nil, fmt.Errorf("read connections of %s: %w", h.Name, err)
			}
			*end = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		}
		for _, m := range ssPID.FindAllStringSubmatch(line, -1) {
			pid, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, err
			}
			if !slices.Contains(c.pids, pid) {
				c.pids = append(c.pids, pid)
			}
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// one waits until a host has exactly one connection that some process holds and that cond holds for.
func (s *stage) one(on *site.Site, what string, cond func(connection) bool) connection {
	s.t.Helper()
	var found []connection
	err := netlab.WaitFor(s.ctx, func() (bool, error) {
		cs, err := connections(s.ctx, on.Host)
		found = slices.DeleteFunc(cs, func(c connection) bool { return len(c.pids) == 0 || !cond(c) })
		return len(found) == 1, err
	})
	if err != nil {
		s.t.Fatalf("%s on %s: %v; found %v", what, on.Host.Name, err, found)
	}
	return found[0]
}

// out returns the connection from a site to the victim's port of another.
func (s *stage) out(from, to *site.Site) connection {
	s.t.Helper()
	return s.one(from, "connection with the victim", func(c connection) bool {
		return s.of(to, c.remote.Addr()) && c.remote.Port() == victimPort
	})
}

// in returns the connection of b with the attacker's host.
func (s *stage) in() connection {
	s.t.Helper()
	return s.one(s.b, "connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
}

// on starts a program of a user on a site, as a child of its init, and lets its end be no failure.
func (s *stage) on(at *site.Site, user, name string, args ...string) *netlab.Daemon {
	s.t.Helper()
	d, err := at.Host.StartAs(user, name, args...)
	s.must(err)
	s.t.Cleanup(func() {
		if log, err := d.Log(); s.t.Failed() && err == nil && log != "" {
			s.t.Logf("%s %q on %s said: %s", name, args, at.Host.Name, log)
		}
	})
	return d
}

// script starts a shell script of mallory's on b.
func (s *stage) script(format string, v ...any) {
	s.t.Helper()
	s.on(s.b, "mallory", "sh", "-c", fmt.Sprintf(format, v...))
}

// open starts a program of mallory's on a and holds its input open.
func (s *stage) open(argv ...string) *netlab.Session {
	s.t.Helper()
	return s.openOn(s.a, argv...)
}

func (s *stage) openOn(at *site.Site, argv ...string) *netlab.Session {
	s.t.Helper()
	return s.openAs(at, "mallory", argv...)
}

func (s *stage) openAs(at *site.Site, user string, argv ...string) *netlab.Session {
	s.t.Helper()
	session, err := netlab.Open(at.Host.CommandAs(s.ctx, user, argv[0], argv[1:]...))
	s.must(err)
	s.t.Cleanup(func() { _ = session.Close() }) // its end is looked for by clear
	return session
}

func (s *stage) send(session *netlab.Session, lines ...string) {
	s.t.Helper()
	for _, l := range lines {
		s.must(session.Send(l))
	}
}

// listening waits until b listens on a port.
func (s *stage) listening(port uint16) {
	s.t.Helper()
	s.must(s.b.Host.WaitListen(s.ctx, port))
}

// exists waits until a file is there on b.
func (s *stage) exists(path string) {
	s.t.Helper()
	s.wait("wait for "+path, func() (bool, error) {
		_, err := os.Lstat(s.b.Host.Path(path))
		return err == nil, nil
	})
}

// connect lets the attacker connect to a port of b by IPv4, and say the word.
func (s *stage) connect(port uint16) *netlab.Session {
	s.t.Helper()
	s.listening(port)
	c := s.open("nc.traditional", s.b.Host.Addr().String(), strconv.Itoa(int(port)))
	s.send(c, s.word)
	return c
}

// heard waits until a victim has been told the intruder's word: what is to be traced does pass on data.
func (s *stage) heard(by *site.Site) {
	s.t.Helper()
	s.wait("wait for the victim to hear "+s.word, func() (bool, error) {
		text, err := by.Host.ReadFile(received)
		return strings.Contains(string(text), s.word), ignoreMissing(err)
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// ignoreExit is for programs that tell by their exit status that they found nothing.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	return err
}
