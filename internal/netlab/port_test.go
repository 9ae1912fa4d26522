package netlab

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Nobody gets a port that another has, and who has it can listen there.
func TestFreePort(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	var mu sync.Mutex
	got := map[netip.AddrPort]bool{}
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 50 {
				at, free, err := FreePort(loopback)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(free)
				mu.Lock()
				if got[at] {
					t.Errorf("%s is given twice", at)
				}
				got[at] = true
				mu.Unlock()
				l, err := net.Listen("tcp", at.String())
				if err != nil {
					t.Error(err)
					continue
				}
				l.Close()
			}
		})
	}
	asking.Wait()
	if _, _, err := FreePort(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("a port of an address that this host has not")
	}
}
