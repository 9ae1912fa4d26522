package recorder

import (
	"fmt"
	"net/netip"
)

// A world makes events up from octets, with few pids, cookies and ends, so that they meet.
type world struct {
	b  []byte
	at uint64
	// What there is, so that most events are sensible.
	alive []ID
	next  uint64 // cookie
	open  []uint64
	over  map[uint64]uint64 // when those sockets closed that have not been connected again
}

func (w *world) octet() int {
	if len(w.b) == 0 {
		return 0
	}
	n := int(w.b[0])
	w.b = w.b[1:]
	return n
}

func (w *world) id() ID {
	if n := w.octet(); len(w.alive) > 0 && n > 5 {
		return w.alive[n%len(w.alive)]
	} else if n > 3 {
		return ID{uint32(n), 3}
	}
	return ID{}
}

func (w *world) cookie() uint64 {
	if n := w.octet(); len(w.open) > 0 && n > 5 {
		return w.open[n%len(w.open)]
	}
	w.next++
	w.open = append(w.open, w.next)
	return w.next
}

func end(n int) netip.AddrPort {
	a := netip.AddrFrom4([4]byte{192, 0, 2, byte(n % 2)})
	if n&4 != 0 {
		a = netip.MustParseAddr("2001:db8::1")
	}
	return netip.AddrPortFrom(a, uint16(n%3))
}

func (w *world) described(id ID) Process {
	n := w.octet()
	p := Process{ID: id, Name: []byte(fmt.Sprint("name ", n)), EUID: uint32(n)}
	if n%3 == 0 {
		p.Exe = []byte(fmt.Sprint("/bin/", n%5))
	}
	return p
}

func (w *world) ends() Connection {
	n := w.octet()
	return Connection{Local: end(n), Remote: end(n >> 3), NetNS: uint32(n >> 7), Direction: Direction(1 + n%2), UID: 7}
}

// event is the next event; false where the octets are at an end.
func (w *world) event() (Event, bool) {
	if len(w.b) == 0 {
		return Event{}, false
	}
	w.at += 1 + uint64(w.octet())
	e := Event{Kind: Kind(1 + w.octet()%int(Closed)), At: w.at}
	switch e.Kind {
	case Forked:
		id := ID{uint32(1 + w.octet()%8), w.at}
		e.Process = w.described(id)
		e.Process.Parent = w.id()
		w.alive = append(w.alive, id)
	case Executed, Exited:
		e.Process = w.described(w.id())
	default:
		e.Process.ID = w.id()
		e.Connection = w.ends()
		e.Connection.Cookie = w.cookie()
		switch e.Kind {
		case Connecting, Established:
			delete(w.over, e.Connection.Cookie)
		case Touched:
			e.Connection.Closed = w.over[e.Connection.Cookie]
		case Closed:
			w.over[e.Connection.Cookie] = w.at
			e.Connection.Sent, e.Connection.Received, e.Connection.UID = uint64(w.octet()), uint64(w.octet()), uint32(w.octet())
		}
	}
	return e, true
}
