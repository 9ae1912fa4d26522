package posix

import (
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/stopd/stopd/host"
)

// A socket is found with all its holders, and by any address of the host where that is asked for; of two with the same ends none is.
func TestHeld(t *testing.T) {
	a, b, other := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("203.0.113.2:2"), netip.MustParseAddrPort("192.0.2.9:1")
	anywhere := netip.MustParseAddrPort("0.0.0.0:1")
	of := func(pid int, uid uint32, o host.Object, local netip.AddrPort) host.Process {
		return host.Process{PID: pid, EUID: &uid, Descriptors: []host.Descriptor{{Kind: host.TCP, Object: o, Local: local, Remote: b}}}
	}
	for _, tt := range []struct {
		name  string
		ps    []host.Process
		local netip.AddrPort
		want  host.Object
		uid   uint32
		users map[int]uint32
		err   error
	}{
		{"one", []host.Process{of(5, 10, "x", a)}, a, "x", 10, map[int]uint32{5: 10}, nil},
		{"of one user", []host.Process{of(5, 10, "x", a), of(6, 10, "x", a)}, a, "x", 10, map[int]uint32{5: 10, 6: 10}, nil},
		{"of two users", []host.Process{of(5, 0, "x", a), of(6, 10, "x", a), of(7, 0, "x", a)}, a, "x", UnknownUID, map[int]uint32{5: 0, 6: 10, 7: 0}, nil},
		{"by any address", []host.Process{of(5, 10, "x", a), of(6, 11, "y", other)}, anywhere, "x", 10, map[int]uint32{5: 10}, nil},
		{"by another address", []host.Process{of(5, 10, "x", a)}, other, "", 0, nil, host.ErrNotFound},
		{"of two stacks", []host.Process{of(5, 10, "x", a), of(6, 10, "y", a)}, a, "", 0, nil, ErrStacks},
		{"of two stacks by any address", []host.Process{of(5, 10, "x", a), of(6, 10, "y", a)}, anywhere, "", 0, nil, ErrStacks},
		{"of unknown identity", []host.Process{of(5, 10, "", a)}, a, "", 0, nil, host.ErrNotFound},
	} {
		s, users, err := Held(tt.ps, host.Flow{Protocol: host.TCP, Local: tt.local, Remote: b})
		if s.Object != tt.want || s.UID != tt.uid || !maps.Equal(users, tt.users) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v, %v, %v", tt.name, s, users, err)
		}
	}
}
