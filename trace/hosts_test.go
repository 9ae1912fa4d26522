package trace

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
)

// The host of these tests.
var (
	own      = netip.MustParseAddr("192.0.2.2")
	alsoOwn  = netip.MustParseAddr("198.51.100.2")
	victim   = netip.MustParseAddrPort("203.0.113.9:22")
	loopback = netip.MustParseAddr("127.0.0.1")
)

// asked is the connection that the question is about, as its owner holds it.
func asked() host.Descriptor { return out(40000, victim.String(), "asked") }

// process makes a process of root; as makes it another user's.
func process(pid, ppid int, ds ...host.Descriptor) host.Process {
	for i := range ds {
		if ds[i].FDs == nil {
			ds[i].FDs = []int{i}
		}
	}
	return host.Process{PID: pid, PPID: &ppid, StartTicks: uint64(1000 + pid), Name: "p" + strconv.Itoa(pid), RUID: new(uint32(0)), EUID: new(uint32(0)), Descriptors: ds}
}

func as(uid uint32, p host.Process) host.Process {
	p.RUID, p.EUID, p.RUser = &uid, &uid, "user"+strconv.Itoa(int(uid))
	return p
}

func tcp(local netip.AddrPort, remote, object string, d host.Direction) host.Descriptor {
	return host.Descriptor{Kind: host.TCP, Mode: host.ReadWrite, Object: host.Object(object), Local: local,
		Remote: netip.MustParseAddrPort(remote), State: "ESTABLISHED", Direction: d}
}

func out(port uint16, remote, object string) host.Descriptor {
	return tcp(netip.AddrPortFrom(own, port), remote, object, host.Outbound)
}

// in is a connection from another host.
func in(port uint16, remote string) host.Descriptor {
	return tcp(netip.AddrPortFrom(own, port), remote, "from "+remote, host.Inbound)
}

func listen(port uint16) host.Descriptor {
	return host.Descriptor{Kind: host.TCP, Object: host.Object("listen " + strconv.Itoa(int(port))),
		Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port), State: "LISTEN"}
}

// local is a connection within the host: the client's end and the server's.
func local(kind host.Kind, from, to uint16) (client, server host.Descriptor) {
	c, s := netip.AddrPortFrom(loopback, from), netip.AddrPortFrom(loopback, to)
	client = host.Descriptor{Kind: kind, Object: host.Object(fmt.Sprint(kind, from)), Peer: host.Object(fmt.Sprint(kind, from, "at", to)),
		Local: c, Remote: s, State: "ESTABLISHED", Direction: host.Outbound}
	server = host.Descriptor{Kind: kind, Object: client.Peer, Peer: client.Object, Local: s, Remote: c, State: "ESTABLISHED", Direction: host.Inbound}
	return client, server
}

func pipe(name string, m host.Mode) host.Descriptor {
	return host.Descriptor{Kind: host.Pipe, Object: host.Object(name), Peer: host.Object(name), Mode: m}
}

func fifo(path string, m host.Mode) host.Descriptor {
	d := pipe("fifo "+path, m)
	d.Kind, d.Path = host.FIFO, path
	return d
}

// unix is a connection to a listener with a path; without one it is a socketpair.
func unix(client, path string) (c, s host.Descriptor) {
	c = host.Descriptor{Kind: host.Unix, Mode: host.ReadWrite, Object: host.Object(client), Peer: host.Object(client + " at " + path), Type: "stream", PeerPath: path}
	s = host.Descriptor{Kind: host.Unix, Mode: host.ReadWrite, Object: c.Peer, Peer: c.Object, Type: "stream", Path: path}
	return c, s
}

// pty is the two sides of a pseudo terminal.
func pty(n int) (master, slave host.Descriptor) {
	m, s := host.Object(fmt.Sprint("ptm", n)), host.Object(fmt.Sprint("pts", n))
	master = host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Object: m, Peer: s, Side: host.Master, Number: &n, Path: "/dev/ptmx"}
	slave = host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Object: s, Peer: m, Side: host.Slave, Number: &n, Path: fmt.Sprint("/dev/pts/", n)}
	return master, slave
}

// with returns a descriptor in another mode.
func with(m host.Mode, d host.Descriptor) host.Descriptor {
	d.Mode = m
	return d
}

// number returns a descriptor with the given number.
func number(n int, d host.Descriptor) host.Descriptor {
	d.FDs = []int{n}
	return d
}

func recording(ps ...host.Process) *host.Replay {
	return &host.Replay{Recording: host.Recording{
		Facts:     host.Facts{Addresses: []netip.Addr{own, alsoOwn, loopback}},
		Processes: ps,
	}}
}

func question() Question {
	d := asked()
	return Question{Socket: host.Socket{Protocol: d.Kind, Local: d.Local, Remote: d.Remote, State: d.State, Direction: d.Direction, Object: d.Object, Inode: 1}}
}

// run asks about the connection to the victim.
func run(t testing.TB, h *host.Replay) Result {
	t.Helper()
	q := question()
	q.Host = h.Recording.Facts
	return runSnapshot(t, h, q)
}

func runSnapshot(t testing.TB, h host.Host, q Question) Result {
	t.Helper()
	s, err := h.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return Run(context.Background(), s, q, Defaults)
}

// A summary is what a test says of a result: only what is not nil is compared.
type summary struct {
	Owners    []int
	Processes []string // "pid role by from"
	Channels  []string // "kind pid mode, pid mode" with why where it is not followed
	Previous  []string // "remote reasons"
	Gaps      []string // "pid what: why"
}

func summarize(r Result, only summary) summary {
	var s summary
	if only.Owners != nil {
		s.Owners = append([]int{}, r.Owners...)
	}
	if only.Processes != nil {
		s.Processes = []string{}
		for _, p := range r.Processes {
			line := fmt.Sprintf("%d %s %s", p.PID, p.Role, p.Via.By)
			if p.Via.From != nil {
				line += fmt.Sprintf(" %d", r.Processes[*p.Via.From-1].PID)
			}
			s.Processes = append(s.Processes, line)
		}
	}
	if only.Channels != nil {
		s.Channels = []string{}
		for _, c := range r.Channels {
			s.Channels = append(s.Channels, channelText(c))
		}
	}
	if only.Previous != nil {
		s.Previous = []string{}
		for _, p := range r.Previous {
			line := p.Remote.String() + " " + strings.Join(p.Reasons, ",")
			if !p.Corroborated {
				line += " uncorroborated"
			}
			s.Previous = append(s.Previous, line)
		}
	}
	if only.Gaps != nil {
		s.Gaps = []string{}
		for _, g := range withoutOrigin(r.Gaps) {
			s.Gaps = append(s.Gaps, fmt.Sprintf("%d %s: %s", g.PID, g.What, g.Why))
		}
	}
	return s
}

// withoutOrigin leaves out what every host has to say of a process that nobody is behind: TestOrigin looks at that.
func withoutOrigin(gs []host.Gap) []host.Gap {
	return slices.DeleteFunc(slices.Clone(gs), func(g host.Gap) bool { return g.What == "origin" })
}

func channelText(c Channel) string {
	var ends []string
	for _, e := range c.Ends {
		ends = append(ends, fmt.Sprintf("%d %s", e.PID, cmp.Or(e.Mode, "?")))
	}
	s := string(c.Kind) + " " + strings.Join(ends, ", ")
	if !c.Complete {
		s += ", incomplete"
	}
	if !c.Followed {
		s += ": " + c.Why
	}
	return s
}
