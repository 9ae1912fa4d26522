package watch

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
	"github.com/stopd/stopd/internal/settings"
)

// A question is one that a rule has somebody asked.
type question struct {
	flow  flows.Flow
	input string
	host  netip.AddrPort // who is asked
	// local is the asked host's end of the connection, remote the other.
	local, remote netip.AddrPort
	typ           stop.Type
	sid           uint64
	until         time.Time // then it is too late to ask
	tries         int
	mark          *mark
}

// Kinds of what connection tracking tells. Who opens a connection has a socket from the first packet on, the other end once it is
// established: each is asked then.
const (
	kindNew         = "new"
	kindEstablished = "established"
)

// lateAt is when it is too late to ask about a connection that was reported now.
func (c *Config) lateAt(f flows.Flow, now time.Time) time.Time {
	if seen := f.Time.Add(f.Lasted); !f.Time.IsZero() && seen.Before(now) { // clocks differ
		now = seen
	}
	return now.Add(c.Limits.Age.Duration)
}

// choose returns what the first rule that fits has asked, and whether one fits.
func (c *Config) choose(input string, f flows.Flow) ([]question, bool) {
	for _, r := range c.Rules {
		fits := r.fits(input, f)
		if !fits && !f.Directed && r.Ask == AskNone {
			turned := f // whom nobody is to ask about may be either end
			turned.Source, turned.Destination = f.Destination, f.Source
			fits = r.fits(input, turned)
		}
		if !fits {
			continue
		}
		var qs []question
		typ, _ := stop.ParseType(r.Type) // checked when it was read
		var sid uint64
		if typ.Recursive() {
			sid = newSID()
		}
		far := [2]netip.AddrPort{f.Destination, f.Source}
		if f.FarSource.IsValid() {
			far = [2]netip.AddrPort{f.FarDestination, f.FarSource}
		}
		add := func(local, remote netip.AddrPort) {
			if settings.Within(c.Hosts, local.Addr()) {
				qs = append(qs, question{flow: f, input: input, host: netip.AddrPortFrom(local.Addr(), c.Port), local: local, remote: remote, typ: typ, sid: sid})
			}
		}
		if (r.Ask == AskSource || r.Ask == AskBoth) && f.Kind != kindEstablished {
			add(f.Source, f.Destination)
		}
		if (r.Ask == AskDestination || r.Ask == AskBoth) && f.Kind != kindNew {
			add(far[0], far[1])
		}
		return qs, true
	}
	return nil, false
}

// newSID returns a session number: both ends of a connection are asked under the same one.
func newSID() uint64 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return uint64(binary.NativeEndian.Uint32(b[:]))
}

func (r *Rule) fits(input string, f flows.Flow) bool {
	any := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	return any(r.Input, input) && any(r.Kind, f.Kind) &&
		(len(r.Alert) == 0 || slices.ContainsFunc(r.Alert, func(pattern string) bool { return named(pattern, f.Alert.Name) })) &&
		(len(r.Signature) == 0 || slices.Contains(r.Signature, f.Alert.ID)) &&
		(r.Severity == 0 || f.Alert.Severity > 0 && f.Alert.Severity <= r.Severity) &&
		settings.Any(r.Source, f.Source.Addr()) && settings.Any(r.Destination, f.Destination.Addr()) &&
		(len(r.Ports) == 0 || slices.Contains(r.Ports, f.Destination.Port()))
}

// named matches the name of an alert, in which a slash is a letter as any other.
func named(pattern, name string) bool {
	plain := func(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
	ok, _ := path.Match(plain(pattern), plain(name)) // the pattern was checked when it was read
	return ok && name != ""
}

// request is the line for a question. Where the other end is an address of this host, it is asked from there; else on behalf of it.
func (q question) request(own map[netip.Addr]bool) (r stop.Request, from netip.Addr) {
	r = stop.Request{Local: uint64(q.local.Port()), Remote: uint64(q.remote.Port()), Type: q.typ, SID: q.sid}
	if own[q.remote.Addr()] {
		return r, q.remote.Addr()
	}
	r.For = q.remote.Addr()
	return r, netip.Addr{}
}

// maxTable bounds the tables of hosts, networks and repeats.
const maxTable = 1 << 16

// A budget bounds how often something happens, for each of many.
type budget[K comparable] struct {
	perSecond, burst float64
	left             map[K]account
	swept            time.Time
}

type account struct {
	left float64
	at   time.Time
}

func newBudget[K comparable](perSecond, seconds float64) *budget[K] {
	return &budget[K]{perSecond: perSecond, burst: max(1, perSecond*seconds), left: map[K]account{}}
}

func (b *budget[K]) now(k K, at time.Time) (account, bool) {
	a, ok := b.left[k]
	if !ok {
		return account{b.burst, at}, false
	}
	return account{min(b.burst, a.left+max(0, at.Sub(a.at).Seconds())*b.perSecond), at}, true
}

// has reports whether once more is within the budget. Where the table is full and all in it have spent, it is not: they might be
// asked without bound otherwise.
func (b *budget[K]) has(k K, at time.Time) bool {
	a, known := b.now(k, at)
	if !known && len(b.left) >= maxTable {
		if at.Sub(b.swept) < time.Second {
			return false
		}
		b.swept = at
		for other := range b.left {
			if o, _ := b.now(other, at); o.left >= b.burst {
				delete(b.left, other)
			}
		}
		if len(b.left) >= maxTable {
			return false
		}
	}
	return a.left >= 1
}

func (b *budget[K]) spend(k K, at time.Time) {
	a, _ := b.now(k, at)
	a.left--
	b.left[k] = a
}

// networkOf is what shares a budget.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // of an address without zone
	return p
}

// repeats remember what was asked lately: everything for the time of one generation, and for up to two.
type repeats struct {
	within   time.Duration
	now, old map[asked]bool
	began    time.Time
}

type asked struct {
	host          netip.Addr
	local, remote netip.AddrPort
	typ           stop.Type
}

// has reports whether a question was asked lately.
func (r *repeats) has(q question, at time.Time) bool {
	r.turn(at)
	k := keyOf(q)
	return r.now[k] || r.old[k]
}

// add remembers one. Of more than [maxTable] the oldest are forgotten.
func (r *repeats) add(q question, at time.Time) {
	r.turn(at)
	r.now[keyOf(q)] = true
}

// forget has one that was not asked after all asked when it comes again.
func (r *repeats) forget(q question) {
	k := keyOf(q)
	delete(r.now, k)
	delete(r.old, k)
}

// turn begins a generation where it is time for one.
func (r *repeats) turn(at time.Time) {
	if at.Sub(r.began) >= 2*r.within {
		r.now = map[asked]bool{}
	}
	if at.Sub(r.began) >= r.within || len(r.now) >= maxTable {
		r.old, r.now, r.began = r.now, map[asked]bool{}, at
	}
}

func keyOf(q question) asked { return asked{q.host.Addr(), q.local, q.remote, q.typ} }
