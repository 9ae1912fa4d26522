package trace

import (
	"slices"
	"sort"

	"github.com/stopd/stopd/host"
)

// A Grade says how well it is told that one of a process's connections feeds another one.
type Grade string

// Grades.
const (
	Certain   Grade = "certain"   // the asked connection passes on what comes by this one, and nothing tells of another
	Supported Grade = "supported" // there are signs of it, and they are not enough
	Unknown   Grade = "unknown"
)

// A Feed is what is told of one candidate.
type Feed struct {
	Grade
	// There is how often something passed from the candidate to the asked connection, and Back how often from that to
	// the candidate.
	There, Back int
	Signs       []string // ascending
}

// A Watched is a process that was watched for a while.
type Watched struct {
	Transfers []host.Transfer
	// Asked is the connection that was asked about, and Candidates those one of which may feed it, as they were after
	// that.
	Asked      host.Descriptor
	Candidates []host.Descriptor
	// Others are the process's other TCP connections, and Held some that it is remembered to have had, open or closed.
	Others []host.Descriptor
	Held   []host.Socket
	// Hears is true where others can tell the process something in ways that are no transfers, and Shares where others have memory
	// that it has.
	Hears, Shares bool
}

// Of what the asked connection sent, so often and one in so many times it must be told where it came from.
const enough, oneIn = 3, 4

// Feeds grades the candidates. At most one is [Certain].
//
// A thread passes something on where it takes from one socket alone, and then sends by one other alone without having waited in
// between. Where it takes from several, or sends by several, it tells nothing: what it sends then is as often another's.
func (w Watched) Feeds() []Feed {
	p := passages{asked: w.Asked.Inode, threads: map[uint32]*phase{}, passed: map[[2]uint64]int{}, same: map[[2]uint64]int{}, differed: map[[2]uint64]int{}}
	for _, t := range w.Transfers {
		p.add(t)
	}
	for _, ph := range p.threads {
		ph.part = true // it may go on
		p.end(ph)
	}
	feeds, signs, opened := make([]Feed, len(w.Candidates)), w.signs(), w.openedBefore()
	for i, c := range w.Candidates {
		f := &feeds[i]
		f.Signs = signs[i]
		f.There, f.Back = p.passed[[2]uint64{c.Inode, w.Asked.Inode}], p.passed[[2]uint64{w.Asked.Inode, c.Inode}]
		if f.There+f.Back > 0 {
			f.Signs = slices.Insert(f.Signs, sort.SearchStrings(f.Signs, SignPassed), SignPassed)
		}
		switch {
		case f.There >= enough && oneIn*f.There >= f.There+p.other && p.alone(c.Inode) && !w.Hears && (!w.Shares || p.whole(c.Inode)) && alike(c.Bytes, w.Asked.Bytes) &&
			!w.older(c) && (opened < 0 || opened == i):
			f.Grade = Certain
		case len(f.Signs) > 0:
			f.Grade = Supported
		default:
			f.Grade = Unknown
		}
	}
	return feeds
}

// older reports whether the asked connection was there before a candidate: it was for somebody else then, or for nobody.
func (w Watched) older(c host.Descriptor) bool {
	was := w.Asked.Opened
	if was.IsZero() {
		was = w.Asked.Since
	}
	return !was.IsZero() && was.Before(c.Opened)
}

// passages are what passed from one socket to another.
type passages struct {
	asked   uint64
	threads map[uint32]*phase // as each is at the moment
	// passed counts phases in which something passed from the first to the second.
	passed map[[2]uint64]int
	// same counts those in which as many octets were sent as had been taken, and differed those in which it were more or less.
	same, differed map[[2]uint64]int
	// other counts phases in which something was sent by the asked connection, and nothing tells where it came from.
	other int
}

// A phase of a thread is what it takes until it sends, and what it sends until it takes again.
type phase struct {
	from, to uint64 // the first socket that was taken from, and the first other that was sent by
	several  bool   // it took from another as well, or sent by another, or what it took is not known
	waits    uint32 // of the thread, when it took last
	waited   bool   // between that and the first sending
	sent     bool
	toAsked  bool // something was sent by the asked connection
	// took and gave are how many octets were taken, and sent by the other. What took 0 octets took some, it is not known how many.
	took, gave uint64
	part       bool // it was not watched from the beginning to the end, or it is not known how many octets it took
}

func (p *passages) add(t host.Transfer) {
	ph := p.threads[t.Thread]
	if ph == nil {
		ph = &phase{several: t.Sent, part: t.Sent}
		p.threads[t.Thread] = ph
	}
	if !t.Sent {
		if ph.sent {
			p.end(ph)
			*ph = phase{}
		}
		ph.several = ph.several || ph.from != 0 && ph.from != t.Socket
		ph.from, ph.waits = t.Socket, t.Waits
		ph.took, ph.part = ph.took+uint64(t.Octets), ph.part || t.Octets == 0
		return
	}
	ph.toAsked = ph.toAsked || t.Socket == p.asked
	if !ph.sent {
		ph.sent, ph.waited = true, ph.waits != t.Waits
	}
	if t.Socket != ph.from {
		ph.several = ph.several || ph.to != 0 && ph.to != t.Socket
		ph.to = t.Socket
		ph.gave += uint64(t.Octets)
	}
}

// end counts what a phase tells.
func (p *passages) end(ph *phase) {
	switch {
	case !ph.several && !ph.waited && ph.to != 0:
		ends := [2]uint64{ph.from, ph.to}
		p.passed[ends]++
		if !ph.part && ph.took == ph.gave {
			p.same[ends]++
		} else if !ph.part {
			p.differed[ends]++
		}
	case ph.toAsked && !(ph.part && ph.from == 0):
		p.other++
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

// alike reports whether, all their life, as much was sent by one connection as came by the other, both ways. Where a
// connection is used for one client after the other it was not. A SYN and a FIN may count.
func alike(a, b host.Bytes) bool {
	near := func(x, y uint64) bool { return max(x, y)-min(x, y) <= 2 }
	return a != (host.Bytes{}) && near(a.Received, b.Sent) && near(a.Sent, b.Received)
}
