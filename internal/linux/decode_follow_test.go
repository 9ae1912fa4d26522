package linux

import (
	"net/netip"
	"testing"
)

// What TestRecordRoutes recorded of Linux 6.18 on amd64.
var (
	recordedRoutes = []struct {
		name, to string
		want     route
	}{
		{"route4-onlink", "192.0.2.7", route{next: netip.MustParseAddr("192.0.2.7"), link: 10}},
		{"route6-onlink", "2001:db8::7", route{next: netip.MustParseAddr("2001:db8::7"), link: 10}},
		{"route4-gateway", "198.51.100.7", route{next: netip.MustParseAddr("192.0.2.9"), link: 10}},
		{"route6-gateway", "2001:db8:1::7", route{next: netip.MustParseAddr("2001:db8::9"), link: 10}},
		{"route4-via6", "203.0.113.7", route{next: netip.MustParseAddr("2001:db8::9"), link: 10}},
		{"route4-local", "192.0.2.1", route{local: true, next: netip.MustParseAddr("192.0.2.1"), link: 1}},
		{"route6-local", "2001:db8::1", route{local: true, next: netip.MustParseAddr("2001:db8::1"), link: 1}},
		{"no route", "10.9.9.9", route{}},
		{"blackhole", "203.0.113.129", route{}},
		{"unreachable", "203.0.113.161", route{}},
		{"prohibit", "203.0.113.193", route{}},
		{"no route, IPv6", "fd00::9", route{}},
		{"blackhole, IPv6", "2001:db8:2::9", route{}},
		{"unreachable, IPv6", "2001:db8:3::9", route{}},
		{"prohibit, IPv6", "2001:db8:4::9", route{}},
	}
	recordedLinks = []struct {
		name string
		far  bool
		want link
	}{
		{"link-loopback", false, link{index: 1, nsid: noNSID}},
		{"link-veth", false, link{index: 10, kind: "veth", other: 11, nsid: noNSID}},
		{"link-bridge", false, link{index: 12, kind: "bridge", nsid: noNSID}},
		{"link-port", false, link{index: 13, kind: "veth", other: 2, nsid: 0, master: 12}},
		{"link-macvlan", false, link{index: 14, kind: "macvlan", other: 10, nsid: noNSID}},
		{"link-veth-back", true, link{index: 2, kind: "veth", other: 13, nsid: 0}},
		{"link-macvlan-upon-another", true, link{index: 3, kind: "macvlan", other: 10, nsid: 0}},
	}
)

func TestParseRoutesRecorded(t *testing.T) {
	for _, c := range recordedRoutes {
		if c.want.link == 0 {
			continue // that is an error, without a message
		}
		if got, err := parseRoute(netip.MustParseAddr(c.to), recordedBy(t, "rtnetlink", c.name)); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	for _, c := range recordedLinks {
		if got, err := parseLink(recordedBy(t, "rtnetlink", c.name)); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	for name, want := range map[string]int32{"nsid": 0, "nsid-none": nsidNotAssigned} {
		if got, err := parseNSID(recordedBy(t, "rtnetlink", name)); got != want || err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}
