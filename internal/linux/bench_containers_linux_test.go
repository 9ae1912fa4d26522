package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// within does something in a network namespace, and comes back.
func within(b *testing.B, home, nsfd int, do func() error) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := errors.Join(unix.Setns(nsfd, unix.CLONE_NEWNET), do(), unix.Setns(home, unix.CLONE_NEWNET)); err != nil {
		b.Fatal(err)
	}
}

// behind makes so many containers behind a bridge of this namespace, each with a connection that is translated, held by
// a process. It returns the flow of the first as others know it.
func behind(b *testing.B, containers int) host.Flow {
	const bridge = "ctr0"
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { home.Close() })
	here := netspace{&child{pid: os.Getpid()}, int(home.Fd())}
	here.ip(b, "link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up", "address add 192.0.2.2/24 dev eth0",
		"link add "+bridge+" type bridge", "address add 10.0.0.1/24 dev "+bridge, "link set "+bridge+" up")
	b.Cleanup(func() { here.ip(b, "link delete "+bridge, "link delete eth0") })
	far := netip.MustParseAddrPort("192.0.2.3:80")
	// What was tracked before is still.
	outside := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), 50000+100*uint16(containers)+uint16(i))
	}
	for i := range containers {
		n := newNetspace(b)
		name := "v" + strconv.Itoa(i)
		inner := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), 5000+uint16(containers))
		here.ip(b, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", name, n.pid), "link set "+name+" master "+bridge+" up")
		b.Cleanup(func() { here.ip(b, "link delete "+name) })
		n.ip(b, "link set lo up", "link set eth0 up", "address add "+inner.Addr().String()+"/24 dev eth0", "route add default via 10.0.0.1")
		track(b, here, conntrack.Tuple{Src: inner, Dst: far}, ctaNATSrc, outside(i), nil, false)
		var f *os.File
		within(b, here.nsfd, n.nsfd, func() (err error) { f, err = repaired(inner, far); return err })
		start(b, "hold", []*os.File{f}, nil)
		f.Close()
	}
	return host.Flow{Protocol: host.TCP, Local: outside(0), Remote: far}
}

// repaired makes one end of a connection that has no other (TCP_REPAIR, tcp(7)).
func repaired(from, to netip.AddrPort) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const offNoWindowProbe = -1
	return os.NewFile(uintptr(fd), "connection"), errors.Join(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1),
		unix.Bind(fd, sockaddr(unix.AF_INET, from)), unix.Connect(fd, sockaddr(unix.AF_INET, to)),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, offNoWindowProbe))
}

// BenchmarkContainers looks at connections of containers. It runs only where it is alone, and how that is arranged is
// in docs/performance.md.
func BenchmarkContainers(b *testing.B) {
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		b.Skipf("needs a network namespace of its own: %d links, %v", len(links), err)
	}
	for _, containers := range []int{1, 50} {
		b.Run(strconv.Itoa(containers), func(b *testing.B) {
			f := behind(b, containers)
			ctx := context.Background()
			h := openHost(b)
			b.Run("hit", func(b *testing.B) {
				for b.Loop() {
					if s, err := h.Find(ctx, f); err != nil || s.NAT == (host.NAT{}) {
						b.Fatal(s, err)
					}
				}
			})
			b.Run("miss", func(b *testing.B) {
				none := host.Flow{Protocol: host.TCP, Local: netip.AddrPortFrom(netip.IPv6Unspecified(), 999), Remote: netip.AddrPortFrom(f.Remote.Addr(), 81)}
				var before, after unix.Rusage
				unix.Getrusage(unix.RUSAGE_SELF, &before)
				for b.Loop() {
					if _, err := h.Find(ctx, none); !errors.Is(err, host.ErrNotFound) {
						b.Fatal(err)
					}
				}
				unix.Getrusage(unix.RUSAGE_SELF, &after)
				used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
			})
			b.Run("trace", func(b *testing.B) {
				for b.Loop() {
					r := traceOnce(b, h, f)
					if len(r.Owners) != 1 || r.Processes[0].Descriptors == nil {
						b.Fatalf("%+v", r)
					}
				}
			})
		})
	}
}
