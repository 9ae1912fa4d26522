package linux

import (
	"context"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
)

// maxHeld is how many connections of one process a trace is told of at once, of those that this host opened and of the others.
const maxHeld = 64

// remembered returns the past as it was when it was asked for first. The error is [host.ErrNotFound] where nothing is remembered.
func (s *snapshot) remembered() (*past, error) {
	if s.past == nil {
		p, err := s.h.catchUp()
		if err != nil {
			return nil, err
		}
		s.past = p
	}
	return s.past, nil
}

// recorded returns what the history has of a process; the error is [host.ErrNotFound] where it has nothing.
func (s *snapshot) recorded(id host.ID) (*past, recorder.Process, error) {
	p, err := s.remembered()
	if err != nil {
		return nil, recorder.Process{}, err
	}
	found, ok := p.history.Process(uint32(id.PID), id.Start*tick, id.Start*tick+tick-1)
	if !ok || id.PID == 0 || id.Start == 0 {
		return nil, recorder.Process{}, host.ErrNotFound
	}
	return p, found, nil
}

// opened is [Host.opened] for very many connections, which one process may have: what has happened since the look began is read only where one is not
// known yet.
func (s *snapshot) opened(cookie uint64) (opened, since time.Time) {
	p, err := s.remembered()
	if err != nil {
		return
	}
	c, ok := p.history.ByCookie(cookie, 1<<64-1)
	if !ok {
		return s.h.opened(cookie)
	}
	return p.opened(c)
}

// Held returns what a process is known to have held between two times.
func (s *snapshot) Held(_ context.Context, id host.ID, from, to time.Time, outbound bool) (held []host.Socket, more bool, err error) {
	p, found, err := s.recorded(id)
	if err != nil {
		return nil, false, err
	}
	first, last := uint64(0), uint64(1<<64-1)
	if !from.IsZero() {
		first = p.at(from)
	}
	if !to.IsZero() {
		last = p.at(to)
	}
	cs, more := p.history.Held(found.ID, first, last, outbound, maxHeld)
	if !outbound && p.untold() != nil { // what ended by a packet nobody held; what is open a living process has, by its descriptors
		more = more || p.history.Unheld(first, last, found.Exited != 0)
	}
	return p.sockets(cs), more, nil
}

// at is a time as the history has it.
func (p *past) at(t time.Time) uint64 { return uint64(max(t.Sub(p.h.at(0)), 0)) }

func (p *past) sockets(cs []recorder.Connection) (all []host.Socket) {
	for _, c := range cs {
		all = append(all, p.socket(c))
	}
	return all
}

// other returns the other end of a connection, where that is this host's. Flows are used again: the two are open at one time, and where an end
// was not noticed that is not known.
func (p *past) other(c recorder.Connection) (recorder.Connection, bool) {
	by := c.Closed
	if by == 0 {
		by = sinceBoot()
	}
	o, ok := p.history.Latest(c.Remote, c.Local, c.NetNS, by)
	return o, ok && o.Cookie != c.Cookie && !o.Unsure && !c.Unsure && (o.Closed == 0 || o.Closed >= c.Opened)
}

// noticed returns until when a connection whose end was not noticed was open for sure: until events were lost, or nobody looked.
func (p *past) noticed(c recorder.Connection) uint64 {
	until := c.Closed
	lost := false
	for _, l := range p.history.Losses(c.Opened, c.Closed) {
		if l.Kind == recorder.Ring || l.Kind == recorder.Off {
			until, lost = min(until, max(l.From, c.Opened)), true
		}
	}
	if !lost {
		return c.Opened
	}
	return until
}

// untold says why it is not told who has a connection that was accepted before it is ended; nil where it is, and where nothing is told.
func (p *past) untold() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.events == nil {
		return nil
	}
	return p.events.Untold
}
