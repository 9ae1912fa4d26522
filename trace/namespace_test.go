package trace

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// Network namespaces of these tests: the daemon's own, a container's, and one with the same addresses as the
// container's.
const (
	home      = 1
	container = 2
	twin      = 3
)

var inside = netip.MustParseAddr("10.0.0.2")

// contained is a connection of a container; outside of the host it has the own address and the given port.
func contained(ns uint64, port uint16, remote, object string, d host.Direction, outer uint16) host.Descriptor {
	x := tcp(netip.AddrPortFrom(inside, port), remote, object, d)
	x.NetNS = ns
	if outer != 0 {
		x.Outer = &host.Outer{Local: netip.AddrPortFrom(own, outer), Remote: x.Remote, NetNS: home}
	}
	return x
}

func TestNamespaces(t *testing.T) {
	asked := contained(container, 5555, victim.String(), "asked", host.Outbound, 40000)
	shell := func(ds ...host.Descriptor) host.Process {
		return as(1001, process(70, 60, append([]host.Descriptor{asked}, ds...)...))
	}
	login := shell()
	login.Login = &host.Login{Source: host.LoginEnvironment, Remote: netip.MustParseAddrPort(attacker), Local: netip.AddrPortFrom(inside, 22)}
	sameEnds := contained(twin, 5555, victim.String(), "of the twin", host.Outbound, 0)
	within := contained(container, 22, "10.0.0.3:4000", "gone", host.Inbound, 0)
	within.Within = true
	moved := contained(container, 22, attacker, "in", host.Inbound, 0)
	moved.Outer = &host.Outer{Local: moved.Local, Remote: moved.Remote, NetNS: container}
	private := contained(container, 22, "192.0.2.2:4000", "in", host.Inbound, 2222) // what the host's own address means elsewhere
	at := func(p uint16) netip.AddrPort { return netip.AddrPortFrom(own, p) }
	for name, c := range map[string]struct {
		hosts []host.Process
		want  []Previous
	}{
		"translated": {[]host.Process{shell(), process(60, 1, contained(container, 22, attacker, "in", host.Inbound, 2222))},
			[]Previous{{Remote: netip.MustParseAddrPort(attacker), Local: at(2222), PID: 60, Direction: host.Inbound, Reasons: []string{ReasonInbound, ReasonNAT}, Corroborated: true, NetNS: home}}},
		"translated, and the environment says so": {[]host.Process{login, process(60, 1, contained(container, 22, attacker, "in", host.Inbound, 2222))},
			[]Previous{{Remote: netip.MustParseAddrPort(attacker), Local: at(2222), PID: 60, Direction: host.Inbound, Reasons: []string{ReasonInbound, ReasonNAT, ReasonSSHConnection}, Corroborated: true, NetNS: home}}},
		"out by the container's own link": {[]host.Process{shell(), process(60, 1, moved)},
			[]Previous{{Remote: netip.MustParseAddrPort(attacker), Local: moved.Local, PID: 60, Direction: host.Inbound, Reasons: []string{ReasonInbound}, Corroborated: true, NetNS: container}}},
		"from a container of this host that closed it": {[]host.Process{shell(), process(60, 1, within)}, nil},
		"an address that is the host's own, and another's there": {[]host.Process{shell(), process(60, 1, private)},
			[]Previous{{Remote: private.Remote, Local: at(2222), PID: 60, Direction: host.Inbound, Reasons: []string{ReasonInbound, ReasonNAT}, Corroborated: true, NetNS: home}}},
		"a connection with the asked ends in another namespace": {[]host.Process{shell(sameEnds)},
			[]Previous{{Remote: victim, Local: sameEnds.Local, PID: 70, Direction: host.Outbound, Reasons: []string{ReasonJoinedOutbound}, Corroborated: true, NetNS: twin}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &host.Replay{Recording: host.Recording{Processes: append(slices.Clone(c.hosts), initProcess)}}
			snap, err := r.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := host.Socket{Protocol: host.TCP, Local: asked.Local, Remote: asked.Remote, State: asked.State, Direction: host.Outbound, Object: asked.Object, NetNS: container,
				NAT: host.NAT{Original: host.Ends{Local: asked.Local, Remote: asked.Remote}, Translated: host.Ends{Local: at(40000), Remote: asked.Remote}}}
			got := Run(t.Context(), snap, Question{Socket: s, Host: host.Facts{Addresses: []netip.Addr{own, alsoOwn}, NetNS: home}}, Defaults)
			if d := cmp.Diff(c.want, got.Previous, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
