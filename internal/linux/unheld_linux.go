package linux

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
)

// A socket that no process holds may be the kernel's own, as those of network file systems are, or on its way
// from one process to another. The kernel tells of neither directly: what it does tell are gaps.

// maxInFlight bounds how many UNIX sockets are asked what is on its way to them.
const maxInFlight = 16384

// unheld adds what may hold a socket that no process does.
func (s *snapshot) unheld(ctx context.Context, o object) {
	i, ok, err := s.home.inet(ctx, o.n)
	if err == nil && ok {
		s.mounted(i.remote)
	}
	s.gaps = append(s.gaps, s.untold...)
	s.inRings(ctx)
	s.inFlight(ctx)
}

// mounted adds the file systems that the kernel has from the other end of a socket.
func (s *snapshot) mounted(remote netip.AddrPort) {
	b, err := procDir{fd: s.root}.readAtMost("self/mountinfo", 8<<20)
	if err != nil {
		s.gaps = append(s.gaps, host.Gap{What: "mounts", Why: err.Error()})
		return
	}
	for _, m := range parseMounts(b) {
		if slices.Contains(m.from, remote.Addr().WithZone("").Unmap()) {
			s.gaps = append(s.gaps, host.Gap{What: "owners",
				Why: fmt.Sprintf("the kernel has a file system (%s) from %s at %s: the socket may be its own, for whoever uses that", m.kind, remote.Addr(), m.at)})
			return
		}
	}
}

// inRings adds the processes that have io_uring instances mapped and no descriptor of them: what is in their tables is not told.
func (s *snapshot) inRings(ctx context.Context) {
	var pids []int
	for o, ms := range s.memory(ctx) {
		if o.class != ringObject {
			continue
		}
		refs := s.refs(ctx, o)
		for _, m := range ms {
			if !slices.ContainsFunc(refs, func(r ref) bool { return int(r.pid) == m.PID }) {
				pids = append(pids, m.PID)
			}
		}
	}
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		s.gaps = append(s.gaps, host.Gap{PID: pid, What: "owners", Why: "it has an io_uring instance mapped and no descriptor of it: the socket may be among the files of that"})
	}
}

// inFlight adds the processes to whose UNIX sockets descriptors were sent that nobody has taken (Linux 5.6).
func (s *snapshot) inFlight(ctx context.Context) {
	table, err := s.home.unixSockets(ctx)
	if err != nil {
		return // it is a gap of who holds any
	}
	asked := 0
	for inode := range table.byInode {
		for _, r := range s.index(ctx).of(object{socketObject, 0, inode}) {
			if asked++; asked > maxInFlight || ctx.Err() != nil {
				s.gaps = append(s.gaps, host.Gap{What: "descriptors on their way between processes", Why: "bound: deadline, or " + strconv.Itoa(maxInFlight) + " sockets"})
				return
			}
			d, err := openProc(s.root, int(r.pid))
			if err != nil {
				continue
			}
			n := d.waiting(r)
			d.close()
			if n > 0 {
				s.gaps = append(s.gaps, host.Gap{PID: int(r.pid), What: "owners",
					Why: fmt.Sprintf("%d descriptors were sent to its descriptor %d and nobody has taken them: the socket may be among them", n, r.fd)})
			}
		}
	}
}

// maxParked bounds how many connections the gaps of one look name.
const maxParked = 16

// A holderless has the connections that no process has a descriptor of.
type holderless struct {
	connections []inetSocket
	named       int // in gaps
}

// parked adds that descriptors wait in a UNIX socket of a process, and of which connections of its user no process has a
// descriptor: they may be among them.
func (r *reading) parked(ctx context.Context, d *host.Descriptor, n uint64) {
	if n == 0 {
		return
	}
	r.gap(label(d), fmt.Sprintf("%d descriptors were sent to it and nobody has taken them: what they are is not told", n))
	if r.s.holderless == nil {
		r.s.holderless = r.withoutHolder(ctx)
	}
	for _, c := range r.s.holderless.connections {
		if r.p.EUID == nil || c.uid != *r.p.EUID {
			continue
		}
		if r.s.holderless.named++; r.s.holderless.named > maxParked {
			r.gap("connections without a descriptor", "bound: "+strconv.Itoa(maxParked))
			return
		}
		r.gap(label(d), fmt.Sprintf("no process has a descriptor of the connection of %s with %s, which is the same user's: it may be among them", c.local, c.remote))
	}
}

// withoutHolder finds the connections of which no process has a descriptor, once a look.
func (r *reading) withoutHolder(ctx context.Context) *holderless {
	s := r.s
	ix := s.index(ctx)
	ix.settle(ctx, s.root, object{class: socketObject})
	all, err := s.home.diag.dumpConnected(ctx)
	if !r.note("connections without a descriptor", err) || ix.pass != nil && ix.pass.cut {
		return &holderless{}
	}
	return &holderless{connections: slices.DeleteFunc(all, func(c inetSocket) bool {
		o := object{socketObject, 0, c.inode}
		return c.inode == 0 || ix.first[o] != 0 || len(s.rings(ctx)[o]) > 0
	})}
}

// waiting returns how many descriptors wait in a UNIX socket.
func (d procDir) waiting(r ref) uint64 {
	b, err := d.readAtMost(r.info(), maxFdinfo)
	if err != nil {
		return 0
	}
	v, _ := parseFdinfo(b, "scm_fds")
	n, _ := strconv.ParseUint(v, 10, 32)
	return n
}
