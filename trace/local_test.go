package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stopd/stopd/host"
)

// loop lets one process have had a connection with another of this host, from one second to another.
func loop(from, to *host.Remembered, port uint16, opened, closed int) {
	out := came(fmt.Sprintf("127.0.0.1:%d", port), opened, closed)
	out.Direction = host.Outbound
	out.Local = netip.AddrPortFrom(loopback, uint16(40000+len(from.Held)*100+from.Process.PID))
	in := out
	in.Local, in.Remote, in.Direction = out.Remote, out.Local, host.Inbound
	out.Object, in.Object = host.Object("recalled:out:"+in.Remote.String()+in.Local.String()), host.Object("recalled:in:"+in.Remote.String()+in.Local.String())
	out.Peer, in.Peer = in.Object, out.Object
	from.Held, to.Held = append(from.Held, out), append(to.Held, in)
}

// TestLocal: a connection of this host with itself that is closed leads on at its time, whether they live who had it or not.
func TestLocal(t *testing.T) {
	const attacker, innocent, admin = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	const mallory, bob, service = 1001, 1101, 1201
	// In all, 100 had the asked connection, from 30 to 50, and lived from 20 to 60; 90 is another, from 10 to 70.
	type world struct {
		asked        host.Socket
		owner, other *host.Remembered
		more         []*host.Remembered
		living       []*host.Remembered
	}
	live := func(w *world, rs ...*host.Remembered) {
		for _, r := range rs {
			r.Process.Exited = nil
			w.living = append(w.living, r)
		}
	}
	for _, tt := range []struct {
		name     string
		is       func(w *world)
		previous []string
		gap      string
	}{
		{name: "a relay", is: func(w *world) { loop(w.other, w.owner, 9000, 25, 55) }, previous: []string{attacker}},
		{name: "a relay of living ones", is: func(w *world) { loop(w.other, w.owner, 9000, 25, 55); live(w, w.owner, w.other) }, previous: []string{attacker}},
		{name: "that came later", is: func(w *world) { loop(w.other, w.owner, 9000, 35, 55) }, previous: []string{attacker}},
		{name: "that was over", is: func(w *world) { loop(w.other, w.owner, 9000, 25, 29) }},
		{name: "that came when it was over", is: func(w *world) { loop(w.other, w.owner, 9000, 51, 55); live(w, w.owner, w.other) }},
		{name: "through another", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 20, 0)))
			loop(w.other, m, 9000, 25, 55)
			loop(m, w.owner, 9001, 25, 55)
			w.more = append(w.more, m)
			live(w, m)
		}, previous: []string{attacker}},
		{name: "and a pipe", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 20, 60)))
			loop(w.other, m, 9000, 25, 55)
			told(m, w.owner, host.Pipe, "p")
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "and its login", is: func(w *world) {
			m := of(mallory, new(was(95, 90, 24, 60)))
			loop(m, w.owner, 9000, 25, 55)
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "to who accepted the other", is: func(w *world) { loop(w.owner, w.other, 9000, 29, 55) }, previous: []string{attacker}},
		{name: "to who accepted others by that port", is: func(w *world) {
			loop(w.owner, w.other, 9000, 29, 55)
			w.other.Held[0].Local = netip.AddrPortFrom(own, 9000)
		}, gap: "from this host itself"},
		{name: "another that came and went before", is: func(w *world) {
			m := of(bob, new(was(95, 1, 15, 60, came(innocent, 15, 60))))
			loop(m, w.owner, 9000, 21, 29)
			loop(w.other, w.owner, 9000, 25, 55)
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "another that came later", is: func(w *world) {
			m := of(bob, new(was(95, 1, 15, 60, came(innocent, 15, 60))))
			loop(w.other, w.owner, 9000, 25, 55)
			loop(m, w.owner, 9000, 31, 45)
			w.owner.Held = append(w.owner.Held, came(innocent, 35, 45))
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "another at the time", is: func(w *world) {
			m := of(bob, new(was(95, 1, 15, 60, came(innocent, 15, 60))))
			loop(m, w.owner, 9000, 21, 45)
			loop(w.other, w.owner, 9000, 25, 55)
			w.more = append(w.more, m)
		}, gap: "from this host itself"},
		{name: "another login of the user at the time", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 15, 60, came(innocent, 15, 60))))
			m.Process.Session = new(95)
			loop(m, w.owner, 9000, 21, 45)
			loop(w.other, w.owner, 9000, 25, 55)
			w.more = append(w.more, m)
		}, gap: "from this host itself"},
		{name: "several of one session", is: func(w *world) {
			m := of(mallory, new(was(95, 90, 15, 60)))
			loop(m, w.owner, 9000, 21, 45)
			loop(w.other, w.owner, 9000, 25, 55)
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "another host by that port at the time", is: func(w *world) {
			loop(w.other, w.owner, 9000, 25, 55)
			s := came(innocent, 25, 55)
			s.Local = netip.AddrPortFrom(own, 9000)
			w.owner.Held = append(w.owner.Held, s)
		}, gap: "from this host itself"},
		{name: "nobody knows whose", is: func(w *world) {
			loop(w.other, w.owner, 9000, 25, 55)
			w.owner.Held[1].Peer = ""
		}, gap: "from this host itself"},
		{name: "whose end was not noticed", is: func(w *world) {
			loop(w.other, w.owner, 9000, 25, 55)
			w.owner.Held[1].Until = second(28)
		}, gap: "from this host itself"},
		{name: "of another user", is: func(w *world) { loop(of(bob, w.other), w.owner, 9000, 25, 55) }, previous: []string{attacker}},
		{name: "with another user's service", is: func(w *world) {
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			loop(w.owner, of(service, w.other), 9000, 25, 55)
			live(w, w.other)
		}},
		{name: "another client of a service", is: func(w *world) {
			s := of(service, new(was(95, 1, 1, 0)))
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			loop(of(bob, w.other), s, 9000, 25, 55)
			loop(w.owner, s, 9000, 25, 55)
			w.more = append(w.more, s)
			live(w, s)
		}},
		{name: "one that told somebody to leave it behind", is: func(w *world) {
			shell := of(mallory, new(was(95, 85, 15, 22)))
			began := of(mallory, new(was(85, 1, 5, 26, came(admin, 5, 26))))
			loop(w.other, shell, 9000, 16, 21)
			w.owner.Parent, w.more = shell.Process.ID(), append(w.more, shell, began)
		}, previous: []string{attacker}},
		{name: "one of two that told somebody to leave it behind", is: func(w *world) {
			shell := of(mallory, new(was(95, 85, 15, 22)))
			began := of(mallory, new(was(85, 1, 5, 26, came(admin, 5, 26))))
			m := of(bob, new(was(96, 1, 15, 60, came(innocent, 15, 60))))
			loop(w.other, shell, 9000, 16, 21)
			loop(m, shell, 9000, 16, 21)
			w.owner.Parent, w.more = shell.Process.ID(), append(w.more, shell, began, m)
		}, gap: "from this host itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{asked: came(victim.String(), 30, 50)}
			w.asked.Direction, w.asked.Local = host.Outbound, question().Socket.Local
			w.owner, w.other = of(mallory, new(was(100, 1, 20, 60, w.asked))), of(mallory, new(was(90, 1, 10, 70, came(attacker, 11, 70))))
			tt.is(w)
			var processes []host.Process
			for _, r := range w.living {
				processes = append(processes, r.Process)
			}
			h := recording(processes...)
			h.Sockets = []host.Socket{w.asked}
			for _, r := range append(w.more, w.owner, w.other) {
				h.Remembered = append(h.Remembered, *r)
			}
			r := runSnapshot(t, h, Question{Socket: w.asked, Host: h.Recording.Facts})
			expect(t, r, tt.previous, tt.gap)
			for _, c := range r.Channels {
				for _, e := range c.Ends {
					if len(e.FDs) != 0 || c.Complete {
						t.Errorf("a channel that is over is %+v", c)
					}
				}
			}
		})
	}
}

// TestLocalCameLater: a connection with this host itself that is open, and came when the asked one was closed, leads nowhere.
func TestLocalCameLater(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	for opened, previous := range map[int][]string{60: {attacker}, 20: {attacker, innocent}} {
		asked := came(victim.String(), 30, 50)
		asked.Direction, asked.Local = host.Outbound, question().Socket.Local
		end := func(d host.Descriptor) host.Descriptor { d.Opened = second(opened); return d }
		here, there := netip.MustParseAddrPort("127.0.0.1:9000"), netip.MustParseAddrPort("127.0.0.1:40000")
		p := process(100, 1, in(22, attacker), end(host.Descriptor{FDs: []int{5}, Kind: host.TCP, Mode: host.ReadWrite, Object: "in", Peer: "out", Local: here, Remote: there, State: "ESTABLISHED", Direction: host.Inbound}))
		q := process(90, 1, in(23, innocent), end(host.Descriptor{FDs: []int{5}, Kind: host.TCP, Mode: host.ReadWrite, Object: "out", Peer: "in", Local: there, Remote: here, State: "ESTABLISHED", Direction: host.Outbound}))
		for _, p := range []*host.Process{&p, &q} {
			p.Descriptors[0].Opened = second(15)
			p.Start = second(10)
		}
		h := recording(p, q)
		h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{was(100, 1, 10, 0, asked)}
		r := runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts})
		expect(t, r, previous, "")
		if len(r.Channels) != 1 || !slices.ContainsFunc(r.Processes, func(p Process) bool { return p.PID == 90 }) {
			t.Errorf("channels are %+v", r.Channels)
		}
	}
}

// TestVisits: who is at a service of this host still is not named alone where others of this host were there and have left.
func TestVisits(t *testing.T) {
	const attacker, innocent, third = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	const mallory, service = 1001, 1201
	for _, tt := range []struct {
		name     string
		visit    func(server, visitor *host.Remembered)
		living   []host.Descriptor // what the visitor has, where he is alive
		previous []string
		gap      string
	}{
		{name: "who has ended", visit: func(s, v *host.Remembered) { loop(v, s, 9000, 32, 40) }, previous: []string{attacker, innocent}},
		{name: "who is logged in still", visit: func(s, v *host.Remembered) { loop(v, s, 9000, 32, 40) },
			living: []host.Descriptor{openedAt(11, in(22, attacker))}, previous: []string{attacker, innocent}},
		{name: "who had left before", visit: func(s, v *host.Remembered) { loop(v, s, 9000, 20, 29) }, previous: []string{innocent}},
		{name: "whom nobody knows", visit: func(s, v *host.Remembered) {
			loop(v, s, 9000, 32, 40)
			s.Held[0].Peer = ""
		}, previous: []string{innocent}, gap: "from this host itself"},
		{name: "who is one of too many", visit: func(s, v *host.Remembered) {
			for i := range Defaults.Hub + 1 {
				loop(v, s, uint16(9000+i), 32, 40)
			}
		}, previous: []string{innocent}, gap: "from this host itself"},
		{name: "and a client of another host that has left", visit: func(s, v *host.Remembered) {
			loop(v, s, 9000, 32, 40)
			gone := came(third, 31, 33)
			gone.Local = netip.AddrPortFrom(own, 8080)
			s.Held = append(s.Held, gone)
		}, previous: []string{attacker, innocent, third}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, visitor := of(service, new(was(100, 1, 10, 0))), of(mallory, new(was(90, 1, 10, 70, came(attacker, 11, 70))))
			tt.visit(server, visitor)
			ps := []host.Process{as(service, process(100, 1, asked(), listen(8080), openedAt(31, in(8080, innocent)))), initProcess}
			if tt.living != nil {
				visitor.Process.Exited = nil
				ps = append(ps, as(mallory, process(90, 1, tt.living...)))
			}
			h := recording(ps...)
			h.Remembered = []host.Remembered{*server, *visitor}
			q := question()
			q.Host, q.Socket.Opened = h.Recording.Facts, second(30)
			r := runSnapshot(t, h, q)
			expect(t, r, tt.previous, tt.gap)
			if n := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.What == "connections that are closed" }); n != (tt.gap != "") {
				t.Errorf("gaps are %+v", r.Gaps)
			}
		})
	}
}
