package trace

import (
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// Signs that a connection feeds the asked one. None of them is certain: chance, or whoever uses the process as well, can make each.
const (
	// SignPassed is that something was seen to pass from one to the other, either way.
	SignPassed = "passed"
	// SignOctets is that all their life as many octets came by each as the other sent, and by no other of the process's connections.
	SignOctets = "octets"
	// SignLast is that the last data that came by one and were sent by the other did so at the same time, both ways, and by no other.
	SignLast = "last"
	// SignOpened is that it was accepted right before the asked one was opened, and nothing else in between.
	SignOpened = "opened"
)

// signs are those of each candidate that can be told without having watched, of the one that [Watched.sameOctets] and [Watched.openedBefore] returned.
func (w Watched) signs(octets, opened int) [][]string {
	signs := make([][]string, len(w.Candidates))
	for name, of := range map[string]int{SignOctets: octets, SignLast: w.sameTime(), SignOpened: opened} {
		if of >= 0 {
			signs[of] = append(signs[of], name)
			slices.Sort(signs[of])
		}
	}
	return signs
}

// sameOctets returns the one candidate whose octets are the asked connection's, or -1. Where another connection's are
// as well, be it one that the process opened, they tell nothing.
func (w Watched) sameOctets() int {
	one := -1
	for i, c := range w.Candidates {
		if !alike(c.Bytes, w.Asked.Bytes) {
			continue
		}
		if one >= 0 {
			return -1
		}
		one = i
	}
	if one >= 0 && slices.ContainsFunc(w.Others, func(o host.Descriptor) bool {
		return alike(o.Bytes, w.Asked.Bytes) || alike(o.Bytes, w.Candidates[one].Bytes)
	}) {
		return -1
	}
	return one
}

const (
	// maxApart is how far apart data may be said to have come and been sent.
	maxApart = 200 * time.Millisecond
	// Of all others they must be thrice as far apart, and that.
	timesApart, muchApart = 3, 100 * time.Millisecond
)

// sameTime returns the one candidate by which data last came when the asked connection last sent some, and the other way, or -1.
func (w Watched) sameTime() int {
	const never = time.Duration(1<<63 - 1)
	apart := func(a, b host.Descriptor) time.Duration {
		if a.Last == (host.Last{}) || b.Last == (host.Last{}) {
			return never
		}
		return a.Last.Received.Sub(b.Last.Sent).Abs() + a.Last.Sent.Sub(b.Last.Received).Abs()
	}
	one, least := -1, never
	for i, c := range w.Candidates {
		if d := apart(c, w.Asked); d < least {
			one, least = i, d
		}
	}
	if one < 0 || least > maxApart {
		return -1
	}
	far := timesApart*least + muchApart
	for i, c := range w.Candidates {
		if i != one && apart(c, w.Asked) < far {
			return -1
		}
	}
	if slices.ContainsFunc(w.Others, func(o host.Descriptor) bool { return apart(o, w.Candidates[one]) < far || apart(o, w.Asked) < far }) {
		return -1
	}
	return one
}

// maxOpening is how long a process may take to open a connection for one that it has accepted.
const maxOpening = time.Second

// openedBefore returns the candidate that came right before the asked connection, and after another that the process opened, or
// -1. After another that it accepted either may be meant.
func (w Watched) openedBefore() int {
	type opening struct {
		at        time.Time
		outbound  bool
		candidate int // or -1
	}
	var all []opening
	add := func(at time.Time, d host.Direction, candidate int) {
		if !at.IsZero() && at.Before(w.Asked.Opened) {
			all = append(all, opening{at, d == host.Outbound, candidate})
		}
	}
	for i, c := range w.Candidates {
		add(c.Opened, c.Direction, i)
	}
	for _, o := range w.Others {
		add(o.Opened, o.Direction, -1)
	}
	for _, s := range w.Held {
		if !s.Closed.IsZero() { // else it is among the others
			add(s.Opened, s.Direction, -1)
		}
	}
	slices.SortFunc(all, func(a, b opening) int { return b.at.Compare(a.at) })
	if len(all) < 2 || !all[1].outbound || w.Asked.Opened.Sub(all[0].at) > maxOpening {
		return -1
	}
	return all[0].candidate
}
