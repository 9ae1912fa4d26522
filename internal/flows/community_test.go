package flows

import (
	"net/netip"
	"testing"
)

// The specification's baseline (github.com/corelight/community-id-spec, baseline/baseline_deflt.json and baseline_seed1.json), of
// the protocols with ports.
func TestCommunityID(t *testing.T) {
	for _, v := range []struct {
		protocol   uint8
		a, b       string
		seed0, one string
	}{
		{TCP, "[2001:470:e5bf:dead:4957:2174:e82c:4887]:63943", "[2607:f8b0:400c:c03::1a]:25", "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=", "1:eJYTW6AOzFLlSUoESovMjnu7rMw="},
		{SCTP, "192.168.170.8:7", "192.168.170.56:7", "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=", "1:5w3ZRjeKBzqT3zsaEECDGjUbYeg="},
		{TCP, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:3V71V58M3Ksw/yuFALMcW0LAHvc="},
		{UDP, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ=", "1:Q9We8WO3piVF8yEQBNJF4uiSVrI="},
	} {
		a, b := netip.MustParseAddrPort(v.a), netip.MustParseAddrPort(v.b)
		for seed, want := range []string{v.seed0, v.one} {
			for _, ends := range [][2]netip.AddrPort{{a, b}, {b, a}} {
				if got := CommunityID(v.protocol, ends[0], ends[1], uint16(seed)); got != want {
					t.Errorf("%d %v seed %d: %s, not %s", v.protocol, ends, seed, got, want)
				}
			}
			if !IsCommunityID(want) {
				t.Errorf("%s is said to be no Community ID", want)
			}
		}
	}
	// One address with two ports: the ports decide.
	a, b := netip.MustParseAddrPort("192.0.2.7:9"), netip.MustParseAddrPort("192.0.2.7:10")
	if CommunityID(TCP, a, b, 0) != CommunityID(TCP, b, a, 0) {
		t.Error("the two directions of a connection within a host differ")
	}
	for _, s := range []string{"", "1:", "2:LQU9qZlK+B5F3KDmev6m5PMibrg=", "1:LQU9qZlK+B5F3KDmev6m5PMibrg", "1:LQU9qZlK+B5F3KDmev6m5PMibr==", "1:LQU9qZlK+B5F3KDmev6m5PMi\nrg="} {
		if IsCommunityID(s) {
			t.Errorf("%q is said to be a Community ID", s)
		}
	}
}
