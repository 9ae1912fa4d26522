package linux

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// Track has the host listen to what connection tracking says of translated connections, and keep those that have ended for a
// time, at most so many of all. It ends with the host.
func (h *Host) Track(keep time.Duration, limit int) error {
	if b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_events"); err == nil && text(bytes.TrimSpace(b)) == "0" {
		return errors.New("the kernel is not to tell of translated connections: the sysctl net.netfilter.nf_conntrack_events is 0")
	}
	l, err := conntrack.Listen(0, conntrack.New, conntrack.Destroyed)
	if err != nil {
		return err
	}
	var ctx context.Context
	ctx, h.untrack = context.WithCancel(context.Background())
	h.passed = newPassed(keep, limit)
	h.listening.Go(func() {
		for l != nil {
			h.listen(ctx, l)
			l = listenAgain(ctx)
			h.passed.lose(time.Now()) // what came meanwhile
		}
	})
	return nil
}

// listRatio bounds what listing all that is tracked costs: one share of the time.
const listRatio = 20

// listen takes events until the listener fails or the context ends. What is tracked as it begins, and after events were lost, is listed: the kernel
// tells of it no more, and who had the ends of one that is there now is to be known when another has them.
func (h *Host) listen(ctx context.Context, l *conntrack.Listener) {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var next time.Time
	for listed := false; ; {
		if begun := time.Now(); !listed && begun.After(next) {
			listed = h.list(ctx)
			next = begun.Add(listRatio * time.Since(begun))
		}
		events, err := l.Receive()
		for _, e := range events {
			if h.remembers(e.Entry) {
				h.passed.take(e, time.Now())
			}
		}
		// Too many came, or one that cannot be read: others follow.
		if err != nil && !errors.Is(err, conntrack.ErrLost) && !errors.Is(err, errSyntax) {
			return
		}
		if err != nil {
			h.passed.lose(time.Now())
			listed = false
		}
	}
}

// list remembers what is tracked, and reports whether that was all.
func (h *Host) list(ctx context.Context) bool {
	for _, request := range conntrack.DumpRequests() {
		err := h.conntrack.each(ctx, request, func(b []byte) error {
			if e, err := conntrack.ParseEntry(b); err == nil && h.remembers(e) {
				h.passed.list(e, time.Now())
			}
			return ctx.Err()
		})
		if err != nil {
			return false
		}
	}
	return true
}

// listenAgain listens after a listener has failed, as soon as that can be; nil where the context ends before.
func listenAgain(ctx context.Context) *conntrack.Listener {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		if l, err := conntrack.Listen(0, conntrack.New, conntrack.Destroyed); err == nil {
			return l
		}
	}
}

// remembers reports whether a connection is one to remember: translated, or the host's own. Who asks about one that is only routed asks its own ends.
func (h *Host) remembers(e conntrack.Entry) bool {
	if e.Translated() {
		return true
	}
	addrs, _, err := h.addresses()
	return err != nil || slices.Contains(addrs, e.Original.Src.Addr()) || slices.Contains(addrs, e.Original.Dst.Addr())
}

// A Tracked says how many translated connections are remembered, of how many, how often one was forgotten for that, and how
// often the kernel's events were lost.
type Tracked struct {
	N, Limit        int
	Forgotten, Lost uint64
}

// Tracked is zero where nothing is remembered.
func (h *Host) Tracked() (t Tracked) {
	if h.passed != nil {
		t.N, t.Limit, t.Forgotten, t.Lost = h.passed.level()
	}
	return t
}

// forwarded reports whether what comes as packets of a flow goes on, translated, to another machine.
func (e end) forwarded(f host.Flow) bool {
	return !e.found && !e.inside && e.first != nil && e.tracked && e.blind == nil && e.Tuple != packetOf(f) && seesOthers()
}

// packetOf is what the other end of a flow sends.
func packetOf(f host.Flow) conntrack.Tuple { return conntrack.Tuple{Src: f.Remote, Dst: f.Local} }

// seesOthers reports whether the daemon may see the namespaces of others' processes. Where it may not, what seems to be another
// machine could be a container of this host.
func seesOthers() bool {
	_, err := os.Readlink("/proc/1/ns/net")
	return err == nil
}

// seenPassing are the connections that had the ends of a flow, the latest first: the one that is tracked, of which packets of the flow come to
// an end, and those remembered.
func (h *Host) seenPassing(f host.Flow, e end) *host.ForwardedError {
	now := passing{Entry: *e.first, opened: e.first.Begun}
	out := &host.ForwardedError{Live: e.first.Replied}
	if !out.Live {
		out.Doubt = "nothing has come back on it: anybody can have sent that in another's name"
	}
	var earlier []host.Forwarded
	for _, x := range h.passed.of(packetOf(f), time.Now()) {
		same := x.Original == now.Original && x.Reply == now.Reply && x.Zone == now.Zone
		switch {
		case same && x.ended.IsZero():
			now.opened = either(now.opened, x.opened)
		case !x.Translated():
			out.Own = cmp.Or(out.Own, ownOf(f, x))
		default: // it has ended, though its event may be still to come
			earlier = append(earlier, forwardedOf(f, x, 0))
		}
	}
	live := forwardedOf(f, now, e.ns.inode)
	// Behind another namespace of this host its own translation counts as well.
	live.Original = host.Ends{Local: e.Dst, Remote: e.Src}
	out.Seen = append([]host.Forwarded{live}, earlier...)
	return out
}

// ownOf is a connection of the host's own, or of a container's, of which no more is known than what connection tracking had.
func ownOf(f host.Flow, x passing) *host.Socket {
	return &host.Socket{Protocol: host.TCP, Local: f.Local, Remote: f.Remote, State: "CLOSED", Direction: forwardedOf(f, x, 0).Direction,
		DirectionSource: host.FromConntrack, Opened: x.opened, Closed: x.removed}
}

// forwardedOf is a connection that is or was passed on, as whoever asked about a flow is told of it.
func forwardedOf(f host.Flow, x passing, netns uint64) host.Forwarded {
	packet := packetOf(f)
	out := host.Forwarded{Translated: host.Ends{Local: f.Local, Remote: f.Remote}, Direction: host.Inbound, State: x.State,
		Opened: x.opened, Removed: x.removed, NetNS: netns}
	switch {
	case x.PickedUp:
		out.Direction = host.UnknownDirection
	case packet == x.Reply:
		out.Direction = host.Outbound
	}
	on, _ := x.Translate(packet)
	out.Original = host.Ends{Local: on.Dst, Remote: on.Src}
	return out
}

// passedBefore returns who had the ends of a flow that no other machine has now, of which packets come to an end; ErrNotFound where that was nobody, or, as far as
// the routes tell, the host itself or a container of it alone.
func (s *spaceSet) passedBefore(ctx context.Context, f host.Flow, e end) error {
	now := time.Now()
	out := &host.ForwardedError{Doubt: s.h.passed.doubt(now)}
	if e.first != nil { // it is one of the host's own that has closed, or of a container's
		out.Own = ownOf(f, passing{Entry: *e.first, opened: e.first.Begun})
	}
	for _, x := range s.h.passed.of(packetOf(f), now) {
		s.h.passed.gone(x.Entry, now) // though its event may be still to come
		fw := forwardedOf(f, x, 0)
		on, err := s.follow(ctx, s.home, conntrack.Tuple{Src: fw.Original.Remote, Dst: fw.Original.Local})
		if err != nil {
			return err
		}
		if on.found || on.inside || !x.Translated() {
			out.Own = cmp.Or(out.Own, ownOf(f, x))
			continue
		}
		fw.NetNS = on.ns.inode
		if !x.Replied {
			out.Doubt = "its end was not told, nor whether anything came back on it"
		}
		out.Seen = append(out.Seen, fw)
	}
	if len(out.Seen) == 0 {
		return host.ErrNotFound
	}
	return out
}

// ownBefore returns the host's own connection that had the ends of a flow which it passes on, where that is remembered, and ended within the time for
// which those of others are kept; else nil.
func (h *Host) ownBefore(f host.Flow) *host.Socket {
	if h.passed == nil {
		return nil
	}
	s, err := h.recall(f)
	if err != nil || !s.Closed.IsZero() && time.Since(s.Closed) >= h.passed.keep {
		return nil
	}
	return &s
}

// passedBefore returns who else had the ends of a connection of the host's own that has ended; nil where that was nobody.
func (h *Host) passedBefore(ctx context.Context, e host.Ends) error {
	if h.passed == nil || !seesOthers() {
		return nil
	}
	set := h.newSpaces()
	defer set.close()
	return set.passedBefore(ctx, host.Flow{Protocol: host.TCP, Local: unzoned(e.Local), Remote: unzoned(e.Remote)}, end{})
}
