package trace

import (
	"slices"

	"github.com/stopd/stopd/host"
)

// passages are what passed from one socket to another.
type passages struct {
	asked   uint64
	threads map[uint32]*phase // as each is at the moment
	// passed counts phases in which something passed from the first to the second.
	passed map[[2]uint64]int
	// same counts those in which as many octets were sent as had been taken, and differed those in which it were more or less.
	same, differed map[[2]uint64]int
	// other counts phases in which something was sent by the asked connection, and nothing tells where it came from. Mixed are those of them
	// in which something was taken.
	other int
	mixed []*phase
	// pieces counts what was sent by the asked connection right after as many octets had been taken, and late has the sockets from which that
	// may have been taken before.
	pieces int
	late   map[uint64]*later
	taken  map[uint64]*taken // by socket
}

// A phase of a thread is what it takes until it sends, and what it sends until it takes again.
type phase struct {
	from, to uint64 // the socket that was taken from last, and the first other that was sent by
	several  bool   // it took from another as well, or sent by another, or what it took is not known
	waits    uint32 // of the thread, when it took last
	waited   bool   // between that and the first sending
	sent     bool
	toAsked  bool // something was sent by the asked connection
	toOthers bool // something was sent by one that was not taken from, and is not the asked one
	// took is how much was taken from each socket. Gave and gaveAsked are how many octets were sent by the other, and by the asked connection.
	took            map[uint64]piece
	gave, gaveAsked uint64
	part            bool // it was not watched from the beginning to the end
	last            int  // the transfer that is the last sent by to
}

// A piece is so many octets; unknown where some of it are not counted.
type piece struct {
	octets  uint64
	unknown bool
}

func (p piece) and(octets uint32) piece {
	return piece{p.octets + uint64(octets), p.unknown || octets == 0}
}

// passagesTo tells what passed, and of what the asked connection sent where it came from.
func passagesTo(asked uint64, transfers []host.Transfer) *passages {
	p := &passages{asked: asked, threads: map[uint32]*phase{}, passed: map[[2]uint64]int{}, same: map[[2]uint64]int{}, differed: map[[2]uint64]int{}, late: map[uint64]*later{}, taken: map[uint64]*taken{}}
	in := make([]*phase, len(transfers)) // which phase each is of
	on := make([]bool, len(transfers))   // its thread took from that socket right before as well
	for i, t := range transfers {
		in[i], on[i] = p.add(i, t)
	}
	for _, ph := range p.threads {
		ph.part = true // it may go on
		p.end(ph)
	}
	// What a piece is shows when its phase has ended, and where it can have come from is what was taken before it was sent.
	for i, t := range transfers {
		if !t.Sent {
			p.mayBeLate(t, on[i])
		} else if ph := in[i]; ph.to == asked && ph.last == i && ph.alike() {
			p.sentPiece(ph.from, ph.gave)
		}
	}
	return p
}

// alike reports whether in a phase as many octets were sent by one as had been taken from another.
func (ph *phase) alike() bool {
	took := ph.took[ph.from]
	return !ph.several && !ph.waited && !took.unknown && took.octets == ph.gave
}

// add takes in a transfer. It returns its phase, and whether its thread took from its socket right before as well.
func (p *passages) add(i int, t host.Transfer) (_ *phase, on bool) {
	ph := p.threads[t.Thread]
	if ph == nil {
		ph = &phase{several: t.Sent, part: t.Sent, took: map[uint64]piece{}}
		p.threads[t.Thread] = ph
	}
	if !t.Sent {
		if ph.sent {
			p.end(ph)
			ph = &phase{took: map[uint64]piece{}}
			p.threads[t.Thread] = ph
		}
		on = ph.from == t.Socket
		ph.several = ph.several || ph.from != 0 && ph.from != t.Socket
		ph.from, ph.waits = t.Socket, t.Waits
		ph.took[t.Socket] = ph.took[t.Socket].and(t.Octets)
		return ph, on
	}
	if t.Socket == p.asked {
		ph.toAsked = true
		ph.gaveAsked += uint64(t.Octets)
	} else if _, took := ph.took[t.Socket]; !took {
		ph.toOthers = true
	}
	if !ph.sent {
		ph.sent, ph.waited = true, ph.waits != t.Waits
	}
	if t.Socket != ph.from {
		ph.several = ph.several || ph.to != 0 && ph.to != t.Socket
		ph.to = t.Socket
		ph.gave += uint64(t.Octets)
		ph.last = i
	}
	return ph, false
}

// end counts what a phase tells.
func (p *passages) end(ph *phase) {
	switch took := ph.took[ph.from]; {
	case !ph.several && !ph.waited && ph.to != 0:
		ends := [2]uint64{ph.from, ph.to}
		p.passed[ends]++
		if !ph.part && ph.alike() {
			p.same[ends]++
		} else if !ph.part && !took.unknown {
			p.differed[ends]++
		}
	case ph.toAsked && !(ph.part && ph.from == 0):
		p.other++
		if len(ph.took) > 0 {
			p.mixed = append(p.mixed, ph)
		}
	}
}

// alone reports whether the asked connection exchanges with a candidate alone, and that with it alone. Where a
// process sends later what it took, its threads take from one and send what came by another: some of these are met with more than one
// then.
func (p *passages) alone(candidate uint64) bool {
	for ends := range p.passed {
		if slices.Contains(ends[:], p.asked) != slices.Contains(ends[:], candidate) {
			return false
		}
	}
	return true
}

// whole reports whether all that the asked connection sent had been taken from a candidate right before, piece by piece. Then
// nothing that another process left in memory was sent.
func (p *passages) whole(candidate uint64) bool {
	there := [2]uint64{candidate, p.asked}
	return p.other == 0 && p.differed[there] == 0 && p.same[there] >= enough
}

// explained reports whether the phases that tell nothing speak for nobody but a candidate: where something was taken from others in one, as many
// octets were sent by the asked connection as had been taken from the candidate, or fewer so far; where he alone was taken from, nothing was sent by
// any other.
func (p *passages) explained(candidate uint64) bool {
	for _, ph := range p.mixed {
		others := len(ph.took)
		his, took := ph.took[candidate]
		if took {
			others--
		}
		if _, took := ph.took[p.asked]; took {
			others--
		}
		share := took && !his.unknown && (his.octets == ph.gaveAsked || ph.part && his.octets > ph.gaveAsked)
		if others > 0 && !share || others == 0 && took && ph.toOthers {
			return false
		}
	}
	return true
}

// lag is by how many pieces a process may be late, so that it is told from one that is not.
const lag = 2

// A later is a socket of which the asked connection may have sent what was taken, each piece late by a few others.
type later struct {
	runs    [lag][]piece // the last that were taken, the oldest first: each call, and all that came without another in between
	matched int          // pieces that the asked connection sent and that can have been among these, or passed
}

// A taken is all that was taken from a socket, and how many of the pieces that the asked connection sent can have been of these.
type taken struct {
	piece
	pieces int
}

// mayBeLate notes what was taken from another socket, on where the thread took from that right before as well. Of one from which nothing was taken until so much had been sent that it cannot have
// been its, none is.
func (p *passages) mayBeLate(t host.Transfer, on bool) {
	if p.taken[t.Socket] == nil {
		p.taken[t.Socket] = &taken{}
	}
	p.taken[t.Socket].piece = p.taken[t.Socket].and(t.Octets)
	l := p.late[t.Socket]
	switch {
	case t.Socket == p.asked || l == nil && p.pieces >= enough:
		return
	case l == nil:
		l = &later{}
		p.late[t.Socket] = l
	}
	last := &l.runs[lag-1]
	one := piece{}.and(t.Octets)
	if !on || len(*last) == 0 {
		copy(l.runs[:], l.runs[1:])
		*last = []piece{one, one}
		return
	}
	(*last)[0] = (*last)[0].and(t.Octets)
	*last = append(*last, one)
}

// sentPiece counts a piece that the asked connection sent right after it had been taken from another.
func (p *passages) sentPiece(from, octets uint64) {
	p.pieces++
	for socket, t := range p.taken {
		if socket == from || t.unknown || t.octets >= octets {
			t.pieces++
		}
	}
	for socket, l := range p.late {
		if socket == from || l.match(octets) {
			l.matched++
		}
		if p.pieces-l.matched >= enough {
			delete(p.late, socket)
		}
	}
}

// match takes a piece of so many octets from what was taken last, and reports whether there was one.
func (l *later) match(octets uint64) bool {
	for i, run := range l.runs {
		if slices.ContainsFunc(run, func(p piece) bool { return p.unknown || p.octets == octets }) {
			l.runs[i] = nil
			return true
		}
	}
	return false
}

// apart reports whether at least three pieces that passed from a candidate to the asked connection cannot have come, late, from any other socket
// from which something was taken.
func (p *passages) apart(candidate uint64) bool {
	for socket := range p.late {
		if socket != candidate {
			return false
		}
	}
	return true
}

// keeps reports whether all but two of the pieces that passed from a candidate to the asked connection may be what had been taken from another socket, kept, and
// sent in whatever parts. Of a settled one nothing was kept.
func (p *passages) keeps(candidate uint64, settled map[uint64]bool) bool {
	for socket, t := range p.taken {
		if socket != candidate && socket != p.asked && !settled[socket] && p.pieces-t.pieces < enough {
			return true
		}
	}
	return false
}
