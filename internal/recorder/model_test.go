package recorder

import (
	"cmp"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// A model remembers everything, and looks for it from the beginning to the end.
type model struct {
	processes   []Process
	connections []Connection
	met         map[any]bool
}

func (m *model) process(id ID) *Process {
	i := slices.IndexFunc(m.processes, func(p Process) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return &m.processes[i]
}

func (m *model) cookie(c uint64) *Connection {
	for i := len(m.connections) - 1; i >= 0; i-- { // the latest
		if m.connections[i].Cookie == c {
			return &m.connections[i]
		}
	}
	return nil
}

func (m *model) fork(at uint64, p Process) {
	for i := range m.processes {
		if old := &m.processes[i]; old.PID == p.PID && old.Exited == 0 {
			old.Exited, old.Unsure = at, true
		}
	}
	m.add(p)
}

func (m *model) add(p Process) *Process {
	if of := m.process(p.Parent); of != nil && len(p.Exe) == 0 {
		p.Exe = of.Exe
	}
	m.processes = append(m.processes, p)
	return &m.processes[len(m.processes)-1]
}

func (m *model) hold(c *Connection, id ID) {
	if id.PID == 0 || slices.Contains(c.Holders, id) {
		return
	}
	if len(c.Holders) == holdersKept {
		c.Holders, c.More = c.Holders[:holdersKept-1:holdersKept-1], true
	}
	c.Holders = append(c.Holders, id)
}

// socket returns the connection of a socket, another than the last where that is over and it connects again.
func (m *model) socket(k Kind, cookie uint64, uid uint32) *Connection {
	if c := m.cookie(cookie); c != nil && (c.Closed == 0 || k != Connecting && k != Established) {
		return c
	}
	m.connections = append(m.connections, Connection{Cookie: cookie, UID: uid})
	return &m.connections[len(m.connections)-1]
}

func (m *model) open(c *Connection, at uint64, e Connection) {
	if c.Opened != 0 {
		return
	}
	c.Opened, c.Local, c.Remote, c.NetNS = at, e.Local, e.Remote, e.NetNS
	c.Direction = cmp.Or(c.Direction, e.Direction)
}

func (m *model) end(c *Connection, at uint64) {
	if c.Opened == 0 {
		cookie := c.Cookie
		m.connections = slices.DeleteFunc(m.connections, func(x Connection) bool { return x.Cookie == cookie && x.Opened == 0 })
		return
	}
	c.Closed = at
}

func (m *model) apply(e Event) {
	switch e.Kind {
	case Forked:
		m.fork(e.At, e.Process)
	case Executed:
		if p := m.process(e.Process.ID); p != nil {
			p.Name, p.Exe, p.EUID = e.Process.Name, e.Process.Exe, e.Process.EUID
		}
	case Exited:
		if p := m.process(e.Process.ID); p != nil && (p.Exited == 0 || p.Unsure) {
			p.Exited, p.Unsure, p.Name, p.EUID = e.At, false, e.Process.Name, e.Process.EUID
		}
	case Connecting, Touched:
		if m.cookie(e.Connection.Cookie) == nil && e.Connection.Closed != 0 {
			return
		}
		c := m.socket(e.Kind, e.Connection.Cookie, e.Connection.UID)
		if e.Kind == Connecting {
			c.Direction = Outbound
			m.met[c.Cookie] = true
		}
		m.hold(c, e.Process.ID)
	case Established:
		m.open(m.socket(e.Kind, e.Connection.Cookie, e.Connection.UID), e.At, e.Connection)
	case Closed:
		if c := m.cookie(e.Connection.Cookie); c != nil && (c.Closed == 0 || c.Unsure) {
			c.Unsure = false
			m.hold(c, e.Process.ID)
			c.Sent, c.Received = e.Connection.Sent, e.Connection.Received
			if c.Direction != Outbound {
				c.UID = e.Connection.UID
			}
			m.end(c, e.At)
		}
	case ProcessMet:
		p := m.process(e.Process.ID)
		if p == nil {
			p = m.add(e.Process)
			p.Met = true
		}
		if p.Exited == 0 {
			p.Name, p.EUID = e.Process.Name, e.Process.EUID
			if len(e.Process.Exe) > 0 {
				p.Exe = e.Process.Exe
			}
		}
		m.met[p.ID] = true
	case ConnectionMet:
		c := m.cookie(e.Connection.Cookie)
		if c == nil {
			c = m.socket(e.Kind, e.Connection.Cookie, e.Connection.UID)
			c.Met = true
		}
		if c.Closed == 0 {
			m.open(c, e.At, e.Connection)
			m.hold(c, e.Process.ID)
			m.met[c.Cookie] = true
		}
	}
}

func (m *model) swept(at, begun uint64, before map[uint64]bool) {
	for i := len(m.connections) - 1; i >= 0; i-- {
		if c := &m.connections[i]; c.Closed == 0 && c.Opened < begun && !m.met[c.Cookie] && before[c.Cookie] {
			c.Unsure = true
			m.end(c, at)
		}
	}
	for i := range m.processes {
		if p := &m.processes[i]; p.Exited == 0 && !m.met[p.ID] && p.Start < begun {
			p.Exited, p.Unsure = at, true
		}
	}
}

// both applies what the octets say to a history and to the model, sweeps included.
func both(b []byte, h *History) (*model, uint64) {
	m := &model{met: map[any]bool{}}
	return m, (&world{b: b, over: map[uint64]uint64{}}).run(h, m)
}

// run applies what the octets say until they are at an end, and returns when that is.
func (w *world) run(h *History, m *model) uint64 {
	for {
		if len(w.b) > 0 && w.b[0] == 255 { // a sweep of those whose numbers are even
			w.octet()
			w.at++
			begun := w.at
			h.Sweep(begun)
			m.met = map[any]bool{}
			before := map[uint64]bool{}
			for _, c := range m.connections {
				before[c.Cookie] = c.Closed == 0
			}
			for range w.octet() % 8 {
				if w.octet()%4 == 0 {
					if e, ok := w.event(); ok {
						h.Apply(e)
						m.apply(e)
					}
				}
				e := Event{Kind: ProcessMet, At: w.at}
				if w.octet()%2 == 0 {
					e.Process = w.described(w.id())
					if p := m.process(e.Process.ID); e.Process.PID == 0 || p != nil && p.Exited != 0 ||
						p == nil && slices.ContainsFunc(m.processes, func(p Process) bool { return p.PID == e.Process.PID }) {
						continue // it cannot be there
					}
				} else {
					e.Kind, e.Connection, e.Process.ID = ConnectionMet, w.ends(), w.id()
					e.Connection.Cookie = w.cookie()
				}
				h.Apply(e)
				m.apply(e)
			}
			w.at++
			h.Swept(w.at)
			m.swept(w.at, begun, before)
		}
		e, ok := w.event()
		if !ok {
			return w.at
		}
		h.Apply(e)
		m.apply(e)
	}
}

var equal = gocmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})}

// check compares the answers of a history that has room for all with those of the model.
func check(t *testing.T, h *History, m *model, at uint64) {
	t.Helper()
	for _, p := range m.processes {
		got, _ := h.Process(p.PID, p.Start, p.Start)
		if d := gocmp.Diff(p, got, equal); d != "" {
			t.Fatalf("process %v (-want +got):\n%s", p.ID, d)
		}
	}
	held := map[ID][]Connection{}
	for _, c := range m.connections {
		if c.Opened == 0 {
			if x, ok := h.ByCookie(c.Cookie, 1<<63); ok && x.Closed == 0 {
				t.Fatalf("socket %d is a connection, which was never established", c.Cookie)
			}
			continue
		}
		got, _ := h.ByCookie(c.Cookie, c.Opened)
		if d := gocmp.Diff(c, got, equal); d != "" {
			t.Fatalf("connection %d (-want +got):\n%s", c.Cookie, d)
		}
		for _, id := range c.Holders {
			held[id] = append(held[id], c)
		}
		// The latest of its flow, at the end and just before the next.
		for _, by := range []uint64{at, c.Opened} {
			var want Connection
			for _, x := range m.connections {
				if x.Local == c.Local && x.Remote == c.Remote && x.NetNS == c.NetNS && x.Opened != 0 && x.Opened <= by && x.Opened >= want.Opened {
					want = x
				}
			}
			got, ok := h.Latest(c.Local, c.Remote, c.NetNS, by)
			if !ok || got.Cookie != want.Cookie {
				t.Fatalf("the latest connection like %d by %d is %+v, not %+v", c.Cookie, by, got, want)
			}
		}
	}
	for id, want := range held {
		for _, outbound := range []bool{true, false} {
			checkHeld(t, h, id, want, outbound, 0, 1<<64-1)
			checkHeld(t, h, id, want, outbound, want[0].Opened, want[0].Opened)
			checkHeld(t, h, id, want, outbound, at/2, at)
		}
	}
}

// checkHeld holds what a process held between two times, of all that it held, against the history.
func checkHeld(t *testing.T, h *History, id ID, all []Connection, outbound bool, from, to uint64) {
	t.Helper()
	var want []uint64
	for _, c := range all {
		if (c.Direction == Outbound) == outbound && (c.Opened <= to || c.Met) && (c.Closed == 0 || c.Closed >= from) {
			want = append(want, c.Cookie)
		}
	}
	cookies := func(cs []Connection) []uint64 {
		var all []uint64
		for _, c := range cs {
			all = append(all, c.Cookie)
		}
		return all
	}
	held, more := h.Held(id, from, to, outbound, len(want))
	got := cookies(held)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || more {
		t.Fatalf("process %v held %v between %d and %d, not %v, and that there are more is %v", id, got, from, to, want, more)
	}
	if len(want) == 0 {
		return
	}
	if one, more := h.Held(id, from, to, outbound, len(want)-1); len(one) != len(want)-1 || !more {
		t.Fatalf("of %d connections of %v at most %d are %d, and that there are more is %v", len(want), id, len(want)-1, len(one), more)
	}
}

func octets(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// small makes a history with room for so many of each.
func small(n int) *History {
	h := &History{seed: maphash.MakeSeed(), secret: rand.Uint64()}
	h.connections.make(n)
	h.processes.make(n)
	h.joints.make(n)
	h.paths = newPaths(16, h.seed)
	return h
}

func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		h := small(1000)
		m, at := both(octets(r, 2000), h)
		check(t, h, m, at)
		for _, l := range h.Losses(0, at) {
			if l.Kind != Ring { // of connections that had octets and were never established
				t.Fatalf("lost: %+v", l)
			}
		}
	}
}

func TestModelWithoutRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	missed := 0
	for i := range 200 {
		h := small(1 + i%30)
		m, at := both(octets(r, 2000), h)
		forgetful(t, h, m, at, &missed)
	}
	if missed == 0 {
		t.Error("nothing was forgotten")
	}
}

// consistent checks what the table of processes keeps of itself.
func consistent(t *testing.T, h *History) {
	t.Helper()
	p := &h.processes
	children := make([]uint32, len(p.all))
	for n := range p.all {
		s := &p.all[n]
		if of := &p.all[s.parentSlot]; s.pid != 0 && s.parentSlot != 0 && of.id() == (ID{s.parent, s.parentStart}) {
			children[s.parentSlot]++
		}
	}
	for n := range p.all {
		if p.all[n].children != children[n] {
			t.Fatalf("process %v has %d children that are remembered, and counts %d", p.all[n].id(), children[n], p.all[n].children)
		}
	}
}

// forgetful checks what a history without room has: each thing is remembered as it was, or is within a loss.
// What came to be known of something after it was forgotten may be remembered as another.
func forgetful(t *testing.T, h *History, m *model, at uint64, missed *int) {
	t.Helper()
	consistent(t, h)
	for _, p := range m.processes {
		got, ok := h.Process(p.PID, p.Start, p.Start)
		if !ok {
			*missed++
			if len(h.Losses(p.Start, at)) == 0 {
				t.Fatalf("process %v is forgotten, and nothing is lost", p.ID)
			}
			continue
		}
		if got.Parent != p.Parent && len(h.Losses(p.Start, at)) == 0 {
			t.Fatalf("process %v has the parent %v, not %v", p.ID, got.Parent, p.Parent)
		}
	}
	for _, c := range m.connections {
		if c.Opened == 0 {
			continue
		}
		got, ok := h.ByCookie(c.Cookie, c.Opened)
		if !ok {
			*missed++
		}
		if (!ok || gocmp.Diff(c, got, equal) != "") && len(h.Losses(c.Opened, at)) == 0 {
			t.Fatalf("connection %d is %+v, not %+v, and nothing is lost", c.Cookie, got, c)
		}
	}
}

func FuzzHistory(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 4 {
		f.Add(octets(r, 300))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 600 {
			return
		}
		h := small(300)
		m, at := both(b, h)
		check(t, h, m, at)
		tight := small(3)
		m, at = both(b, tight)
		missed := 0
		forgetful(t, tight, m, at, &missed)
	})
}
