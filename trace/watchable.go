package trace

import (
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// A Watchable is a process that holds the asked connection and several connections that may feed it. Watching it may tell
// which does.
type Watchable struct {
	Process host.ID
	// Asked and Candidates are numbers of inodes.
	Asked      uint64
	Candidates []WatchableCandidate
	// Crowd are numbers of inodes of connections of which only what is certain counts: too many hosts have one for them to be
	// candidates, or they are too many candidates.
	Crowd []uint64
	// Service is true where the system has started the process, for nobody in particular. What anybody has started for himself may
	// show what he likes.
	Service bool
}

// A WatchableCandidate is a candidate for the previous host by one connection.
type WatchableCandidate struct {
	Previous
	Inode uint64
}

// A Crowded is a connection of a process, by the number of its inode.
type Crowded struct {
	PID   int
	Inode uint64
}

// These bound a [Watchable]. Candidates beyond are of the crowd; of a larger crowd nothing is looked at.
const maxCandidates, maxCrowd = 1 << 10, 1 << 14

// Watchable returns the process that watching may tell something of; false where there is none.
func (r Result) Watchable(asked host.Socket) (w Watchable, ok bool) {
	if len(r.Owners) != 1 || asked.Inode == 0 || asked.Direction == host.Inbound {
		return Watchable{}, false
	}
	i := slices.IndexFunc(r.Processes, func(p Process) bool { return p.PID == r.Owners[0] })
	if i < 0 {
		return Watchable{}, false
	}
	p := r.Processes[i]
	w = Watchable{Process: p.ID(), Asked: asked.Inode, Service: service(p.Process)}
	type ends struct{ local, remote netip.AddrPort }
	inodes := map[ends]uint64{}
	for _, d := range p.Descriptors {
		if o := d.Outside(); d.Kind == host.TCP && d.Inode != 0 && d.Inode != asked.Inode {
			inodes[ends{o.Local, o.Remote}] = d.Inode
		}
	}
	for _, c := range r.Previous {
		inode := inodes[ends{c.Local, c.Remote}]
		switch {
		case inode == 0 || c.PID != p.PID || c.Direction == host.Outbound:
		case len(w.Candidates) < maxCandidates:
			w.Candidates = append(w.Candidates, WatchableCandidate{c, inode})
		default:
			w.Crowd = append(w.Crowd, inode)
		}
	}
	for _, c := range r.Crowd {
		if c.PID == p.PID && c.Inode != 0 && c.Inode != asked.Inode {
			w.Crowd = append(w.Crowd, c.Inode)
		}
	}
	slices.Sort(w.Crowd)
	if w.Crowd = slices.Compact(w.Crowd); len(w.Crowd) > maxCrowd {
		w.Crowd = nil
	}
	return w, len(w.Candidates)+len(w.Crowd) > 1
}

// OfCrowd is the host at the other end of a connection of the crowd.
func (w Watchable) OfCrowd(d host.Descriptor) Previous {
	p := by(d, w.Process.PID)
	p.Reasons = []string{ReasonInbound}
	if d.Direction != host.Inbound {
		p.Reasons = []string{ReasonUnknownDirection}
	}
	return p
}

// firstUser is the first number of users who are people; see UID_MIN in login.defs(5).
const firstUser = 1000

// service reports whether nobody who logs in has started a process, as far as the system tells: it is of no login, and its user is the system's. What is a
// person's the system may have started as well, by what that person wrote into a ~/.forward or a crontab.
func service(p host.Process) bool {
	return p.LoginUID == nil && p.RUID != nil && p.EUID != nil && *p.RUID < firstUser && *p.EUID < firstUser
}

// Heard are the objects that others who hold them, and may write, can tell a process something by in a way that is no [host.Transfer],
// and those of memory that they can.
func Heard(p host.Process) (objects, memory []host.Object) {
	for _, d := range p.Descriptors {
		if d.Kind.Inet() || d.Kind == host.Unix || !d.Mode.Reads() {
			continue
		}
		of := &objects
		if d.Kind == host.SHM {
			of = &memory
		}
		for _, o := range []host.Object{d.Object, d.Peer} {
			if o != "" && !slices.Contains(*of, o) {
				*of = append(*of, o)
			}
		}
	}
	return objects, memory
}
