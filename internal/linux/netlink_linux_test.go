package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/stopd/stopd/host"
)

// A socket whose question was answered, if by "no such socket", is asked with again; one on which answers may still be on
// their way never is: the next question would have the last one's.
func TestNetlinkSockets(t *testing.T) {
	d := newDiag(0)
	t.Cleanup(d.close)
	nowhere := host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort("127.0.0.1:1"), Remote: netip.MustParseAddrPort("127.0.0.1:2")}
	if _, err := d.find(t.Context(), nowhere, 0); !errors.Is(err, host.ErrNotFound) {
		t.Fatalf("find %v: %v", nowhere, err)
	}
	if len(d.free) != 1 {
		t.Fatalf("after an answer %d sockets are free", len(d.free))
	}
	first := d.free[0]
	if _, err := d.dump(t.Context(), host.TCP); err != nil {
		t.Fatal(err)
	}
	if len(d.free) != 1 || d.free[0] != first {
		t.Error("a socket that is free was not taken")
	}

	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := d.find(late, nowhere, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if len(d.free) != 0 {
		t.Error("a socket on which an answer may be on its way is free")
	}
	// Of a dump an error may be the first of several messages.
	if _, err := d.exchange(t.Context(), sockDiagByFamily, netlink.Dump, inetRequest(255, protoTCP, 0, netip.AddrPort{}, netip.AddrPort{}, 0)); err == nil {
		t.Error("sockets of no family are listed")
	}
	if len(d.free) != 0 {
		t.Error("a socket is free after a dump that failed")
	}
}

// However many ask at once, each has its own answer, and no more sockets are kept than are of use.
func TestNetlinkAtOnce(t *testing.T) {
	d := newDiag(0)
	t.Cleanup(d.close)
	l := loopback(t)
	var wg sync.WaitGroup
	for range 3 * maxFree {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		f := host.Flow{Protocol: host.TCP, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
		wg.Go(func() {
			for range 20 {
				if _, err := d.find(t.Context(), f, 0); err != nil { // which compares the ends
					t.Errorf("find %v: %v", f, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(d.free); n == 0 || n > maxFree {
		t.Errorf("%d sockets are kept", n)
	}
}
