package posix

import (
	"net/netip"
	"testing"

	"github.com/stopd/stopd/host"
)

// Two ends find each other. Where one of them is that of several sockets neither has another end, whichever of them came first.
func TestPairs(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	of := func(o host.Object, local, remote netip.AddrPort) host.Descriptor {
		return host.Descriptor{Kind: host.TCP, Object: o, Local: local, Remote: remote}
	}
	near, far, listener := of("near", a, b), of("far", b, a), of("listener", b, netip.AddrPort{})
	twin, unknown := of("twin", a, b), of("", b, a)
	for _, tt := range []struct {
		name   string
		all    []host.Descriptor
		of     host.Descriptor
		want   host.Object
		err    error
		oneErr error
	}{
		{"two", []host.Descriptor{near, far, near, far}, near, "far", nil, nil},
		{"the other way", []host.Descriptor{near, far}, far, "near", nil, nil},
		{"elsewhere", []host.Descriptor{near, listener, unknown}, near, "", nil, nil},
		{"nobody's", []host.Descriptor{near, far, listener}, listener, "", nil, nil},
		{"two at the other end", []host.Descriptor{twin, near, far}, far, "", ErrStacks, nil},
		{"one of two", []host.Descriptor{near, twin, far}, near, "", ErrStacks, ErrStacks},
		{"the other of two", []host.Descriptor{near, twin, near, far}, twin, "", ErrStacks, ErrStacks},
		{"one of two, elsewhere", []host.Descriptor{near, twin}, near, "", nil, ErrStacks},
	} {
		var p Pairs
		for _, d := range tt.all {
			p.Add(d)
		}
		if o, err := p.Peer(tt.of); o != tt.want || err != tt.err || p.One(tt.of) != tt.oneErr {
			t.Errorf("%s: %q, %v, %v", tt.name, o, err, p.One(tt.of))
		}
	}
}
