package trace

import (
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// A service is what one process does for whoever comes to it, through sockets that its listeners accepted, a socket
// that hears from many, or a terminal. Its clients are the processes at the other ends of these, and the hosts
// whose connections it accepted. Two things follow from it, see docs/decisions/0011-hubs.md: a service with many
// clients is a hub, and what one client says is not taken to reach another.

// clients is the service of whatever a process's listeners accepted, whichever of them: a database has one for each
// family, and one for each name.
const clients = "clients"

// serviceOf names the service of a process that one of its descriptors belongs to; empty where it is of none.
func serviceOf(d host.Descriptor) string {
	switch {
	case d.Kind == host.Unix && (d.Path != "" || d.Named), d.Kind.Inet() && d.Direction != host.Outbound && !d.Listening():
		return clients
	case d.Kind == host.PTY, d.Peer == "":
		return string(d.Object)
	}
	return ""
}

// end returns a process's descriptor of an object.
func (n *node) end(o host.Object) host.Descriptor {
	for _, ds := range [][]host.Descriptor{n.Descriptors, n.was} {
		for _, d := range ds {
			if d.Object == o {
				return d
			}
		}
	}
	return host.Descriptor{Peer: o} // closed meanwhile
}

// shared returns the objects of a process that belong to the same service as one of its descriptors, that one
// included.
func shared(p host.Process, d host.Descriptor) []host.Object {
	same := []host.Object{d.Object}
	s := serviceOf(d)
	for _, o := range p.Descriptors {
		if s != "" && o.Object != "" && o.Object != d.Object && serviceOf(o) == s {
			same = append(same, o.Object)
		}
	}
	return same
}

// hub reports whether too many others use a channel for it to be followed: processes outside the closure that are
// clients of the service at either end, or that hold the same pipe, file or memory. Processes of the users at its
// two ends do not count, but for root's: nobody can make what is theirs a hub, to hide behind.
func (t *tracer) hub(n *node, d host.Descriptor, peer host.Object, far []host.Holder) bool {
	var pids []int
	users := map[uint32]bool{}
	end := func(p host.Process, o host.Object) {
		if p.EUID != nil && *p.EUID != 0 {
			users[*p.EUID] = true
		}
		i := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == o })
		if i >= 0 && d.Object != peer { // else all hold one thing
			pids = append(pids, t.clientsOf(p, p.Descriptors[i])...)
		}
	}
	end(n.Process.Process, d.Object)
	if d.Object == peer || d.Kind == host.PTY {
		for _, h := range far {
			pids = append(pids, h.PID)
		}
	} else {
		for _, h := range far {
			if p, err := t.snap.Process(t.ctx, h.PID); err == nil && h.PID > 1 && h.PID != n.PID {
				end(p, peer)
			}
		}
	}
	slices.Sort(pids)
	pids = slices.DeleteFunc(slices.Compact(pids), func(pid int) bool { return pid == n.PID || t.byPID[pid] != nil })
	if len(pids) <= t.opt.Hub {
		return false
	}
	k := 0
	for _, pid := range pids {
		p, err := t.snap.Process(t.ctx, pid)
		if err != nil || p.EUID == nil || !users[*p.EUID] {
			k++
		}
		if k > t.opt.Hub || t.ctx.Err() != nil {
			return true
		}
	}
	return false
}

// clientsOf returns the processes at the other ends of the service that a process's descriptor belongs to.
func (t *tracer) clientsOf(p host.Process, d host.Descriptor) []int {
	key := use{p.PID, serviceOf(d)}
	if key.service == "" {
		key.service = string(d.Object)
	}
	if pids, ok := t.uses[key]; ok {
		return pids
	}
	var pids []int
	for _, s := range shared(p, d) {
		peers, _ := t.snap.Peers(t.ctx, s) // an error is a gap where that object is joined
		for _, q := range peers {
			holders, _ := t.snap.Holders(t.ctx, q)
			for _, h := range holders {
				pids = append(pids, h.PID)
			}
		}
	}
	slices.Sort(pids)
	pids = slices.Compact(pids)
	t.uses[key] = pids
	return pids
}

// A use is a service of a process.
type use struct {
	pid     int
	service string
}

// hosts returns how many other hosts a process has accepted connections of, with those that have left.
func (t *tracer) hosts(n *node, gone []guest) int {
	var all []netip.Addr
	for _, d := range n.Descriptors {
		if t.remote(d) && !t.asked(d) && d.Direction != host.Outbound && n.accepts(d) {
			all = append(all, d.Remote.Addr())
		}
	}
	for _, g := range gone {
		all = append(all, g.Remote.Addr())
	}
	return networks(all)
}

// accepts reports whether a process has a TCP connection as a service: it came to a port that the process listens on itself, or to which
// those of two other hosts came. Who stops listening has his clients still, as has who is handed them.
func (n *node) accepts(d host.Descriptor) bool {
	if n.serves == nil {
		n.serves = map[uint16]bool{}
		first := map[uint16]netip.Addr{}
		for _, o := range n.Descriptors {
			port := o.Local.Port()
			switch {
			case o.Kind != host.TCP:
			case o.Listening():
				n.serves[port] = true
			case connects(o) && o.Direction == host.Inbound:
				if a, ok := first[port]; ok && a != o.Remote.Addr() {
					n.serves[port] = true
				}
				first[port] = o.Remote.Addr()
			}
		}
	}
	return n.serves[d.Local.Port()]
}

// ofOne reports whether two processes are one user's and of one control group, which on many systems is a login.
func (t *tracer) ofOne(a, b *node) bool {
	return t.sameUser(a.Process.Process, b.Process.Process) && a.Cgroup == b.Cgroup
}

// sameUser reports whether two processes are one user's, as far as is known. Of what root runs only those in
// one control group are: a system's services have their own each, as have logins. Where all are in the group of the
// first process, nobody has sorted them; then those of one session are, which daemons have their own each as well.
func (t *tracer) sameUser(a, b host.Process) bool {
	if a.EUID == nil || b.EUID == nil {
		return true
	}
	if *a.EUID != *b.EUID || *a.EUID != 0 {
		return *a.EUID == *b.EUID
	}
	if a.Exited != nil || b.Exited != nil { // whose control group is not remembered
		return same(a.Session, b.Session)
	}
	if a.Cgroup != b.Cgroup {
		return false
	}
	first, err := t.snap.Process(t.ctx, 1)
	return err == nil && first.Cgroup != a.Cgroup || a.Session == nil || b.Session == nil || same(a.Session, b.Session)
}
