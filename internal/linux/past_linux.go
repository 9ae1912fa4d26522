package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
	"github.com/stopd/stopd/internal/recorder"
)

// A past is what is remembered of this machine, and what keeps it.
type past struct {
	Recorder
	h       *Host
	history *recorder.History
	running sync.WaitGroup
	closing context.Context
	cancel  context.CancelFunc
	first   chan error // what became of the first beginning
	told    bool       // that it failed; of run alone

	mu     sync.Mutex  // of whoever reads events
	events *bpf.Events // nil while there are none
	off    error       // why nothing is remembered now; nil while it is
	lost   uint64      // how many events were, of these
	before uint64      // and of those that failed
	whole  uint64      // until when it was remembered, and all that was is known
	owed   bool        // a sweep: something is missing that one finds
}

const (
	// lookAfter is after how long events are looked for that were too few to wake the reader, if nobody asks.
	lookAfter = 200 * time.Millisecond
	// sweepAfter is how far apart sweeps are that find what lost events would have said.
	sweepAfter = 10 * time.Second
	// forgetAfter is how far apart it is looked for what is too old.
	forgetAfter = time.Minute
)

// sameClock fails where the daemon's clock since the start of the host is another than the kernel's.
func sameClock() error {
	b, err := os.ReadFile("/proc/self/timens_offsets")
	if errors.Is(err, os.ErrNotExist) {
		return nil // there are no time namespaces
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "boottime" && (f[1] != "0" || f[2] != "0") {
			return errors.New("the daemon is in a time namespace with a clock of its own")
		}
	}
	return nil
}

// sinceBoot is the time as the kernel counts it for events, in nanoseconds.
func sinceBoot() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // it cannot fail
	return uint64(ts.Nano())
}

// unset is a login uid or audit session that nobody has set.
const unset = 1<<32 - 1

// tick is the unit in which /proc has the start of a process, in nanoseconds.
const tick = 1e9 / userHZ

// follow reads events until it fails, or is stopped.
func (p *past) follow(events *bpf.Events) error {
	var swept, forgot time.Time
	for {
		err := events.Wait(time.Now().Add(lookAfter))
		now := time.Now()
		p.mu.Lock()
		begun, lost := sinceBoot(), p.lost
		if err == nil {
			err = events.CountSkipped()
		}
		if err == nil {
			err = p.read()
		}
		if err == nil && lost == p.lost {
			p.whole = begun
		}
		if p.history.Missed() {
			p.owed = true
		}
		sweep := p.owed && now.Sub(swept) >= sweepAfter
		if sweep {
			swept, p.owed = now, false
		}
		p.mu.Unlock()
		if err == nil && sweep {
			err = p.sweep(events)
		}
		if err != nil {
			return err
		}
		if since := sinceBoot(); now.Sub(forgot) >= forgetAfter && since > uint64(p.Keep) {
			p.history.Forget(since - uint64(p.Keep))
			forgot = now
		}
	}
}

// read brings the history up to what has happened so far. The caller has the lock.
func (p *past) read() error {
	if p.off != nil {
		return p.off
	}
	if p.off = p.events.Read(func(events []recorder.Event) { p.history.Apply(events...) }); p.off != nil {
		return p.off
	}
	var lost uint64
	if lost, p.off = p.events.Lost(); p.off != nil {
		return p.off
	}
	if lost != p.lost {
		p.history.Lost(p.whole, sinceBoot())
		p.lost, p.owed = lost, true
	}
	return nil
}

// sweep compares the history with what there is. What is read then may be in the ring still, and says nothing new there. Who asks meanwhile waits for one step at most.
func (p *past) sweep(events *bpf.Events) error {
	root, err := openProcFS()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	exe := make([]byte, unix.PathMax)
	p.history.Sweep(sinceBoot())
	err = events.Met(&p.mu, func(e *recorder.Event) {
		if e.Kind == recorder.ProcessMet {
			if n, err := unix.Readlinkat(root, strconv.Itoa(int(e.Process.PID))+"/exe", exe); err == nil {
				e.Process.Exe = exe[:n]
			}
		}
		p.history.Apply(*e)
	})
	if err != nil {
		return err
	}
	p.history.Swept(sinceBoot())
	return nil
}

// opened returns when a connection that is open was established, or else since when it is known to be open; zero where that is not known.
func (h *Host) opened(cookie uint64) (opened, since time.Time) {
	p, err := h.catchUp()
	if err != nil {
		return
	}
	if c, ok := p.history.ByCookie(cookie, sinceBoot()); ok {
		return p.opened(c)
	}
	return
}

// opened returns when a connection was established, or, where it was met only later, since when it is known.
func (p *past) opened(c recorder.Connection) (opened, since time.Time) {
	if c.Met {
		return time.Time{}, p.time(c.Opened)
	}
	return p.time(c.Opened), time.Time{}
}

// recall returns what is remembered of a flow's latest connection in the host's own network namespace that somebody held.
func (h *Host) recall(f host.Flow) (host.Socket, error) {
	if f.Protocol != host.TCP {
		return host.Socket{}, host.ErrNotFound
	}
	p, err := h.catchUp()
	if err != nil {
		return host.Socket{}, err
	}
	locals := []host.Flow{f}
	if f.Local.Addr().IsUnspecified() {
		addrs, _, err := h.addresses()
		if err != nil {
			return host.Socket{}, err
		}
		locals = nil
		for _, a := range addrs {
			f := f
			f.Local = netip.AddrPortFrom(a, f.Local.Port())
			locals = append(locals, f)
		}
	}
	var latest recorder.Connection
	for _, f := range locals {
		f.Local, f.Remote = unzoned(f.Local), unzoned(f.Remote)
		c, ok := p.history.Latest(f.Local, f.Remote, uint32(h.netns), sinceBoot())
		if ok && len(c.Holders) > 0 && c.Opened >= latest.Opened {
			latest = c
		}
	}
	if latest.Opened == 0 {
		return host.Socket{}, host.ErrNotFound
	}
	s := p.socket(latest)
	s.Unsure = slices.ContainsFunc(p.history.Losses(latest.Opened, sinceBoot()), func(l recorder.Loss) bool { return laterMissing(latest, l) })
	return s, nil
}

// recalled begins the names of connections that nobody holds any more: then come the socket's cookie, and when it was established.
const recalled = "recalled:"

func recalledName(c recorder.Connection) host.Object {
	return host.Object(fmt.Sprintf("%s%d:%d", recalled, c.Cookie, c.Opened))
}

func (p *past) socket(c recorder.Connection) host.Socket {
	s := host.Socket{Protocol: host.TCP, Local: c.Local, Remote: c.Remote, State: "CLOSED", UID: c.UID, Cookie: c.Cookie, NetNS: uint64(c.NetNS),
		Direction: host.UnknownDirection, Bytes: host.Bytes{Sent: c.Sent, Acknowledged: c.Sent, Received: c.Received},
		Object: recalledName(c), Recalled: true}
	switch c.Direction {
	case recorder.Outbound:
		s.Direction, s.DirectionSource = host.Outbound, host.FromRecorder
	case recorder.Inbound:
		s.Direction, s.DirectionSource = host.Inbound, host.FromRecorder
	}
	s.Opened, s.Since = p.opened(c)
	if c.Unsure {
		s.Until = p.time(p.noticed(c))
	}
	if o, ok := p.other(c); ok {
		s.Peer = recalledName(o)
	}
	if c.Closed != 0 {
		s.Closed = p.time(c.Closed)
	} else {
		s.State = "" // it is on its way to be closed, or open
	}
	return s
}

// time is when something happened, by the clock as it is now.
func (p *past) time(at uint64) time.Time { return p.h.at(time.Duration(at)) }

func idOf(id recorder.ID) host.ID {
	if id.PID == 0 {
		return host.ID{}
	}
	return host.ID{PID: int(id.PID), Start: id.Start / tick}
}

// recalledHolders returns who held a connection that nobody holds any more.
func (h *Host) recalledHolders(name string) ([]host.Holder, []host.Gap, error) {
	first, second, _ := strings.Cut(name, ":")
	cookie, err := strconv.ParseUint(first, 10, 64)
	opened, err2 := strconv.ParseUint(second, 10, 64)
	if err != nil || err2 != nil {
		return nil, nil, fmt.Errorf("find holders of a closed connection: %w", errSyntax)
	}
	p, err := h.catchUp()
	if err != nil {
		return nil, nil, err
	}
	c, ok := p.history.ByCookie(cookie, opened)
	if !ok {
		return nil, nil, host.ErrNotFound
	}
	var hs []host.Holder
	for _, id := range c.Holders {
		hs = append(hs, host.Holder{ID: idOf(id), FDs: []int{}, Mode: host.ReadWrite})
	}
	return hs, p.connectionGaps(c), nil
}

// Remembered returns what is remembered of a process.
func (s *snapshot) Remembered(ctx context.Context, id host.ID) (host.Remembered, error) {
	p, found, err := s.recorded(id)
	if err != nil {
		return host.Remembered{}, err
	}
	r := host.Remembered{Process: p.process(ctx, found), Parent: idOf(found.Parent)}
	for _, outbound := range []bool{false, true} {
		held, more := p.history.Held(found.ID, 0, 1<<64-1, outbound, maxHeld)
		r.Held, r.Cut = append(r.Held, p.sockets(held)...), r.Cut || more
	}
	joints, cut := p.history.Joined(found.ID, maxWith)
	gap := func(format string, args ...any) {
		r.Gaps = append(r.Gaps, host.Gap{PID: id.PID, What: "the past", Why: fmt.Sprintf(format, args...)})
	}
	r.Joints = s.joints(joints, gap)
	if err := p.unjoined(); err != nil {
		gap("which pipes, UNIX sockets and terminals it had is not remembered: %v", err)
	}
	if err := p.untold(); err != nil {
		gap("which connections it had accepted that the other end broke off, or that others have still, is not remembered: %v", err)
	}
	if cut {
		gap("bound: it may have had more pipes, UNIX sockets and terminals than are remembered")
	}
	if len(found.Exe) == 0 {
		gap("the path of its program is not remembered: there was no room for it, it is longer than %d octets, or could not be read as the process was met", recorder.MaxPath)
	}
	if found.Unsure {
		gap("its end was not noticed: it ended before %s", r.Process.Exited.Format(time.RFC3339Nano))
	}
	until := found.Exited
	if until == 0 {
		until = sinceBoot()
	}
	for _, l := range p.history.Losses(found.Start, until) {
		gap("%s", p.why(l))
	}
	return r, nil
}

// process is a process as the history has it.
func (p *past) process(ctx context.Context, f recorder.Process) host.Process {
	q := host.Process{PID: int(f.PID), PPID: new(int(f.Parent.PID)), StartTicks: f.Start / tick, Start: p.time(f.Start),
		Name: string(f.Name), Exe: string(bytes.TrimSuffix(f.Exe, []byte(" (deleted)"))), RUID: new(f.RUID), EUID: new(f.EUID), Session: new(int(f.Session))}
	q.RUser, q.EUser = p.h.UserName(ctx, f.RUID), p.h.UserName(ctx, f.EUID)
	if f.LoginUID != unset {
		q.LoginUID = new(f.LoginUID)
	}
	if f.AuditSession != unset {
		q.AuditSession = new(f.AuditSession)
	}
	if f.Exited != 0 {
		q.Exited = new(p.time(f.Exited))
	}
	return q
}
