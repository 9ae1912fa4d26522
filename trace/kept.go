package trace

import (
	"slices"

	"github.com/stopd/stopd/host"
)

// kept looks at the files, the memory and the sockets without another end that processes share. These keep data for whoever looks; most are
// shared for reasons that have nothing to do with an intruder: a log, a database, a cache. So they are
// followed only where nothing else explains where the commands come from, and then among the processes of
// one user alone. Else they are listed.
func (t *tracer) kept() {
	followed := false
	for i := 0; i < len(t.nodes); i++ { // it grows
		n := t.nodes[i]
		if n.isInit() || n.acceptor || n.Exited != nil {
			continue
		}
		for _, d := range n.Descriptors {
			if t.bound() {
				break
			}
			if d.Object != "" && (d.Kind.Keeps() || hearsItself(d)) {
				t.join(n, d, d.Object)
			}
		}
	}
	for _, c := range t.channels {
		followed = followed || c.keeps && c.Followed
	}
	if followed {
		t.found = nil
		t.previous()
	}
}

// hearsItself reports whether a socket may hear what is sent through itself: one that is connected to its own address, one that is
// connected to none and has an address, and those of which the system does not tell. Who inherited it shares with its other
// holders no more than memory: the workers of a name server all have its port.
func hearsItself(d host.Descriptor) bool {
	switch {
	case d.Listening():
		return false
	case d.Peer != "":
		return d.Peer == d.Object && (d.Kind == host.Unix || d.Kind.Inet())
	case d.Kind == host.UDP:
		return d.Local.Port() != 0 && !d.Remote.IsValid()
	case d.Kind == host.Unix:
		return d.Type == "dgram" && d.Path != ""
	}
	return d.Kind == host.Raw || d.Kind == host.OtherSocket && d.Name != ""
}

// leave says why a file or memory is only listed; empty where it is followed.
func (t *tracer) leave(n *node, far []host.Holder) string {
	if t.explained() {
		return "not needed: a connection with another host is found without it"
	}
	if !t.oneOfOurs(n, far) {
		return otherUsers
	}
	return ""
}

const otherUsers = "other users' processes"

// oneOfOurs reports whether another holder is of the same user.
func (t *tracer) oneOfOurs(n *node, far []host.Holder) bool {
	return slices.ContainsFunc(far, func(h host.Holder) bool { return h.PID != n.PID && t.ours(n, h.PID) })
}

// ours reports whether a process is of the same user as one of the closure, as far as is known. That one cannot
// be read is a gap as soon as it is added.
func (t *tracer) ours(n *node, pid int) bool {
	p, err := t.snap.Process(t.ctx, pid)
	return err != nil || t.sameUser(n.Process.Process, p)
}
