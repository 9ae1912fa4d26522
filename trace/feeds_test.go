package trace_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// script makes transfers of lines: "1 <a" is that thread 1 takes an octet from a, "1 >o9" that it sends 9 by o, and "1 ." that it waits. The
// number of a socket's inode is its letter.
func script(text string) (ts []host.Transfer) {
	waits := map[uint32]uint32{}
	for step := range strings.SplitSeq(text, ",") {
		var thread uint32
		var what string
		if n, _ := fmt.Sscan(step, &thread, &what); n != 2 {
			panic("no step: " + step)
		}
		if what == "." {
			waits[thread]++
			continue
		}
		octets := 1
		if what[2:] != "" {
			fmt.Sscan(what[2:], &octets)
		}
		ts = append(ts, host.Transfer{Socket: uint64(what[1]), Sent: what[0] == '>', Octets: uint32(octets), Thread: thread, Waits: waits[thread]})
	}
	return ts
}

func times(n int, text string) string { return strings.Repeat(text+", ", n-1) + text }

// connections are descriptors of which the first alone has the octets of the asked one, the other way round.
func connections(inodes string) (ds []host.Descriptor) {
	for i, inode := range inodes {
		ds = append(ds, host.Descriptor{Inode: uint64(inode), Bytes: host.Bytes{Sent: 900 + 100*uint64(i), Received: 700 + 100*uint64(i)}})
	}
	return ds
}

var askedConnection = host.Descriptor{Inode: 'o', Bytes: host.Bytes{Sent: 700, Received: 900}}

// elsewhere has all that came by b sent by p.
func elsewhere(w *trace.Watched) {
	b := w.Candidates[1].Bytes
	w.Others = []host.Descriptor{{Inode: 'p', Bytes: host.Bytes{Sent: b.Received, Received: b.Sent}}}
}

func TestFeeds(t *testing.T) {
	relayed := times(3, "1 <a, 1 >o, 1 ., 1 <o, 1 >a, 1 .")
	tests := map[string]struct {
		script string
		change func(*trace.Watched)
		want   [3]trace.Feed // of a, b and c
	}{
		"nothing":                  {"1 <a", nil, [3]trace.Feed{}},
		"relayed":                  {relayed, nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"beside another pair":      {relayed + ", " + times(5, "1 <b, 1 >p, 1 <p, 1 >b"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"too seldom":               {times(2, "1 <a, 1 >o, 1 <o, 1 >a"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 2, Back: 2}}},
		"one way":                  {times(3, "1 <a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"the other way alone":      {times(9, "1 <o, 1 >a"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 0, Back: 9}}},
		"a thread each way":        {times(3, "1 <a, 1 >o, 2 <o, 2 >a"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"several pieces":           {times(3, "1 <a, 1 <a, 1 >o, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"reader and writer":        {times(9, "1 <a, 1 <b, 1 ., 2 ., 2 >o, 2 >p"), nil, [3]trace.Feed{}},
		"two are taken at once":    {times(9, "1 <a, 1 <b, 1 >o, 1 >p"), nil, [3]trace.Feed{}},
		"waits in between":         {times(9, "1 <a, 1 ., 1 >o"), nil, [3]trace.Feed{}},
		"waits, then takes":        {times(3, "1 <a, 1 ., 1 <a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"two clients, one backend": {times(9, "1 <a, 1 >o") + ", 1 <b, 1 >o", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}, {Grade: trace.Supported, There: 1, Back: 0}}},
		"answers go to another":    {times(9, "1 <a, 1 >o") + ", 1 <o, 1 >b", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}, {Grade: trace.Supported, There: 0, Back: 1}}},
		"a client, two backends":   {times(9, "1 <a, 1 >o") + ", 1 <a, 1 >p", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"hears from another process": {times(9, "1 <a, 1 >o") + ", 1 <u, 1 >o", nil,
			[3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"mostly told by nothing":               {times(3, "1 <a, 1 >o") + ", " + times(10, "1 <a, 1 <b, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 0}}},
		"a quarter is told":                    {times(3, "1 <a, 1 >o") + ", " + times(9, "1 <a, 1 <b, 1 >o, 1 >p"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"another took part, and more is sent":  {times(9, "1 <a, 1 >o") + ", 1 <a, 1 <b, 1 >o2", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"others alone took part":               {times(9, "1 <a, 1 >o") + ", 1 <b, 1 <c, 1 >o", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another took part, and it waited":     {times(9, "1 <a, 1 >o") + ", 1 <b, 1 ., 1 >o", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another took part, and none counts":   {times(9, "1 <a, 1 >o") + ", 1 <a0, 1 <b, 1 >o", nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"nobody else took part, and it waited": {times(9, "1 <a, 1 >o") + ", 1 <a, 1 ., 1 >o2", nil, [3]trace.Feed{{Grade: trace.Certain, There: 9, Back: 0}}},
		"an answer was taken as well":          {times(9, "1 <a, 1 >o") + ", 1 <a, 1 <o, 1 >o2, 1 >a", nil, [3]trace.Feed{{Grade: trace.Certain, There: 9, Back: 0}}},
		"another has said the same":            {times(9, "1 <a, 1 >o, 1 <b, 1 >p"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another has said the same before":     {times(9, "1 <b, 1 <b, 1 >p, 1 <a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another has said the same, twice":     {times(9, "1 <b4, 1 <b, 1 >p5, 1 <a5, 1 >o5"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"a process has said the same":          {times(9, "1 <a, 1 >o, 1 <u, 1 >p"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another has said something":           {times(9, "1 <a, 1 >o, 1 <b0, 1 >p"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another has said other things":        {times(3, "1 <a, 1 >o, 1 <b2, 1 >p2"), elsewhere, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"another says less":                    {times(3, "1 <a, 1 >o, 1 <b, 1 >p, 1 <a, 1 >o"), elsewhere, [3]trace.Feed{{Grade: trace.Certain, There: 6, Back: 0}}},
		"another says more":                    {times(9, "1 <a, 1 >o, 1 <b, 1 >p, 1 <b, 1 >p"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"late by one, and answers":             {times(9, "1 <b, 1 >p, 1 >b, 1 <a, 1 >o, 1 >a"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"late by one, no answers":              {times(9, "1 <b, 1 >p, 1 <a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"his goes to another as well":          {times(9, "1 <a100, 1 >p100, 1 >o70") + ", " + times(3, "1 <a100, 1 >o100"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 0}}},
		"mostly does not count":                {times(3, "1 <a, 1 >o") + ", " + times(9, "1 <a0, 1 <b, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 0}}},
		"sends more than a piece":              {"2 <b2, 2 >p2, " + times(9, "1 <a, 1 >o, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"another said much before":             {times(9, "2 <b, 2 >p") + ", " + times(5, "1 <a, 1 >o"), elsewhere, [3]trace.Feed{{Grade: trace.Certain, There: 5, Back: 0}}},
		"another said much at last":            {times(5, "1 <a, 1 >o") + ", " + times(9, "2 <b, 2 >p"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 5, Back: 0}}},
		"another has the same octets":          {relayed, func(w *trace.Watched) { w.Candidates[1].Bytes = w.Candidates[0].Bytes }, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}, {Grade: trace.Unknown, There: 0, Back: 0}}},
		"another has an octet more": {relayed, func(w *trace.Watched) {
			w.Candidates[1].Bytes = host.Bytes{Sent: 900, Received: 700 + 1}
		}, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"another has three octets more": {relayed, func(w *trace.Watched) {
			w.Candidates[1].Bytes = host.Bytes{Sent: 900, Received: 700 + 3}
		}, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"one that is no candidate has the same octets": {relayed, func(w *trace.Watched) {
			w.Others = []host.Descriptor{{Inode: 'q', Bytes: w.Candidates[0].Bytes}}
		}, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"begun before": {"1 >o, " + times(3, "1 <a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 0}}},
		"late by one": {times(9, "1 <a, 1 >p, 1 <b, 1 >o"), func(w *trace.Watched) { // a belongs to o, and b to p
			w.Candidates[1].Bytes.Received++
			w.Candidates[1].Bytes.Sent += 99
		}, [3]trace.Feed{1: {Grade: trace.Supported, There: 9, Back: 0}}},
		"another's before": {relayed, func(w *trace.Watched) { w.Asked.Bytes.Sent += 100 }, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"does not count":   {relayed, func(w *trace.Watched) { w.Candidates[0].Bytes, w.Asked.Bytes = host.Bytes{}, host.Bytes{} }, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"SYN and FIN": {relayed, func(w *trace.Watched) {
			w.Asked.Bytes.Sent++
			w.Candidates[0].Bytes.Received++
			w.Asked.Bytes.Received++
		}, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"asked about before it came": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened = time.Unix(10, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"asked about and met before it came": {relayed, func(w *trace.Watched) {
			w.Asked.Since, w.Candidates[0].Opened = time.Unix(10, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"asked about after it came": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened = time.Unix(12, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"another came right before": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened, w.Candidates[1].Opened = time.Unix(12, 0), time.Unix(2, 0), time.Unix(12, 0).Add(-time.Millisecond)
			w.Others = []host.Descriptor{{Inode: 'q', Direction: host.Outbound, Opened: time.Unix(11, 0)}}
		}, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}, {Grade: trace.Supported, There: 0, Back: 0}}},
		"hears otherwise": {relayed, func(w *trace.Watched) { w.Hears = true }, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
		"shares memory":   {times(4, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{Grade: trace.Certain, There: 4, Back: 0}}},
		"shares memory, watched for too short a time": {times(3, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 0}}},
		"shares memory, begun before":                 {"1 >o, " + times(4, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{Grade: trace.Certain, There: 4, Back: 0}}},
		"shares memory, sends other octets": {times(9, "1 <a, 1 >o") + ", 1 <a, 1 >o, 1 >o, " + times(9, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true },
			[3]trace.Feed{{Grade: trace.Supported, There: 19, Back: 0}}},
		"shares memory, takes what it does not count": {times(9, "1 <a, 1 >o"), func(w *trace.Watched) {
			w.Shares = true
			for i := range w.Transfers {
				w.Transfers[i].Octets = 0
			}
		}, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"shares memory, and waits once":       {times(9, "1 <a, 1 >o") + ", 1 <a, 1 ., 1 >o, 1 <a", func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"answers itself":                      {relayed + ", " + times(9, "1 <b, 1 >b"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 3, Back: 3}}},
		"one to several":                      {times(5, "1 <a, 1 >p, 1 >o"), nil, [3]trace.Feed{}},
		"answers and passes":                  {times(5, "1 <a, 1 >a, 1 >o"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 5, Back: 0}}},
		"kept of another, and sent in parts":  {times(9, "1 <b9, 1 >p5, 1 <a3, 1 >o3"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"kept of another for long":            {"1 <b9, 1 >p9, " + times(20, "1 <c2, 1 >q2") + ", " + times(9, "1 <a3, 1 >o3"), nil, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"kept of another, and not enough":     {"1 <b2, 1 >p, " + times(9, "1 <a3, 1 >o3"), nil, [3]trace.Feed{{Grade: trace.Certain, There: 9, Back: 0}}},
		"all of another's has gone elsewhere": {times(9, "1 <b9, 1 >p5, 1 <a3, 1 >o3"), elsewhere, [3]trace.Feed{{Grade: trace.Certain, There: 9, Back: 0}}},
		"of a process it cannot be told":      {times(9, "1 <u9, 1 >p9, 1 <a3, 1 >o3"), elsewhere, [3]trace.Feed{{Grade: trace.Supported, There: 9, Back: 0}}},
		"late, to others as well":             {relayed + ", 1 <b, 1 >p, 1 >o", nil, [3]trace.Feed{{Grade: trace.Supported, There: 3, Back: 3}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := trace.Watched{Transfers: script(tt.script), Asked: askedConnection, Candidates: connections("abc")}
			if tt.change != nil {
				tt.change(&w)
			}
			for i := range tt.want {
				if tt.want[i].Grade == "" {
					tt.want[i].Grade = trace.Unknown
				}
			}
			got := w.Feeds(map[uint64]bool{})
			for i, f := range got {
				if slices.Equal(f.Signs, []string{trace.SignOctets}) {
					got[i].Grade = trace.Unknown // that alone is another test's
				}
			}
			if d := cmp.Diff(tt.want[:], got, cmpopts.IgnoreFields(trace.Feed{}, "Signs", "Unsettled")); d != "" {
				t.Errorf("Feeds (-want +got):\n%s", d)
			}
		})
	}
}

// A relay is a process with pairs of connections, and what its threads do.
type relay struct {
	rand      *rand.Rand
	pairs     int
	same      bool // all pieces have the same size
	transfers []host.Transfer
	waits     [4]uint32
	queue     []pending
}

// A pending piece was taken, and is to be sent.
type pending struct {
	to     uint64
	octets uint32
}

// feeds are told where one pair's connection coming in has the octets of the asked one, and none of the others: what tells who is meant are the passages
// alone. The other pairs have the octets that passed.
func (r *relay) feeds(asked, fits int) []trace.Feed {
	passed := map[uint64]host.Bytes{}
	for _, t := range r.transfers {
		b := passed[t.Socket]
		if t.Sent {
			b.Sent += uint64(t.Octets)
		} else {
			b.Received += uint64(t.Octets)
		}
		passed[t.Socket] = b
	}
	connection := func(pair int, inode uint64) host.Descriptor {
		before, b := uint64(100_000*(pair+1)), passed[inode]
		return host.Descriptor{Inode: inode, Bytes: host.Bytes{Sent: before + b.Sent, Received: before + b.Received}}
	}
	w := trace.Watched{Transfers: r.transfers, Asked: host.Descriptor{Inode: r.out(asked), Bytes: host.Bytes{Sent: 7000, Received: 9000}}}
	for i := range r.pairs {
		c := connection(i, r.in(i))
		if i == fits {
			c.Bytes = host.Bytes{Sent: 9000, Received: 7000}
		}
		w.Candidates = append(w.Candidates, c)
		if i != asked {
			w.Others = append(w.Others, connection(i, r.out(i)))
		}
	}
	return w.Feeds(map[uint64]bool{})
}

func (r *relay) in(pair int) uint64  { return uint64(1000 + pair) }
func (r *relay) out(pair int) uint64 { return uint64(2000 + pair) }

// ends are where something is taken and where it has to be sent.
func (r *relay) ends() (from, to uint64) {
	p := r.rand.IntN(r.pairs)
	if r.rand.IntN(2) == 0 {
		return r.in(p), r.out(p)
	}
	return r.out(p), r.in(p)
}

// take has a thread take a piece, and returns how many octets it has.
func (r *relay) take(thread int, socket uint64) uint32 {
	n := uint32(1)
	if !r.same {
		n += uint32(r.rand.IntN(400))
	}
	r.transfers = append(r.transfers, host.Transfer{Socket: socket, Thread: uint32(thread), Waits: r.waits[thread], Octets: n})
	return n
}

func (r *relay) send(thread int, p pending) {
	r.transfers = append(r.transfers, host.Transfer{Socket: p.to, Thread: uint32(thread), Waits: r.waits[thread], Sent: true, Octets: p.octets})
}

func (r *relay) wait(thread int) { r.waits[thread]++ }

// late has a thread take a piece and send the one that was taken so many pieces before.
func (r *relay) late(from, to uint64, by int) {
	r.queue = append(r.queue, pending{to, r.take(0, from)})
	if len(r.queue) > by {
		r.send(0, r.queue[0])
		r.queue = r.queue[1:]
	}
}

// designs are ways to relay. Each step is what happens at once.
var designs = map[string]func(r *relay){
	"each at once": func(r *relay) {
		thread := r.rand.IntN(len(r.waits))
		from, to := r.ends()
		r.send(thread, pending{to, r.take(thread, from)})
	},
	"take all, send all": func(r *relay) {
		r.wait(0)
		var all []pending
		for range 1 + r.rand.IntN(4) {
			from, to := r.ends()
			all = append(all, pending{to, r.take(0, from)})
		}
		for _, p := range all {
			r.send(0, p)
		}
	},
	"sometimes no room to send": func(r *relay) {
		from, to := r.ends()
		p := pending{to, r.take(0, from)}
		if r.rand.IntN(4) > 0 {
			r.send(0, p)
			return
		}
		for range r.rand.IntN(3) {
			from, to := r.ends()
			r.send(0, pending{to, r.take(0, from)})
		}
		r.send(0, p)
	},
	"handed to another thread": func(r *relay) {
		from, to := r.ends()
		n := r.take(r.rand.IntN(len(r.waits)), from)
		r.send(r.rand.IntN(len(r.waits)), pending{to, n})
	},
	"handed to one that waits": func(r *relay) {
		from, to := r.ends()
		n := r.take(0, from)
		r.wait(1)
		r.send(1, pending{to, n})
	},
	"late by one": func(r *relay) {
		from, to := r.ends()
		r.late(from, to, 1)
	},
}

// Whoever is certain is right, however a relay is built, in whatever order its threads come to be seen, and whosever octets fit.
func TestFeedsNeverWrong(t *testing.T) {
	certain := map[string]int{}
	for name, step := range designs {
		for seed := range uint64(150) {
			r := &relay{rand: rand.New(rand.NewPCG(seed, 1)), same: seed%4 == 0}
			r.pairs = 2 + r.rand.IntN(50)
			for range r.rand.IntN(40 * r.pairs) {
				step(r)
			}
			asked := r.rand.IntN(r.pairs)
			for range 2 {
				feeds := r.feeds(asked, asked)
				if feeds[asked].Grade == trace.Certain {
					certain[name]++
				}
				most := (asked + 1) % r.pairs // of the others who seems to feed it
				for i, f := range feeds {
					if i != asked && f.There > feeds[most].There {
						most = i
					}
				}
				if f := r.feeds(asked, most)[most]; f.Grade == trace.Certain {
					t.Errorf("%s, seed %d: certain of the candidate of another connection: %+v", name, seed, f)
				}
				r.interleave()
			}
		}
	}
	t.Log("certain, of 300 each: ", certain)
	if certain["each at once"] < 150 || certain["handed to one that waits"]+certain["late by one"] != 0 {
		t.Errorf("certain: %v", certain)
	}
}

// Where a process is late, and clients take turns so that what is sent by the one's connection always comes after what is taken from another, nobody
// else is certain, though his octets are the asked connection's.
func TestFeedsOfTurns(t *testing.T) {
	for seed := range uint64(200) {
		for by := 1; by <= 3; by++ {
			for pairs := 2; pairs <= 3; pairs++ {
				r := &relay{rand: rand.New(rand.NewPCG(seed, 3)), same: seed%2 == 0, pairs: pairs}
				for i := range 60 {
					p := i % pairs
					r.late(r.in(p), r.out(p), by)
				}
				meets := by % pairs // whom the first one's connection is seen with
				for fits := range pairs {
					f := r.feeds(0, fits)[fits]
					if fits == meets && f.There < 15 || fits != meets && f.There > 0 {
						t.Fatalf("seed %d, late by %d, %d pairs: %d is seen with it %d times", seed, by, pairs, fits, f.There)
					}
					if f.Grade == trace.Certain && fits != 0 {
						t.Errorf("seed %d, late by %d, %d pairs: certain of %d", seed, by, pairs, fits)
					}
				}
			}
		}
	}
}

// Where a process keeps what it takes, and sends as many octets of what it has of the one whenever it takes some of the other, in whatever parts these came,
// the other is not certain, though his octets are the asked connection's.
func TestFeedsKept(t *testing.T) {
	seen := 0
	for seed := range uint64(500) {
		r := &relay{rand: rand.New(rand.NewPCG(seed, 4)), pairs: 2}
		var kept [2]uint32 // of each
		for range 200 {
			p := r.rand.IntN(2)
			n := r.take(p, r.in(p))
			for n < 200 && r.rand.IntN(3) == 0 {
				n += r.take(p, r.in(p))
			}
			kept[p] += n
			if kept[1-p] < n {
				r.wait(p) // there is not enough of it yet
				r.send(p, pending{r.in(p), 1})
				continue
			}
			kept[1-p] -= n
			r.send(p, pending{r.out(1 - p), n})
		}
		f := r.feeds(0, 1)[1]
		if f.There >= 9 {
			seen++
		}
		if f.Grade == trace.Certain {
			t.Errorf("seed %d: certain of the other", seed)
		}
	}
	if seen < 250 {
		t.Errorf("%d times was the other seen with it", seen)
	}
}

// interleave puts what the threads did in another order, but not what each of them did.
func (r *relay) interleave() {
	of := map[uint32][]host.Transfer{}
	for _, t := range r.transfers {
		of[t.Thread] = append(of[t.Thread], t)
	}
	r.transfers = r.transfers[:0]
	for len(of) > 0 {
		n := uint32(r.rand.IntN(len(r.waits)))
		if ts := of[n]; len(ts) > 0 {
			r.transfers, of[n] = append(r.transfers, ts[0]), ts[1:]
		} else {
			delete(of, n)
		}
	}
}

// One more process that hears, or sends, takes certainty away and never gives it.
func TestFeedsContradicted(t *testing.T) {
	for seed := range uint64(500) {
		r := &relay{rand: rand.New(rand.NewPCG(seed, 2)), pairs: 5}
		for range 200 {
			designs["each at once"](r)
		}
		asked := r.rand.IntN(r.pairs)
		other := (asked + 1) % r.pairs
		r.send(0, pending{r.out(asked), r.take(0, r.in(other))})
		for fits := range r.pairs {
			if f := r.feeds(asked, fits)[fits]; f.Grade == trace.Certain {
				t.Errorf("seed %d: certain of %d", seed, fits)
			}
		}
	}
}

func FuzzFeeds(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x80, 0x41})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := trace.Watched{Asked: host.Descriptor{Inode: 7, Bytes: host.Bytes{Sent: 1}}}
		for i := range uint64(7) {
			w.Candidates = append(w.Candidates, host.Descriptor{Inode: i, Bytes: host.Bytes{Received: 1}})
		}
		for _, c := range b {
			w.Transfers = append(w.Transfers, host.Transfer{Socket: uint64(c & 7), Sent: c&8 != 0, Thread: uint32(c >> 4 & 3), Waits: uint32(c >> 6)})
		}
		certain := 0
		for _, f := range w.Feeds(map[uint64]bool{}) {
			if f.Grade == trace.Certain {
				certain++
			}
		}
		if certain > 1 {
			t.Errorf("certain of %d candidates", certain)
		}
	})
}

// BenchmarkFeeds is what the most that is written of a process takes to grade, of so many connections.
func BenchmarkFeeds(b *testing.B) {
	for _, pairs := range []int{50, 20_000} {
		for _, same := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/%t", pairs, same), func(b *testing.B) {
				r := &relay{rand: rand.New(rand.NewPCG(1, 1)), pairs: pairs, same: same}
				for range 43_000 {
					designs["each at once"](r)
				}
				for b.Loop() {
					r.feeds(0, 0)
				}
			})
		}
	}
}
