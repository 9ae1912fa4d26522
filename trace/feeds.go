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
	// Unsettled is true where it is not [Certain] for octets alone, its own or another's. Some may be under way, so that it can be later.
	Unsettled bool
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
//
// Settled are the connections of which all that came is known to have gone elsewhere, at this look or one before. Feeds adds those that it finds.
func (w Watched) Feeds(settled map[uint64]bool) []Feed {
	p := passagesTo(w.Asked.Inode, w.Transfers)
	w.settle(settled)
	octets, opened := w.sameOctets(), w.openedBefore()
	feeds, signs := make([]Feed, len(w.Candidates)), w.signs(octets, opened)
	for i, c := range w.Candidates {
		f := &feeds[i]
		f.Signs = signs[i]
		f.There, f.Back = p.passed[[2]uint64{c.Inode, w.Asked.Inode}], p.passed[[2]uint64{w.Asked.Inode, c.Inode}]
		if f.There+f.Back > 0 {
			f.Signs = slices.Insert(f.Signs, sort.SearchStrings(f.Signs, SignPassed), SignPassed)
		}
		passes := f.There >= enough && oneIn*f.There >= f.There+p.other && p.alone(c.Inode) && p.apart(c.Inode) && p.explained(c.Inode) &&
			!w.Hears && (!w.Shares || p.whole(c.Inode)) && !w.older(c) && (opened < 0 || opened == i)
		keeps := p.keeps(c.Inode, settled)
		f.Unsettled = passes && (keeps || !alike(c.Bytes, w.Asked.Bytes))
		switch {
		case passes && !keeps && octets == i:
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

// settle adds the connections that have exchanged all, all their life, with another than the asked one: the process keeps nothing of what came by them.
func (w Watched) settle(settled map[uint64]bool) {
	all := slices.Concat(w.Candidates, w.Others)
	for i, a := range all {
		for _, b := range all[i+1:] {
			if alike(a.Bytes, b.Bytes) {
				settled[a.Inode], settled[b.Inode] = true, true
			}
		}
	}
}

// alike reports whether, all their life, as much was sent by one connection as came by the other, both ways. Where a
// connection is used for one client after the other it was not. A SYN and a FIN may count.
func alike(a, b host.Bytes) bool {
	near := func(x, y uint64) bool { return max(x, y)-min(x, y) <= 2 }
	return a != (host.Bytes{}) && near(a.Received, b.Sent) && near(a.Sent, b.Received)
}
