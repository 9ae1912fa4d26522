package trace

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// told lets two processes have had something by which one could tell the other what the first says.
func told(writer, reader *host.Remembered, kind host.Kind, name string) {
	o := host.Object(name)
	both(writer, reader, host.Descriptor{Kind: kind, Mode: host.Write, Object: o, Peer: o}, host.Descriptor{Kind: kind, Mode: host.Read, Object: o, Peer: o})
}

// both lets two processes have had the two ends of something.
func both(a, b *host.Remembered, near, far host.Descriptor) {
	near.FDs, far.FDs = []int{}, []int{}
	a.Joints = append(a.Joints, host.Joint{Descriptor: near, With: []host.Holder{{ID: b.Process.ID(), FDs: []int{}, Mode: far.Mode}}})
	b.Joints = append(b.Joints, host.Joint{Descriptor: far, With: []host.Holder{{ID: a.Process.ID(), FDs: []int{}, Mode: near.Mode}}})
}

// of makes a process another user's, in a session of that number.
func of(uid uint32, r *host.Remembered) *host.Remembered {
	r.Process.EUID, r.Process.RUID, r.Process.Session = new(uid), new(uid), new(int(uid))
	return r
}

func TestJoined(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	const mallory, bob, service = 1001, 1101, 1201
	socket := func(own, other string, named bool) host.Descriptor {
		return host.Descriptor{Kind: host.Unix, Mode: host.ReadWrite, Object: host.Object(own), Peer: host.Object(other), Named: named}
	}
	side := func(side string) host.Descriptor {
		d := host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Side: side, Object: "ptm", Peer: "pts", Number: new(3)}
		if side == host.Slave {
			d.Object, d.Peer = d.Peer, d.Object
		}
		return d
	}
	// In all, 100 had the asked connection, from 30 to 50, and lived from 20 to 60; 90 is another, from 10 to 70.
	type world struct {
		owner, other *host.Remembered
		more         []*host.Remembered
		living       []host.Process
	}
	for _, tt := range []struct {
		name     string
		is       func(w *world)
		previous []string
		gap      string
	}{
		{name: "a pipe", is: func(w *world) { told(w.other, w.owner, host.Pipe, "p") }, previous: []string{attacker}},
		{name: "back alone", is: func(w *world) { told(w.owner, w.other, host.FIFO, "f") }, previous: []string{attacker}},
		{name: "socket pair", is: func(w *world) { both(w.owner, w.other, socket("a", "b", false), socket("b", "a", false)) }, previous: []string{attacker}},
		{name: "the other end was closed already", is: func(w *world) { both(w.owner, w.other, socket("a", "", false), socket("b", "a", false)) }, previous: []string{attacker}},
		{name: "terminal", is: func(w *world) { both(w.owner, w.other, side(host.Slave), side(host.Master)) }, previous: []string{attacker}},
		{name: "nothing", is: func(w *world) {}, gap: "it has ended: remembered are pipes"},
		{name: "both write", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Joints[0].With[0].Mode, w.owner.Joints[0].Mode = host.Write, host.Write
		}},
		{name: "through another", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 20, 60)))
			told(w.other, m, host.Pipe, "p")
			told(m, w.owner, host.Pipe, "q")
			w.more = append(w.more, m)
		}, previous: []string{attacker}},
		{name: "through a living one", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 20, 0)))
			told(w.other, m, host.Pipe, "p")
			told(m, w.owner, host.Pipe, "q")
			w.more, w.living = append(w.more, m), append(w.living, m.Process)
		}, previous: []string{attacker}},
		{name: "two who both live shared it", is: func(w *world) {
			m := of(mallory, new(was(95, 1, 20, 0)))
			told(w.other, m, host.Pipe, "p")
			told(m, w.owner, host.Pipe, "q")
			w.other.Process.Exited = nil
			w.more, w.living = append(w.more, m), append(w.living, m.Process, w.other.Process)
		}, gap: "it has ended"},
		{name: "it opened its connection later", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held[0].Opened = second(40)
		}, previous: []string{attacker}},
		{name: "its connection was closed before", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held[0].Closed = second(29)
		}, gap: "it has ended"},
		{name: "its connection was opened after", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held[0].Opened, w.other.Held[0].Closed = second(51), second(60)
		}},
		{name: "of several hosts", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held = append(w.other.Held, came(innocent, 29, 36))
		}, gap: "of 2 hosts"},
		{name: "of several hosts, all later", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held = []host.Socket{came(attacker, 31, 70), came(innocent, 35, 36)}
		}, gap: "of 2 hosts"},
		{name: "beside the login", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			login := new(was(80, 1, 5, 70, came("203.0.113.3:1027", 5, 70)))
			w.owner.Parent, w.more = login.Process.ID(), append(w.more, login)
		}, previous: []string{attacker, "203.0.113.3:1027"}},
		{name: "it opened its connection itself", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held[0].Direction = host.Outbound
		}, previous: []string{attacker}},
		{name: "a parent's own", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			out := came(innocent, 5, 70)
			out.Direction = host.Outbound
			login := of(mallory, new(was(80, 1, 5, 70, out)))
			w.owner.Parent, w.more = login.Process.ID(), append(w.more, login)
		}, previous: []string{attacker}},
		{name: "one came and went, and another came", is: func(w *world) {
			told(w.other, w.owner, host.Pipe, "p")
			w.other.Held[0].Closed = second(35)
			w.other.Held = append(w.other.Held, came(innocent, 40, 70))
		}, previous: []string{attacker}},
		{name: "another user says something", is: func(w *world) { told(of(bob, w.other), w.owner, host.Pipe, "p") }, previous: []string{attacker}},
		{name: "another user is told something", is: func(w *world) {
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			told(w.owner, of(bob, w.other), host.Pipe, "p")
		}},
		{name: "another client of a service", is: func(w *world) {
			s := of(service, new(was(95, 1, 1, 80)))
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			told(of(bob, w.other), s, host.Pipe, "p")
			told(s, w.owner, host.Pipe, "q")
			w.more = append(w.more, s)
		}, gap: "it is another user's"},
		{name: "a service of one name", is: func(w *world) {
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			both(w.owner, of(service, w.other), socket("a", "b", false), socket("b", "a", true))
		}},
		{name: "a living service of one name", is: func(w *world) {
			w.other.Held = []host.Socket{came(innocent, 9, 0)}
			both(w.owner, of(service, w.other), socket("a", "b", false), socket("b", "a", true))
			w.other.Process.Exited = nil
			w.living = append(w.living, w.other.Process)
		}},
		{name: "the listener that accepted it", is: func(w *world) {
			w.other.Process.Exited = nil
			w.other.Process.Descriptors = []host.Descriptor{number(3, listen(22))}
			w.other.Held = []host.Socket{came(innocent, 9, 70)}
			own := new(was(95, 90, 15, 70, came(attacker, 14, 70)))
			w.owner.Parent = own.Process.ID()
			told(w.other, own, host.Pipe, "p")
			told(w.other, w.owner, host.Pipe, "p")
			w.more, w.living = append(w.more, own), append(w.living, w.other.Process)
		}, previous: []string{attacker}},
		{name: "a hub", is: func(w *world) {
			for i := range 20 {
				m := of(bob, new(was(200+i, 1, 20, 60, came(innocent, 21, 59))))
				told(m, w.owner, host.FIFO, "f")
				w.more = append(w.more, m)
			}
			// All of them by one end.
			for _, j := range w.owner.Joints[1:] {
				w.owner.Joints[0].With = append(w.owner.Joints[0].With, j.With...)
			}
			w.owner.Joints = w.owner.Joints[:1]
		}, gap: "it has ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := came(victim.String(), 30, 50)
			asked.Direction, asked.Local = host.Outbound, question().Socket.Local
			w := &world{owner: of(mallory, new(was(100, 1, 20, 60, asked))), other: of(mallory, new(was(90, 1, 10, 70, came(attacker, 11, 70))))}
			tt.is(w)
			h := recording(w.living...)
			h.Sockets = []host.Socket{asked}
			for _, r := range append(w.more, w.owner, w.other) {
				h.Remembered = append(h.Remembered, *r)
			}
			r := runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts})
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
				want := []string{ReasonRecorded}
				if p.Direction == host.Outbound {
					want = append(want, ReasonJoinedOutbound)
				}
				if !slices.Equal(p.Reasons, want) {
					t.Errorf("%v is named for %v", p.Remote, p.Reasons)
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.previous, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s", d)
			}
			if tt.gap != "" && !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, tt.gap) }) {
				t.Errorf("gaps are %+v, none %q", r.Gaps, tt.gap)
			}
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

// TestStillOpen: what a living process shared with one that has ended does not join it while it holds the asked connection itself.
func TestStillOpen(t *testing.T) {
	living, gone := new(was(100, 1, 20, 0)), new(was(90, 1, 10, 40, came("203.0.113.2:1026", 11, 40)))
	told(gone, living, host.Pipe, "p")
	h := recording(process(100, 1, asked()))
	h.Remembered = []host.Remembered{*living, *gone}
	q := question()
	q.Host, q.Socket.Opened = h.Recording.Facts, second(30)
	if r := runSnapshot(t, h, q); len(r.Previous) != 0 || len(r.Channels) != 0 {
		t.Errorf("previous hosts are %+v, channels %+v", r.Previous, r.Channels)
	}
}

// TestJoinedBesideLogin: a login that is still open does not hide who shared something with the process that had the asked connection.
func TestJoinedBesideLogin(t *testing.T) {
	asked := came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	owner, other := new(was(100, 80, 20, 60, asked)), new(was(90, 1, 10, 70, came("203.0.113.1:1025", 11, 70)))
	told(other, owner, host.Pipe, "p")
	h := recording(process(80, 1, since(in(22, "203.0.113.3:1027"), 5)))
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{*of(1001, owner), *of(1001, other), was(80, 1, 5, 0)}
	r := runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts})
	var got []string
	for _, p := range r.Previous {
		got = append(got, p.Remote.String()+" "+strings.Join(p.Reasons, " "))
	}
	if d := cmp.Diff([]string{"203.0.113.3:1027 inbound", "203.0.113.1:1025 recorded"}, got); d != "" {
		t.Errorf("previous hosts (-want +got):\n%s", d)
	}
}

// TestOneChannel: what several had is one channel, from whichever of them it is met, and said to be remembered.
func TestOneChannel(t *testing.T) {
	asked := came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	owner, one, two := of(1001, new(was(100, 1, 20, 60, asked))), of(1001, new(was(90, 1, 10, 70, came("203.0.113.1:1025", 11, 70)))), of(1001, new(was(80, 1, 10, 25)))
	told(one, owner, host.FIFO, "f")
	told(two, owner, host.FIFO, "f")
	h := recording()
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{*owner, *one, *two}
	r := runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts})
	if len(r.Channels) != 1 || !r.Channels[0].Remembered || !r.Channels[0].Followed {
		t.Fatalf("channels are %+v", r.Channels)
	}
	var ends []int
	for _, e := range r.Channels[0].Ends {
		ends = append(ends, e.PID)
	}
	slices.Sort(ends)
	if d := cmp.Diff([]int{80, 90, 100}, ends); d != "" {
		t.Errorf("ends (-want +got):\n%s", d)
	}
}
