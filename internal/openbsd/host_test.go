package openbsd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/host/hosttest"
	"github.com/stopd/stopd/trace"
)

// Both ends of the recorded connection.
const (
	serverEnd = "127.0.0.1:2222"
	clientEnd = "127.0.0.1:46069"
)

// What root saw, as the probe's own transcript has it: a server that accepted a connection for its child, which has a terminal,
// a pipe to a third process and two pairs of UNIX sockets.
func TestRecordedHost(t *testing.T) {
	process := func(pid, ppid int, id uint32, session int) hosttest.Process {
		return hosttest.Process{PID: pid, PPID: ppid, Name: "probe", UID: id, GID: id, Session: session, PGRP: session}
	}
	both := func(fd int) []hosttest.End {
		return []hosttest.End{{PID: 26306, FD: fd, Mode: host.ReadWrite}, {PID: 92493, FD: fd, Mode: host.ReadWrite}}
	}
	one := func(pid, fd int) []hosttest.End { return []hosttest.End{{PID: pid, FD: fd, Mode: host.ReadWrite}} }
	a := hosttest.Arrangement{
		Processes: []hosttest.Process{process(26306, 92493, 1001, 26306), process(13153, 81187, 1001, 0), process(92493, 81187, 0, 0),
			process(11513, 91072, 1001, 0), process(81187, 91072, 0, 0), process(91072, 1, 0, 0)},
		Connections: []hosttest.Connection{
			{Name: "server", Flow: flow(host.TCP, serverEnd, clientEnd), State: "ESTABLISHED", Direction: host.Inbound, Holders: both(3)},
			{Name: "client", Flow: flow(host.TCP, clientEnd, serverEnd), State: "ESTABLISHED", Direction: host.Outbound, UID: 1001, Holders: one(11513, 6)},
			{Name: "datagrams", Flow: flow(host.UDP, "127.0.0.1:28836", "127.0.0.1:9"), State: "ESTABLISHED", Direction: host.Outbound, UID: 1001, Holders: one(26306, 12)},
		},
		Channels: []hosttest.Channel{
			{Name: "pipe", Kind: host.Pipe, Sides: []hosttest.Side{{Holders: both(4), Peers: true}, {Holders: one(13153, 3), Peers: true}}},
			{Name: "unix pair", Kind: host.Unix, Sides: []hosttest.Side{{Holders: both(6), Type: "stream", Peers: true}, {Holders: both(7), Type: "stream", Peers: true}}},
			{Name: "unix path", Kind: host.Unix, Sides: []hosttest.Side{
				{Holders: one(92493, 12), Path: "/tmp/x.sock", Type: "stream", Peers: true},
				{Holders: one(26306, 11), PeerPath: "/tmp/x.sock", Type: "stream", Peers: true}}},
			{Name: "terminal", Kind: host.PTY, Sides: []hosttest.Side{
				{Holders: both(5), Path: "/dev/ptyp0", Side: host.Master, Peers: true},
				{Holders: []hosttest.End{{PID: 26306, FD: 0, Mode: host.ReadWrite}, {PID: 26306, FD: 1, Mode: host.ReadWrite}, {PID: 26306, FD: 2, Mode: host.ReadWrite}},
					Path: "/dev/ttyp0", Side: host.Slave, Peers: true}}},
		},
		Absent: []host.Flow{flow(host.TCP, serverEnd, "127.0.0.1:1"), flow(host.TCP, "127.0.0.1:2223", clientEnd), flow(host.UDP, serverEnd, clientEnd)},
		Ended:  99999,
	}
	hosttest.Run(t, recorded(t, "root"), a)
}

// A connection that nobody holds is found, without an owner.
func TestUnheld(t *testing.T) {
	h := recorded(t, "root")
	s, err := h.Find(t.Context(), flow(host.TCP, serverEnd, "127.0.0.1:46070"))
	if err != nil || s.Object != "" || s.State != "TIME-WAIT" {
		t.Errorf("%+v, %v", s, err)
	}
}

// summary is what a trace found, in words.
type summary struct {
	Owners    []int
	Processes []string
	Channels  []string
	Gaps      []string
}

func traced(t *testing.T, h *Host, f host.Flow) summary {
	t.Helper()
	s, err := h.Find(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	facts, _ := h.Facts(t.Context())
	r := trace.Run(t.Context(), snap, trace.Question{Socket: s, Host: facts}, trace.Defaults)
	if len(r.Previous) > 0 { // all connections are with the host itself
		t.Errorf("previous hosts: %+v", r.Previous)
	}
	sum := summary{Owners: r.Owners}
	for _, p := range r.Processes {
		sum.Processes = append(sum.Processes, fmt.Sprintf("%d %s %s", p.PID, p.Role, p.Via.By))
	}
	for _, c := range r.Channels {
		var ends []string
		for _, e := range c.Ends {
			ends = append(ends, fmt.Sprintf("%d %v", e.PID, e.FDs))
		}
		how := "listed"
		if c.Followed {
			how = "followed"
		}
		sum.Channels = append(sum.Channels, fmt.Sprintf("%s %s: %s", c.Kind, how, strings.Join(ends, ", ")))
	}
	for _, g := range r.Gaps {
		if !slices.Contains([]string{"arguments", "environment", "working directory"}, g.What) { // which were not recorded
			sum.Gaps = append(sum.Gaps, fmt.Sprintf("%d %s: %s", g.PID, g.What, g.Why))
		}
	}
	return sum
}

// The trace over what root saw finds all that the recording's transcript shows to be joined; over what a user saw the
// connection's holders and the terminal, whose numbers are told to everybody, and a gap for each process whose other ends are not.
func TestRecordedTrace(t *testing.T) {
	untold := func(pid, n int) string {
		return fmt.Sprintf("%d other ends of %d descriptors: the kernel tells root alone", pid, n)
	}
	// What trace says of any host where a connection leads back to the host itself.
	readers := func(pid, fd int) string {
		return fmt.Sprintf("%d writers to descriptor %d: not considered: others' processes read it as well, and what each of them was told is not kept", pid, fd)
	}
	const (
		datagrams = "26306 senders to descriptor 12: nobody has the address that it hears from: who had it is not kept"
		origin    = "91072 origin: the first process started or adopted it, and on whose request is not kept"
	)
	for _, tt := range []struct {
		who  string
		want summary
	}{
		{"root", summary{
			Owners: []int{11513},
			Processes: []string{"11513 primary owner", "91072 primary parent", "1 primary parent",
				"26306 resolved channel", "92493 resolved parent", "81187 resolved parent", "13153 resolved channel"},
			Channels: []string{
				"tty listed: 13153 [1 2], 92493 [1 2], 11513 [1 2], 81187 [1 2], 91072 [0 1 2], 1 [0 1 2]",
				"tcp followed: 11513 [6], 26306 [3], 92493 [3]",
				"pty followed: 26306 [0 1 2], 26306 [5], 92493 [5]",
				"pipe followed: 26306 [4], 92493 [4], 13153 [3]",
				"unix followed: 26306 [6], 92493 [6], 26306 [7], 92493 [7]",
				"unix followed: 26306 [11], 92493 [12]",
			},
			Gaps: []string{datagrams, readers(11513, 6), readers(26306, 3), readers(92493, 3), readers(26306, 4), readers(92493, 4), readers(13153, 3), origin},
		}},
		{"user", summary{
			Owners: []int{11513},
			Processes: []string{"11513 primary owner", "91072 primary parent", "1 primary parent",
				"26306 resolved channel", "92493 resolved parent", "81187 resolved parent"},
			Channels: []string{
				"tty listed: 83258 [1 2], 13153 [1 2], 92493 [1 2], 11513 [1 2], 81187 [1 2], 91072 [0 1 2], 1 [0 1 2]",
				"tcp followed: 11513 [6], 26306 [3], 92493 [3]",
				"pty followed: 26306 [0 1 2], 26306 [5], 92493 [5]",
			},
			Gaps: []string{datagrams, readers(11513, 6), readers(26306, 3), readers(92493, 3), origin,
				untold(26306, 7), untold(92493, 7), untold(11513, 2), untold(81187, 2), untold(91072, 2)},
		}},
	} {
		t.Run(tt.who, func(t *testing.T) {
			got := traced(t, recorded(t, tt.who), flow(host.TCP, clientEnd, serverEnd))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
