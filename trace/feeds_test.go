package trace_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// script makes transfers of lines: "1 <a" is that thread 1 takes from a, "1 >o" that it sends by o, and "1 ." that it waits. The
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
		ts = append(ts, host.Transfer{Socket: uint64(what[1]), Sent: what[0] == '>', Octets: 1, Thread: thread, Waits: waits[thread]})
	}
	return ts
}

func times(n int, text string) string { return strings.Repeat(text+", ", n-1) + text }

// connections are descriptors whose octets are those of the asked one, the other way round.
func connections(inodes string) (ds []host.Descriptor) {
	for _, i := range inodes {
		ds = append(ds, host.Descriptor{Inode: uint64(i), Bytes: host.Bytes{Sent: 900, Received: 700}})
	}
	return ds
}

var askedConnection = host.Descriptor{Inode: 'o', Bytes: host.Bytes{Sent: 700, Received: 900}}

func TestFeeds(t *testing.T) {
	relayed := times(3, "1 <a, 1 >o, 1 ., 1 <o, 1 >a, 1 .")
	tests := map[string]struct {
		script string
		change func(*trace.Watched)
		want   [3]trace.Feed // of a, b and c
	}{
		"nothing":                  {"1 <a", nil, [3]trace.Feed{}},
		"relayed":                  {relayed, nil, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"beside another pair":      {relayed + ", " + times(5, "1 <b, 1 >p, 1 <p, 1 >b"), nil, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"too seldom":               {times(2, "1 <a, 1 >o, 1 <o, 1 >a"), nil, [3]trace.Feed{{trace.Supported, 2, 2, nil}}},
		"one way":                  {times(3, "1 <a, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 3, 0, nil}}},
		"the other way alone":      {times(9, "1 <o, 1 >a"), nil, [3]trace.Feed{{trace.Supported, 0, 9, nil}}},
		"a thread each way":        {times(3, "1 <a, 1 >o, 2 <o, 2 >a"), nil, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"several pieces":           {times(3, "1 <a, 1 <a, 1 >o, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 3, 0, nil}}},
		"reader and writer":        {times(9, "1 <a, 1 <b, 1 ., 2 ., 2 >o, 2 >p"), nil, [3]trace.Feed{}},
		"two are taken at once":    {times(9, "1 <a, 1 <b, 1 >o, 1 >p"), nil, [3]trace.Feed{}},
		"waits in between":         {times(9, "1 <a, 1 ., 1 >o"), nil, [3]trace.Feed{}},
		"waits, then takes":        {times(3, "1 <a, 1 ., 1 <a, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 3, 0, nil}}},
		"two clients, one backend": {times(9, "1 <a, 1 >o") + ", 1 <b, 1 >o", nil, [3]trace.Feed{{trace.Supported, 9, 0, nil}, {trace.Supported, 1, 0, nil}}},
		"answers go to another":    {times(9, "1 <a, 1 >o") + ", 1 <o, 1 >b", nil, [3]trace.Feed{{trace.Supported, 9, 0, nil}, {trace.Supported, 0, 1, nil}}},
		"a client, two backends":   {times(9, "1 <a, 1 >o") + ", 1 <a, 1 >p", nil, [3]trace.Feed{{trace.Supported, 9, 0, nil}}},
		"hears from another process": {times(9, "1 <a, 1 >o") + ", 1 <u, 1 >o", nil,
			[3]trace.Feed{{trace.Supported, 9, 0, nil}}},
		"mostly told by nothing": {times(3, "1 <a, 1 >o") + ", " + times(10, "1 <a, 1 <b, 1 >o"), nil, [3]trace.Feed{{trace.Supported, 3, 0, nil}}},
		"a quarter is told":      {times(3, "1 <a, 1 >o") + ", " + times(9, "1 <a, 1 <b, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 3, 0, nil}}},
		"begun before":           {"1 >o, " + times(3, "1 <a, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 3, 0, nil}}},
		"late by one": {times(9, "1 <a, 1 >p, 1 <b, 1 >o"), func(w *trace.Watched) { // a belongs to o, and b to p
			w.Candidates[1].Bytes.Received++
			w.Candidates[1].Bytes.Sent += 99
		}, [3]trace.Feed{1: {trace.Supported, 9, 0, nil}}},
		"another's before": {relayed, func(w *trace.Watched) { w.Asked.Bytes.Sent += 100 }, [3]trace.Feed{{trace.Supported, 3, 3, nil}}},
		"does not count":   {relayed, func(w *trace.Watched) { w.Candidates[0].Bytes, w.Asked.Bytes = host.Bytes{}, host.Bytes{} }, [3]trace.Feed{{trace.Supported, 3, 3, nil}}},
		"SYN and FIN": {relayed, func(w *trace.Watched) {
			w.Asked.Bytes.Sent++
			w.Candidates[0].Bytes.Received++
			w.Asked.Bytes.Received++
		}, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"asked about before it came": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened = time.Unix(10, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{trace.Supported, 3, 3, nil}}},
		"asked about and met before it came": {relayed, func(w *trace.Watched) {
			w.Asked.Since, w.Candidates[0].Opened = time.Unix(10, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{trace.Supported, 3, 3, nil}}},
		"asked about after it came": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened = time.Unix(12, 0), time.Unix(11, 0)
		}, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"another came right before": {relayed, func(w *trace.Watched) {
			w.Asked.Opened, w.Candidates[0].Opened, w.Candidates[1].Opened = time.Unix(12, 0), time.Unix(2, 0), time.Unix(12, 0).Add(-time.Millisecond)
			w.Others = []host.Descriptor{{Inode: 'q', Direction: host.Outbound, Opened: time.Unix(11, 0)}}
		}, [3]trace.Feed{{trace.Supported, 3, 3, nil}, {trace.Supported, 0, 0, nil}}},
		"hears otherwise": {relayed, func(w *trace.Watched) { w.Hears = true }, [3]trace.Feed{{trace.Supported, 3, 3, nil}}},
		"shares memory":   {times(4, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{trace.Certain, 4, 0, nil}}},
		"shares memory, watched for too short a time": {times(3, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{trace.Supported, 3, 0, nil}}},
		"shares memory, begun before":                 {"1 >o, " + times(4, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{trace.Certain, 4, 0, nil}}},
		"shares memory, sends other octets": {times(9, "1 <a, 1 >o") + ", 1 <a, 1 >o, 1 >o, " + times(9, "1 <a, 1 >o"), func(w *trace.Watched) { w.Shares = true },
			[3]trace.Feed{{trace.Supported, 19, 0, nil}}},
		"shares memory, takes what it does not count": {times(9, "1 <a, 1 >o"), func(w *trace.Watched) {
			w.Shares = true
			for i := range w.Transfers {
				w.Transfers[i].Octets = 0
			}
		}, [3]trace.Feed{{trace.Supported, 9, 0, nil}}},
		"shares memory, and waits once": {times(9, "1 <a, 1 >o") + ", 1 <a, 1 ., 1 >o, 1 <a", func(w *trace.Watched) { w.Shares = true }, [3]trace.Feed{{trace.Supported, 9, 0, nil}}},
		"answers itself":                {relayed + ", " + times(9, "1 <b, 1 >b"), nil, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
		"one to several":                {times(5, "1 <a, 1 >p, 1 >o"), nil, [3]trace.Feed{}},
		"answers and passes":            {times(5, "1 <a, 1 >a, 1 >o"), nil, [3]trace.Feed{{trace.Certain, 5, 0, nil}}},
		"late, to others as well":       {relayed + ", 1 <b, 1 >p, 1 >o", nil, [3]trace.Feed{{trace.Certain, 3, 3, nil}}},
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
			if d := cmp.Diff(tt.want[:], w.Feeds(), cmpopts.IgnoreFields(trace.Feed{}, "Signs")); d != "" {
				t.Errorf("Feeds (-want +got):\n%s", d)
			}
		})
	}
}

// A relay is a process with pairs of connections, and what its threads do.
type relay struct {
	rand      *rand.Rand
	pairs     int
	transfers []host.Transfer
	waits     [4]uint32
}

// Each pair's connections have the octets of all the others: what the passages tell is told by them alone.
func (r *relay) feeds(asked int) []trace.Feed {
	w := trace.Watched{Transfers: r.transfers, Asked: askedConnection}
	w.Asked.Inode = r.out(asked)
	for i := range r.pairs {
		w.Candidates = append(w.Candidates, host.Descriptor{Inode: r.in(i), Bytes: host.Bytes{Sent: 900, Received: 700}})
	}
	return w.Feeds()
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

func (r *relay) take(thread int, socket uint64) {
	r.transfers = append(r.transfers, host.Transfer{Socket: socket, Thread: uint32(thread), Waits: r.waits[thread]})
}

func (r *relay) send(thread int, socket uint64) {
	r.transfers = append(r.transfers, host.Transfer{Socket: socket, Thread: uint32(thread), Waits: r.waits[thread], Sent: true})
}

func (r *relay) wait(thread int) { r.waits[thread]++ }

// designs are ways to relay. Each step is what happens at once.
var designs = map[string]func(r *relay){
	"each at once": func(r *relay) {
		thread := r.rand.IntN(len(r.waits))
		from, to := r.ends()
		r.take(thread, from)
		r.send(thread, to)
	},
	"take all, send all": func(r *relay) {
		r.wait(0)
		var to []uint64
		for range 1 + r.rand.IntN(4) {
			from, other := r.ends()
			r.take(0, from)
			to = append(to, other)
		}
		for _, s := range to {
			r.send(0, s)
		}
	},
	"sometimes no room to send": func(r *relay) {
		from, to := r.ends()
		r.take(0, from)
		if r.rand.IntN(4) > 0 {
			r.send(0, to)
			return
		}
		for range r.rand.IntN(3) {
			from, to := r.ends()
			r.take(0, from)
			r.send(0, to)
		}
		r.send(0, to)
	},
	"handed to another thread": func(r *relay) {
		from, to := r.ends()
		r.take(r.rand.IntN(len(r.waits)), from)
		r.send(r.rand.IntN(len(r.waits)), to)
	},
	"handed to one that waits": func(r *relay) {
		from, to := r.ends()
		r.take(0, from)
		r.wait(1)
		r.send(1, to)
	},
}

// Whoever is certain is right, however a relay is built, and in whatever order its threads come to be seen.
func TestFeedsNeverWrong(t *testing.T) {
	certain := map[string]int{}
	for name, step := range designs {
		for seed := range uint64(300) {
			r := &relay{rand: rand.New(rand.NewPCG(seed, 1))}
			r.pairs = 2 + r.rand.IntN(50)
			for range r.rand.IntN(40 * r.pairs) {
				step(r)
			}
			asked := r.rand.IntN(r.pairs)
			feeds := r.feeds(asked)
			for i, f := range feeds {
				if f.Grade != trace.Certain {
					continue
				}
				if certain[name]++; i != asked {
					t.Errorf("%s, seed %d: certain of the candidate of another connection: %+v", name, seed, f)
				}
			}
			r.interleave()
			if d := cmp.Diff(feeds, r.feeds(asked)); d != "" {
				t.Fatalf("%s, seed %d: another order of threads (-before +after):\n%s", name, seed, d)
			}
		}
	}
	t.Log("certain, of 300 each: ", certain)
	if certain["each at once"] < 200 || certain["handed to one that waits"] != 0 {
		t.Errorf("certain: %v", certain)
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
		r.take(0, r.in(other))
		r.send(0, r.out(asked))
		for i, f := range r.feeds(asked) {
			if f.Grade == trace.Certain {
				t.Errorf("seed %d: certain of %d", seed, i)
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
		for _, f := range w.Feeds() {
			if f.Grade == trace.Certain {
				certain++
			}
		}
		if certain > 1 {
			t.Errorf("certain of %d candidates", certain)
		}
	})
}
