package trace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd/host"
)

// A randomHost makes up hosts that need not make sense: parents in circles, channels that nobody holds the other
// end of, pids that were used again.
type randomHost struct {
	*rand.Rand
	ps []host.Process
	n  int // names used
}

func (r *randomHost) name(kind string) string { r.n++; return fmt.Sprint(kind, r.n) }

func (r *randomHost) mode() host.Mode {
	return []host.Mode{host.Read, host.Write, host.ReadWrite, ""}[r.IntN(4)]
}

// give gives a descriptor to some process.
func (r *randomHost) give(d host.Descriptor) {
	p := &r.ps[r.IntN(len(r.ps))]
	d.FDs = []int{len(p.Descriptors)}
	p.Descriptors = append(p.Descriptors, d)
}

func (r *randomHost) processes(most int) {
	for i := range 2 + r.IntN(most-1) {
		p := process(100+i, 100+r.IntN(most+2))
		p.StartTicks = uint64(r.IntN(4))
		p.RUID, p.EUID = new(uint32(r.IntN(3))), new(uint32(r.IntN(3)))
		r.ps = append(r.ps, p)
	}
}

// plainChannels makes pipes, FIFOs and socketpairs.
func (r *randomHost) plainChannels(n int) {
	for range n {
		switch r.IntN(3) {
		case 0, 1:
			d := pipe(r.name("pipe"), "")
			for range 1 + r.IntN(4) {
				r.give(with(r.mode(), d))
			}
		case 2:
			a, b := unix(r.name("pair"), "")
			for range r.IntN(3) {
				r.give(with(r.mode(), a))
				r.give(with(r.mode(), b))
			}
		}
	}
}

// otherChannels makes services, terminals, listeners, the first processes, files and memory.
func (r *randomHost) otherChannels(n int) {
	for range n {
		switch r.IntN(7) {
		case 0:
			path := r.name("/run/")
			for range r.IntN(25) {
				c, s := unix(r.name("client"), path)
				r.give(with(r.mode(), c))
				r.give(with(r.mode(), s))
			}
		case 1:
			m, s := pty(r.IntN(3))
			r.give(m)
			for range r.IntN(3) {
				r.give(s)
			}
		case 2:
			c, s := local([]host.Kind{host.TCP, host.UDP}[r.IntN(2)], uint16(30000+r.IntN(3000)), uint16(9000+r.IntN(3)))
			r.give(c)
			r.give(s)
		case 3:
			r.give(listen(uint16(20 + r.IntN(4))))
		case 4:
			r.ps = append(r.ps, process(r.IntN(2), 0))
		case 5, 6:
			d := kept([]host.Kind{host.File, host.SHM, host.Memfd, host.MQueue, host.Msg, host.EventFD, host.Sem, host.IOUring, host.FUSE, host.PTrace, host.TTY}[r.IntN(11)], "")
			d.Object = host.Object(r.name("kept"))
			d.Peer = d.Object
			for range 1 + r.IntN(4) {
				r.give(with(r.mode(), d))
			}
		}
	}
}

// connections makes connections with other hosts, and some that only look like it.
func (r *randomHost) connections(n int) {
	directions := []host.Direction{host.Inbound, host.Outbound, host.UnknownDirection, ""}
	for range n {
		addr := []string{"203.0.113.5", "203.0.113.6", "192.0.2.2", "198.51.100.2", "127.0.0.1"}[r.IntN(5)]
		d := tcp(netip.AddrPortFrom(own, uint16(20+r.IntN(4))), fmt.Sprintf("%s:%d", addr, 40000+r.IntN(9000)), r.name("socket"), directions[r.IntN(4)])
		for range 1 + r.IntN(2) {
			r.give(d)
		}
	}
	for range r.IntN(3) {
		r.give(asked())
	}
}

func (r *randomHost) recording() *host.Replay {
	seen := map[int]bool{}
	ps := slices.DeleteFunc(r.ps, func(p host.Process) bool { was := seen[p.PID]; seen[p.PID] = true; return was })
	return recording(ps...)
}

func newRandomHost(seed uint64) *randomHost {
	return &randomHost{Rand: rand.New(rand.NewPCG(seed, 0))}
}

// A plainHost is one of which a few lines can tell what its previous hosts are.
func plainHost(seed uint64) *host.Replay {
	r := newRandomHost(seed)
	r.processes(10)
	r.plainChannels(r.IntN(8))
	r.connections(r.IntN(10))
	return r.recording()
}

func anyHost(seed uint64) *host.Replay {
	r := newRandomHost(seed)
	r.processes(30)
	r.plainChannels(r.IntN(12))
	r.otherChannels(r.IntN(12))
	r.connections(r.IntN(20))
	return r.recording()
}

func sorted(set map[string]bool) []string {
	out := []string{}
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func candidates(r Result) []string {
	set := map[string]bool{}
	for _, p := range r.Previous {
		set[p.Local.String()+" "+p.Remote.String()] = true
	}
	return sorted(set)
}

// checkPlain compares the candidates of a plain host with those that the model finds.
func checkPlain(t *testing.T, seed uint64) {
	h := plainHost(seed)
	if d := cmp.Diff(newModel(h.Processes).candidates(), candidates(run(t, h))); d != "" {
		t.Fatalf("seed %d: candidates (-model +got):\n%s", seed, d)
	}
}

// checkAny checks what holds of every result.
func checkAny(t *testing.T, seed uint64) {
	h := anyHost(seed)
	r := run(t, h)
	if d := cmp.Diff(r, run(t, h), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmp.AllowUnexported(Channel{}, End{})); d != "" {
		t.Fatalf("seed %d: two runs differ:\n%s", seed, d)
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	look := &tracer{ctx: t.Context(), snap: snap}
	byPID := map[int]Process{}
	for i, p := range r.Processes {
		if p.Index != i+1 {
			t.Errorf("seed %d: process %d has index %d", seed, i, p.Index)
		}
		if _, twice := byPID[p.PID]; twice {
			t.Errorf("seed %d: process %d twice", seed, p.PID)
		}
		byPID[p.PID] = p
		if p.Role != Primary && p.Role != Resolved {
			t.Errorf("seed %d: role %q", seed, p.Role)
		}
		if owner := p.Via.By == ByOwner; owner != (p.Via.From == nil) || !owner && (*p.Via.From < 1 || *p.Via.From >= p.Index) {
			t.Errorf("seed %d: process %d was found %+v", seed, p.Index, p.Via)
		}
		if channel := p.Via.By == ByChannel; channel != (p.Via.Channel != nil) {
			t.Errorf("seed %d: process %d was found %+v", seed, p.Index, p.Via)
		} else if channel {
			c := r.Channels[*p.Via.Channel-1]
			if !c.Followed || !slices.ContainsFunc(c.Ends, func(e End) bool { return e.PID == p.PID }) {
				t.Errorf("seed %d: process %d was found through channel %+v", seed, p.PID, c)
			}
			if c.Kind == host.TTY {
				t.Errorf("seed %d: process %d was found through the terminal %+v", seed, p.PID, c)
			}
			if (c.Kind.Keeps() || c.Kind == host.PTrace) && !look.sameUser(p.Process, r.Processes[*p.Via.From-1].Process) {
				t.Errorf("seed %d: process %d of another user was found through channel %+v", seed, p.PID, c)
			}
		}
	}
	for i, c := range r.Channels {
		if c.ID != i+1 || c.Followed != (c.Why == "") || len(c.Ends) == 0 {
			t.Errorf("seed %d: channel %+v", seed, c)
		}
	}
	for _, pid := range r.Owners {
		if _, ok := byPID[pid]; !ok {
			t.Errorf("seed %d: owner %d is not in the closure", seed, pid)
		}
	}
	possible := newModel(h.Processes).possible()
	for _, p := range r.Previous {
		if _, ok := byPID[p.PID]; !ok || len(p.Reasons) == 0 {
			t.Errorf("seed %d: candidate %+v", seed, p)
		}
		if a := p.Remote.Addr(); a.IsLoopback() || a == own || a == alsoOwn {
			t.Errorf("seed %d: this host is a candidate: %+v", seed, p)
		}
	}
	for _, c := range candidates(r) {
		if !slices.Contains(possible, c) {
			t.Errorf("seed %d: no way leads from the asked connection to the candidate %s", seed, c)
		}
	}
}

func TestRandomHosts(t *testing.T) {
	for seed := range uint64(300) {
		checkPlain(t, seed)
		checkAny(t, seed)
	}
}

func FuzzRun(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		checkPlain(t, seed)
		checkAny(t, seed)
	})
}
