package trace

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// attacker is where the connection comes from that a trace should find; the others are other people's.
const (
	attacker = "203.0.113.5:51000"
	other    = "203.0.113.77:52000"
	third    = "203.0.113.78:53000"
)

var (
	initProcess = process(1, 0)
	none        = []string{}
)

func TestRun(t *testing.T) {
	socketA, socketB := unix("relay", "")
	clientA, serverA := unix("a", "/run/relay")
	tcpClient, tcpServer := local(host.TCP, 41000, 9000)
	udpClient, udpServer := local(host.UDP, 41000, 9000)
	master, slave := pty(3)
	master4, slave4 := pty(4)
	dgram, log := unix("log", "/dev/log")
	dgramOther := dgram
	dgramOther.Object, log.Peer = "log of another", ""

	tests := []struct {
		name  string
		hosts []host.Process
		want  summary
	}{
		{
			name:  "parents up to the first process",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker)), process(60, 50), process(70, 60, asked())},
			want: summary{
				Owners:    []int{70},
				Processes: []string{"70 primary owner", "60 primary parent 70", "50 primary parent 60", "1 primary parent 50"},
				Previous:  []string{attacker + " inbound"},
				Gaps:      none,
			},
		},
		{
			name:  "several owners",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker), asked()), process(60, 1, in(22, other)), process(70, 60, asked())},
			want: summary{
				Owners:    []int{50, 70},
				Processes: []string{"50 primary owner", "1 primary parent 50", "70 primary owner", "60 primary parent 70"},
				Previous:  []string{attacker + " inbound", other + " inbound"},
			},
		},
		{
			name:  "an owner that is another's ancestor",
			hosts: []host.Process{process(70, 60, asked()), process(60, 50, asked()), process(50, 1, in(22, attacker)), initProcess},
			want: summary{
				Owners:    []int{70, 60},
				Processes: []string{"70 primary owner", "60 primary parent 70", "50 primary parent 60", "1 primary parent 50"},
				Previous:  []string{attacker + " inbound"},
				Gaps:      none,
			},
		},
		{
			name:  "nobody owns it",
			hosts: []host.Process{initProcess, process(60, 1, in(22, other))},
			want:  summary{Owners: []int{}, Processes: none, Previous: none, Gaps: []string{"0 owners: no process was found that holds the socket: it may be the kernel's own, or on its way between processes"}},
		},
		{
			name:  "a parent younger than its child is not its parent",
			hosts: []host.Process{initProcess, process(90, 1, in(22, other)), process(70, 90, asked())},
			want: summary{
				Processes: []string{"70 primary owner"},
				Previous:  none,
				Gaps:      []string{"70 parent: process 90 is younger than its child: the pid was used again"},
			},
		},
		{
			name:  "a parent that has ended",
			hosts: []host.Process{initProcess, process(70, 60, asked())},
			want:  summary{Processes: []string{"70 primary owner"}, Gaps: []string{"60 process: not found"}},
		},
		{
			name: "nor where it is in the closure already",
			hosts: []host.Process{initProcess, process(40, 1, pipe("log", host.Read)), process(60, 1, asked(), pipe("log", host.Write), pipe("p", host.Read)),
				process(70, 90, pipe("p", host.Write)), process(90, 1, in(22, other), pipe("log", host.Write))},
			want: summary{
				Processes: []string{"60 primary owner", "1 primary parent 60", "40 resolved channel 60", "90 resolved channel 40", "70 resolved channel 60"},
				Previous:  none,
				Gaps:      []string{"70 parent: process 90 is younger than its child: the pid was used again"},
			},
		},
		{
			name: "a pipe feeds the owner",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), pipe("p", host.Write)),
				process(70, 1, pipe("p", host.Read), asked())},
			want: summary{
				Processes: []string{"70 primary owner", "1 primary parent 70", "50 resolved channel 70"},
				Channels:  []string{"pipe 50 w, 70 r"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "a pipe takes what the owner receives",
			hosts: []host.Process{initProcess, process(50, 1, out(41000, attacker, "back"), pipe("p", host.Read)),
				process(70, 1, pipe("p", host.Write), asked())},
			want: summary{Channels: []string{"pipe 50 r, 70 w"}, Previous: []string{attacker + " joined-outbound"}},
		},
		{
			name: "writers of one log are not joined to each other",
			hosts: []host.Process{initProcess, process(40, 1, pipe("log", host.Read)),
				process(60, 1, in(80, other), pipe("log", host.Write)), process(70, 1, in(8080, attacker), pipe("log", host.Write), asked())},
			want: summary{Channels: []string{"pipe 40 r, 60 w, 70 w"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "one logger reads the pipes of two services",
			hosts: []host.Process{initProcess, process(40, 1, pipe("log a", host.Read), pipe("log b", host.Read)),
				process(60, 1, in(80, other), pipe("log a", host.Write)), process(70, 1, in(8080, attacker), pipe("log b", host.Write), asked())},
			want: summary{Channels: []string{"pipe 40 r, 70 w", "pipe 40 r, 60 w"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name:  "a pipe whose other end nobody holds",
			hosts: []host.Process{initProcess, process(70, 1, pipe("p", host.Read), asked())},
			want:  summary{Channels: []string{"pipe 70 r, incomplete"}, Previous: none, Gaps: none},
		},
		{
			name:  "a pipe to itself",
			hosts: []host.Process{initProcess, process(70, 1, pipe("p", host.Read), number(9, pipe("p", host.Write)), asked())},
			want:  summary{Channels: none, Previous: none},
		},
		{
			name: "FIFO",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), fifo("/tmp/f", host.Write)),
				process(70, 1, fifo("/tmp/f", host.Read), asked())},
			want: summary{Channels: []string{"fifo 50 w, 70 r"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "UNIX socket",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), clientA),
				process(70, 1, serverA, asked())},
			want: summary{Channels: []string{"unix 70 rw, 50 rw"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "socketpair",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), socketA),
				process(70, 1, socketB, asked())},
			want: summary{Channels: []string{"unix 70 rw, 50 rw"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "datagrams to the owner",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), with(host.Write, dgram)),
				process(70, 1, log, asked())},
			want: summary{Channels: []string{"unix 70 rw, 50 w"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "who writes to the same datagram socket is not joined",
			hosts: []host.Process{initProcess, process(40, 1, log), process(60, 1, in(80, other), with(host.Write, dgramOther)),
				process(70, 1, in(8080, attacker), with(host.Write, dgram), asked())},
			want: summary{Channels: []string{"unix 70 w, 40 rw", "unix 40 rw, 60 w"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "terminal: the owner is on the slave side",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker), master), process(60, 50, slave),
				process(65, 50, slave, in(80, other)), process(70, 1, slave, asked())},
			want: summary{
				Processes: []string{"70 primary owner", "1 primary parent 70", "50 resolved channel 70"},
				Channels:  []string{"pty 60 rw, 65 rw, 70 rw, 50 rw"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "terminal: the owner is on the master side",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker), slave),
				process(70, 1, master, asked())},
			want: summary{Channels: []string{"pty 70 rw, 50 rw"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "terminal: a relay through two",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker), master4), process(60, 1, slave4, master),
				process(70, 1, slave, asked())},
			want: summary{Channels: []string{"pty 70 rw, 60 rw", "pty 60 rw, 50 rw"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "TCP within the host",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), tcpClient),
				process(70, 1, listen(9000), tcpServer, asked())},
			want: summary{Channels: []string{"tcp 70 ?, 50 ?"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "UDP within the host",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), udpServer),
				process(70, 1, udpClient, asked())},
			want: summary{Channels: []string{"udp 70 ?, 50 ?"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name: "nothing continues through the first process",
			hosts: []host.Process{process(1, 0, pipe("to init", host.Read), pipe("another's", host.Read)),
				process(60, 1, in(80, other), pipe("another's", host.Write)), process(70, 1, pipe("to init", host.Write), asked())},
			want: summary{
				Processes: []string{"70 primary owner", "1 primary parent 70"},
				Channels:  []string{"pipe 1 r, 70 w: init"},
				Previous:  none,
			},
		},
		{
			name: "the first process holds what others hold too",
			hosts: []host.Process{process(1, 0, pipe("a", ""), pipe("b", "")), process(50, 1, in(8888, attacker), pipe("a", "")),
				process(60, 1, in(80, other), pipe("b", "")), process(70, 1, pipe("a", ""), asked())},
			want: summary{
				Processes: []string{"70 primary owner", "1 primary parent 70", "50 resolved channel 70"},
				Channels:  []string{"pipe 1 ?, 50 ?, 70 ?"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "nor is it found by what it holds",
			hosts: []host.Process{process(1, 0, pipe("a", ""), in(80, other)), process(50, 40, in(8888, attacker), pipe("a", "")),
				process(70, 60, pipe("a", ""), asked())},
			want: summary{
				Processes: []string{"70 primary owner", "50 resolved channel 70"},
				Channels:  []string{"pipe 1 ?, 50 ?, 70 ?"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name:  "the first process as owner",
			hosts: []host.Process{process(1, 0, pipe("p", host.Read), asked()), process(50, 1, in(8888, attacker), pipe("p", host.Write))},
			want: summary{
				Processes: []string{"1 primary owner", "50 resolved channel 1"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "a listener's pipes are its other clients'",
			hosts: []host.Process{initProcess, process(22, 1, listen(22), pipe("startup", host.Read)),
				process(60, 22, in(22, other), pipe("startup", host.Write)),
				process(50, 22, in(22, attacker)), process(70, 50, asked())},
			want: summary{
				Processes: []string{"70 primary owner", "50 primary parent 70", "22 primary parent 50", "1 primary parent 22"},
				Channels:  []string{"pipe 22 r, 60 w: listener: it accepted the connection of its child"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "nor are they followed from their other end",
			hosts: []host.Process{initProcess, process(22, 1, listen(22), pipe("startup", host.Read)),
				process(40, 1, pipe("log", host.Read)),
				process(60, 22, pipe("startup", host.Write), pipe("log", host.Write), in(22, other)),
				process(50, 22, in(22, attacker)), process(70, 50, asked(), pipe("log", host.Write))},
			want: summary{
				Channels: []string{"pipe 40 r, 60 w, 70 w", "pipe 22 r, 60 w: listener: it accepted the connection of its child"},
				Previous: []string{attacker + " inbound"},
			},
		},
		{
			name: "a parent that listens and did not accept what its child has",
			hosts: []host.Process{initProcess, process(22, 1, listen(8888), pipe("commands", host.Read)),
				process(50, 22, in(8888, attacker), pipe("commands", host.Write)), process(70, 22, asked())},
			want: summary{Channels: []string{"pipe 22 r, 50 w"}, Previous: []string{attacker + " inbound"}},
		},
		{
			name:  "a mere ancestor's outbound connections are its own business",
			hosts: []host.Process{initProcess, process(50, 1, in(22, attacker), out(41000, other, "own business")), process(70, 50, asked())},
			want:  summary{Previous: []string{attacker + " inbound"}},
		},
		{
			name: "outbound connections where data is joined",
			hosts: []host.Process{initProcess, process(50, 1, out(41000, attacker, "commands"), pipe("p", host.Write)),
				process(70, 1, pipe("p", host.Read), asked())},
			want: summary{Previous: []string{attacker + " joined-outbound"}},
		},
		{
			name:  "outbound connections of the owner itself",
			hosts: []host.Process{initProcess, process(70, 1, out(41000, attacker, "commands"), asked())},
			want:  summary{Previous: []string{attacker + " joined-outbound"}},
		},
		{
			name: "what is of this host is never a previous host",
			hosts: []host.Process{initProcess, process(70, 1, asked(),
				tcp(netip.AddrPortFrom(loopback, 22), "127.0.0.1:41001", "loopback", host.Inbound),
				tcp(netip.AddrPortFrom(own, 22), "192.0.2.2:41002", "asked address", host.Inbound),
				tcp(netip.AddrPortFrom(own, 22), "198.51.100.2:41003", "other address", host.Inbound),
				tcp(netip.MustParseAddrPort("[::1]:22"), "[::1]:41004", "loopback 6", host.Inbound),
				tcp(netip.AddrPortFrom(own, 22), "[::ffff:198.51.100.2]:41005", "mapped", host.Inbound))},
			want: summary{Previous: none},
		},
		{
			name: "sockets that are no connection",
			hosts: []host.Process{initProcess, process(70, 1, asked(), listen(22),
				func() host.Descriptor { d := out(41000, other, "trying"); d.State = "SYN-SENT"; return d }(),
				func() host.Descriptor { d := out(41001, other, "closed"); d.State = "CLOSED"; return d }())},
			want: summary{Previous: none},
		},
		{
			name:  "unknown direction",
			hosts: []host.Process{initProcess, process(50, 1, tcp(netip.AddrPortFrom(own, 22), attacker, "x", host.UnknownDirection)), process(70, 50, asked(), tcp(netip.AddrPortFrom(own, 23), third, "y", ""))},
			want:  summary{Previous: []string{third + " unknown-direction", attacker + " unknown-direction"}},
		},
		{
			name: "channels in a circle",
			hosts: []host.Process{initProcess, process(50, 1, pipe("c", host.Read), pipe("b", host.Write), in(8888, attacker)),
				process(60, 1, pipe("b", host.Read), pipe("a", host.Write)),
				process(70, 1, pipe("a", host.Read), pipe("c", host.Write), asked())},
			want: summary{
				Processes: []string{"70 primary owner", "1 primary parent 70", "60 resolved channel 70", "50 resolved channel 60"},
				Channels:  []string{"pipe 60 w, 70 r", "pipe 50 w, 60 r", "pipe 50 r, 70 w"},
				Previous:  []string{attacker + " inbound"},
			},
		},
		{
			name: "a descriptor without a number",
			hosts: []host.Process{initProcess, process(50, 1, in(8888, attacker), func() host.Descriptor { d := pipe("p", host.Write); d.FDs = []int{}; return d }()),
				process(70, 1, pipe("p", host.Read), asked())},
			want: summary{Channels: []string{"pipe 50 w, 70 r"}, Previous: []string{attacker + " inbound"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, recording(tt.hosts...))
			if d := cmp.Diff(tt.want, summarize(r, tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
