package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// kept is a file, memory or a queue that several processes hold.
func kept(k host.Kind, m host.Mode) host.Descriptor {
	return host.Descriptor{FDs: []int{}, Kind: k, Mode: m, Object: host.Object(k), Peer: host.Object(k), Path: "/" + string(k)}
}

func file(path string, m host.Mode) host.Descriptor {
	d := kept(host.File, m)
	d.Object, d.Peer, d.Path = host.Object(path), host.Object(path), path
	return d
}

// itself is a socket that is connected to its own address.
func itself() host.Descriptor {
	at := netip.AddrPortFrom(loopback, 5000)
	d := tcp(at, at.String(), "self", host.Outbound)
	d.Peer = d.Object
	return d
}

// netlink is a socket of a family that joins no two sockets.
func netlink(name string) host.Descriptor {
	return host.Descriptor{Kind: host.OtherSocket, Object: "n", Name: name}
}

// Why a channel is only listed.
const (
	notNeeded   = ": not needed: a connection with another host is found without it"
	othersUsers = ": other users' processes"
)

func TestKept(t *testing.T) {
	login := process(70, 1, asked(), file("f", host.Read))
	login.Login = &host.Login{Source: host.LoginEnvironment, Remote: in(22, other).Remote, Local: in(22, other).Local}
	tests := []struct {
		name string
		ps   []host.Process
		want summary
	}{
		{"the owner reads what another wrote",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", host.Write)), process(70, 1, asked(), file("f", host.Read))},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70", "60 resolved channel 70"},
				Channels: []string{"file 60 w, 70 r"}, Previous: []string{attacker + " inbound"}}},
		{"the owner writes what another reads",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", host.Read)), process(70, 1, asked(), file("f", host.Write))},
			summary{Channels: []string{"file 60 r, 70 w"}, Previous: []string{attacker + " inbound"}}},
		{"they hold it in an unknown mode",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", "")), process(70, 1, asked(), file("f", ""))},
			summary{Channels: []string{"file 60 ?, 70 ?"}, Previous: []string{attacker + " inbound"}}},
		{"an ancestor reads it",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", host.Write)), process(65, 1, file("f", host.Read)), process(70, 65, asked())},
			summary{Channels: []string{"file 60 w, 65 r"}, Previous: []string{attacker + " inbound"}}},
		{"then a pipe",
			[]host.Process{process(50, 1, in(8888, attacker), pipe("p", host.Write)), process(60, 1, pipe("p", host.Read), kept(host.SHM, host.ReadWrite)),
				process(70, 1, asked(), kept(host.SHM, host.ReadWrite))},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70", "60 resolved channel 70", "50 resolved channel 60"},
				Channels: []string{"shm 60 rw, 70 rw", "pipe 50 w, 60 r"}, Previous: []string{attacker + " inbound"}}},
		{"after a pipe, then another",
			[]host.Process{process(40, 1, in(8888, attacker), kept(host.Memfd, host.Write)), process(50, 1, kept(host.Memfd, host.Read), file("f", host.Write)),
				process(60, 1, file("f", host.Read), pipe("p", host.Write)), process(70, 1, asked(), pipe("p", host.Read))},
			summary{Channels: []string{"pipe 60 w, 70 r", "file 50 w, 60 r", "memfd 40 w, 50 r"}, Previous: []string{attacker + " inbound"}}},

		{"two workers with one database: the owner's own client explains it",
			[]host.Process{process(60, 1, in(8888, other), file("db", host.ReadWrite)), process(70, 1, in(8888, attacker), asked(), file("db", host.ReadWrite))},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70"},
				Channels: []string{"file 60 rw, 70 rw" + notNeeded}, Previous: []string{attacker + " inbound"}}},
		{"a pipe explains it",
			[]host.Process{process(50, 1, in(8888, attacker), pipe("p", host.Write)), process(60, 1, in(8888, other), kept(host.SHM, host.ReadWrite)),
				process(70, 1, asked(), pipe("p", host.Read), kept(host.SHM, host.ReadWrite))},
			summary{Channels: []string{"pipe 50 w, 70 r", "shm 60 rw, 70 rw" + notNeeded}, Previous: []string{attacker + " inbound"}}},
		{"a connection out does not explain it",
			[]host.Process{process(50, 1, out(41000, third, "o"), pipe("p", host.Write)), process(60, 1, in(8888, attacker), file("f", host.Write)),
				process(70, 1, asked(), pipe("p", host.Read), file("f", host.Read))},
			summary{Channels: []string{"pipe 50 w, 70 r", "file 60 w, 70 r"}, Previous: []string{third + " joined-outbound", attacker + " inbound"}}},
		{"the user's word does not explain it",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", host.Write)), login},
			summary{Channels: []string{"file 60 w, 70 r"}, Previous: []string{attacker + " inbound", other + " ssh-connection uncorroborated"}}},

		{"a socket that hears what is sent to its address by another who inherited it",
			[]host.Process{process(60, 1, in(8888, attacker), heard(host.UDP, loopback, "u")), process(70, 1, asked(), heard(host.UDP, loopback, "u"))},
			summary{Channels: []string{"udp 60 ?, 70 ?"}, Previous: []string{attacker + " inbound"}}},
		{"one that is connected to its own address",
			[]host.Process{process(60, 1, in(8888, attacker), itself()), process(70, 1, asked(), itself())},
			summary{Channels: []string{"tcp 60 rw, 70 rw"}, Previous: []string{attacker + " inbound"}}},
		{"one of another family",
			[]host.Process{process(60, 1, in(8888, attacker), netlink("netlink")), process(70, 1, asked(), netlink("netlink"))},
			summary{Channels: []string{"socket 60 ?, 70 ?"}, Previous: []string{attacker + " inbound"}}},
		{"one that could not be looked at",
			[]host.Process{process(60, 1, in(8888, other), netlink("")), process(70, 1, asked(), netlink(""))}, summary{Channels: none, Previous: none}},
		{"workers of a name server",
			[]host.Process{process(60, 1, in(53, other), heard(host.UDP, loopback, "u")), process(70, 1, in(53, attacker), asked(), heard(host.UDP, loopback, "u"))},
			summary{Channels: []string{"udp 60 ?, 70 ?" + notNeeded}, Previous: []string{attacker + " inbound"}}},
		{"other users' socket",
			[]host.Process{as(1001, process(60, 1, in(8888, other), heard(host.UDP, loopback, "u"))), as(1000, process(70, 1, asked(), heard(host.UDP, loopback, "u")))},
			summary{Channels: []string{"udp 60 ?, 70 ?" + othersUsers}, Previous: none}},
		{"a listener",
			[]host.Process{process(60, 1, in(8888, other), listen(80)), process(70, 1, asked(), listen(80))}, summary{Channels: none, Previous: none}},

		{"other users'",
			[]host.Process{as(1001, process(60, 1, in(8888, other), file("/tmp/f", host.Write))), as(1000, process(70, 1, asked(), file("/tmp/f", host.Read)))},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70"}, Channels: []string{"file 60 w, 70 r" + othersUsers}, Previous: none}},
		{"one user's, which another user reads as well",
			[]host.Process{as(1001, process(50, 1, in(22, other), file("/tmp/f", host.Read))), as(1000, process(60, 1, in(8888, attacker), file("/tmp/f", host.Write))),
				as(1000, process(70, 1, asked(), file("/tmp/f", host.Read)))},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70", "60 resolved channel 70"},
				Channels: []string{"file 50 r, 60 w, 70 r"}, Previous: []string{attacker + " inbound"}}},
		{"root's, of two services",
			[]host.Process{within("/a.service", process(60, 1, in(22, other), file("f", host.ReadWrite))), within("/b.service", process(70, 1, asked(), file("f", host.ReadWrite)))},
			summary{Channels: []string{"file 60 rw, 70 rw" + othersUsers}, Previous: none}},
		{"root's, of two daemons of a host that sorts nobody into control groups",
			[]host.Process{began(60, process(60, 1, in(22, other), file("f", host.ReadWrite))), began(70, process(70, 1, asked(), file("f", host.ReadWrite)))},
			summary{Channels: []string{"file 60 rw, 70 rw" + othersUsers}, Previous: none}},
		{"root's, of one session of such a host",
			[]host.Process{began(60, process(60, 1, in(8888, attacker), file("f", host.ReadWrite))), began(60, process(70, 1, asked(), file("f", host.ReadWrite)))},
			summary{Channels: []string{"file 60 rw, 70 rw"}, Previous: []string{attacker + " inbound"}}},
		{"root's, of two sessions in one control group",
			[]host.Process{within("/a.service", began(60, process(60, 1, in(8888, attacker), file("f", host.ReadWrite)))), within("/a.service", began(70, process(70, 1, asked(), file("f", host.ReadWrite))))},
			summary{Channels: []string{"file 60 rw, 70 rw"}, Previous: []string{attacker + " inbound"}}},
		{"of the first process",
			[]host.Process{process(1, 0, file("f", host.ReadWrite)), process(70, 1, asked(), file("f", host.ReadWrite))},
			summary{Channels: []string{"file 1 rw, 70 rw: init"}, Previous: none}},

		{"all read it",
			[]host.Process{process(60, 1, in(22, other), file("f", host.Read)), process(70, 1, asked(), file("f", host.Read))},
			summary{Channels: none, Previous: none}},
		{"all append to it",
			[]host.Process{process(60, 1, in(22, other), file("f", host.Write)), process(70, 1, asked(), file("f", host.Write))},
			summary{Channels: none, Previous: none}},
		{"one alone reads and writes it",
			[]host.Process{process(60, 1, in(22, other)), process(70, 1, asked(), file("f", host.ReadWrite))},
			summary{Channels: none, Previous: none}},
		{"one reads and writes it, others append",
			[]host.Process{process(60, 1, in(8888, attacker), file("f", host.Write)), process(70, 1, asked(), file("f", host.ReadWrite))},
			summary{Channels: []string{"file 60 w, 70 rw"}, Previous: []string{attacker + " inbound"}}},
		{"of no object",
			[]host.Process{process(60, 1, in(22, other), host.Descriptor{Kind: host.File, Path: "/dev/dri/card0"}), process(70, 1, asked(), host.Descriptor{Kind: host.File, Path: "/dev/dri/card0"})},
			summary{Channels: none, Previous: none, Gaps: none}},

		{"a queue passes data on, like a pipe",
			[]host.Process{as(1001, process(60, 1, in(8888, attacker), kept(host.MQueue, host.Write))), as(1000, process(70, 1, asked(), kept(host.MQueue, host.Read)))},
			summary{Channels: []string{"mqueue 60 w, 70 r"}, Previous: []string{attacker + " inbound"}}},
		{"so does one of System V, and then memory is not needed",
			[]host.Process{process(50, 1, in(22, other), kept(host.SHM, host.ReadWrite)), process(60, 1, in(8888, attacker), kept(host.Msg, host.Write)),
				process(70, 1, asked(), kept(host.SHM, host.ReadWrite), kept(host.Msg, host.Read))},
			summary{Channels: []string{"msg 60 w, 70 r", "shm 50 rw, 70 rw" + notNeeded}, Previous: []string{attacker + " inbound"}}},

		{"signals are followed as memory is",
			[]host.Process{process(50, 1, in(8888, attacker), kept(host.Sem, host.ReadWrite)), process(60, 1, kept(host.Sem, host.ReadWrite), kept(host.EventFD, host.ReadWrite)),
				process(70, 1, asked(), kept(host.EventFD, host.ReadWrite))},
			summary{Channels: []string{"eventfd 60 rw, 70 rw", "sem 50 rw, 60 rw"}, Previous: []string{attacker + " inbound"}}},
		{"and not where a connection explains it",
			[]host.Process{process(60, 1, in(8888, other), kept(host.EventFD, host.ReadWrite), kept(host.IOUring, host.ReadWrite), kept(host.FUSE, host.ReadWrite)),
				process(70, 1, in(8888, attacker), asked(), kept(host.EventFD, host.ReadWrite), kept(host.IOUring, host.ReadWrite), kept(host.FUSE, host.ReadWrite))},
			summary{Channels: []string{"eventfd 60 rw, 70 rw" + notNeeded, "io_uring 60 rw, 70 rw" + notNeeded, "fuse 60 rw, 70 rw" + notNeeded}, Previous: []string{attacker + " inbound"}}},
		{"who traces a process commands it",
			[]host.Process{as(1000, process(60, 1, in(8888, attacker), kept(host.PTrace, host.Write))), as(1000, process(70, 1, asked(), kept(host.PTrace, host.Read)))},
			summary{Channels: []string{"ptrace 60 w, 70 r"}, Previous: []string{attacker + " inbound"}}},
		{"also where a connection explains it",
			[]host.Process{process(60, 1, in(8888, attacker), kept(host.PTrace, host.Write)), process(70, 1, in(8888, other), asked(), kept(host.PTrace, host.Read))},
			summary{Channels: []string{"ptrace 60 w, 70 r"}, Previous: []string{other + " inbound", attacker + " inbound"}}},
		{"unless another user looks at it",
			[]host.Process{as(0, process(60, 1, in(22, other), kept(host.PTrace, host.Write))), as(1000, process(70, 1, asked(), kept(host.PTrace, host.Read)))},
			summary{Channels: []string{"ptrace 60 w, 70 r" + othersUsers}, Previous: none}},
		{"and speaks through it",
			[]host.Process{process(60, 1, in(22, other), kept(host.PTrace, host.Read)), process(70, 1, out(41000, third, "o"), asked(), kept(host.PTrace, host.Write))},
			summary{Channels: []string{"ptrace 60 r, 70 w"}, Previous: []string{third + " joined-outbound", other + " inbound"}}},
		{"a console joins nobody",
			[]host.Process{process(60, 1, in(22, other), kept(host.TTY, host.ReadWrite)), process(70, 1, asked(), kept(host.TTY, host.ReadWrite))},
			summary{Channels: []string{"tty 60 rw, 70 rw: terminal: it passes nothing from one of its holders to another"}, Previous: none}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !slices.ContainsFunc(tt.ps, func(p host.Process) bool { return p.PID == 1 }) {
				tt.ps = append(tt.ps, initProcess)
			}
			if d := cmp.Diff(tt.want, summarize(run(t, recording(tt.ps...)), tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What is written to another user's terminal is shown to them. It is not what a program has that became another
// user on the way: that has the terminal for reading as well, or as its own.
func TestShownOnTerminal(t *testing.T) {
	master, slave := pty(5)
	sshd := as(1101, process(50, 1, in(22, other), master))
	own := as(1002, process(70, 1, asked(), with(host.Write, slave)))
	own.TTY = "pts/5"
	tests := []struct {
		name string
		p    host.Process
		want summary
	}{
		{"write(1)", as(1001, process(70, 1, asked(), with(host.Write, slave))),
			summary{Processes: []string{"70 primary owner", "1 primary parent 70"},
				Channels: []string{"pty 70 w, 50 rw: another user's terminal: it only shows them something"}, Previous: none}},
		{"the terminal's own user", as(1101, process(70, 1, asked(), with(host.Write, slave))),
			summary{Channels: []string{"pty 70 w, 50 rw"}, Previous: []string{other + " inbound"}}},
		{"su, read and write", as(1002, process(70, 1, asked(), slave)),
			summary{Channels: []string{"pty 70 rw, 50 rw"}, Previous: []string{other + " inbound"}}},
		{"su, its own terminal", own, summary{Channels: []string{"pty 70 w, 50 rw"}, Previous: []string{other + " inbound"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, summarize(run(t, recording(initProcess, sshd, tt.p)), tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A file that very many hold is a hub.
func TestKeptHub(t *testing.T) {
	for _, others := range []int{Defaults.Hub, Defaults.Hub + 1} {
		ps := []host.Process{initProcess, process(70, 1, asked(), file("f", host.ReadWrite))}
		for i := range others {
			ps = append(ps, process(100+i, 1, in(8888, fmt.Sprintf("203.0.113.5:%d", 51000+i)), file("f", host.ReadWrite)))
		}
		r := run(t, recording(ps...))
		if len(r.Channels) != 1 {
			t.Fatalf("with %d others: channels %+v", others, r.Channels)
		}
		c, why := r.Channels[0], ""
		if others > Defaults.Hub {
			why = "hub: more than 16 processes of others"
		}
		if c.Why != why || c.Followed != (why == "") || len(r.Previous) != map[bool]int{true: others}[c.Followed] {
			t.Errorf("with %d others: followed %t, %q, %d candidates; want %q", others, c.Followed, c.Why, len(r.Previous), why)
		}
	}
}

// ring makes processes each of which shares a file with the next, and the last with the first; the one in the
// middle has a connection with the attacker.
func ring(n int) *host.Replay {
	ps := []host.Process{initProcess}
	for i := range n {
		p := process(1000+i, 1, file(fmt.Sprint(i), host.ReadWrite), file(fmt.Sprint((i+1)%n), host.ReadWrite))
		switch i {
		case 0:
			p.Descriptors = append(p.Descriptors, number(9, asked()))
		case n / 2:
			p.Descriptors = append(p.Descriptors, number(9, in(8888, attacker)))
		}
		ps = append(ps, p)
	}
	return recording(ps...)
}

func TestKeptEnds(t *testing.T) {
	const n = 300
	r := run(t, ring(n))
	if len(r.Processes) != n+1 || len(r.Channels) != n || len(r.Previous) != 1 || len(r.Gaps) != 0 {
		t.Errorf("%d processes, %d channels, candidates %+v, gaps %+v; want %d, %d, one, none",
			len(r.Processes), len(r.Channels), r.Previous, r.Gaps, n+1, n)
	}
	h := ring(n)
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	q := question()
	q.Host = h.Recording.Facts
	o := Defaults
	o.Processes = 10
	r = Run(t.Context(), s, q, o)
	want := []host.Gap{{What: "trace", Why: "bound: 10 processes"}}
	if d := cmp.Diff(want, withoutOrigin(r.Gaps)); d != "" || len(r.Processes) != 10 || len(r.Previous) != 0 {
		t.Errorf("%d processes, candidates %+v, gaps (-want +got):\n%s", len(r.Processes), r.Previous, d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Run(ctx, s, q, Defaults); !slices.Contains(r.Gaps, host.Gap{What: "trace", Why: "bound: deadline"}) || len(r.Channels) != 0 {
		t.Errorf("without time: %d channels, gaps %+v", len(r.Channels), r.Gaps)
	}
}

// What cannot be seen of those who share a file is a gap.
func TestKeptGaps(t *testing.T) {
	refused := errors.New("permission denied")
	h := recording(initProcess, process(60, 1, in(22, other), file("f", host.Write)), process(70, 1, asked(), file("f", host.Read)))
	tests := []struct {
		name string
		c    changing
		want summary
	}{
		{"holders", changing{holders: func(o host.Object, hs []host.Holder) ([]host.Holder, error) {
			if o == "f" {
				return nil, refused
			}
			return hs, nil
		}}, summary{Channels: none, Previous: none, Gaps: []string{"70 holders of the other end of file f: permission denied"}}},
		{"a process", changing{process: func(p host.Process) (host.Process, error) {
			if p.PID == 60 {
				return host.Process{}, refused
			}
			return p, nil
		}}, summary{Channels: []string{"file 60 w, 70 r"}, Previous: none, Gaps: []string{"60 process: permission denied"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap, err := h.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tt.c.Snapshot = snap
			q := question()
			q.Host = h.Recording.Facts
			if d := cmp.Diff(tt.want, summarize(Run(t.Context(), tt.c, q, Defaults), tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
