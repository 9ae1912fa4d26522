package linux

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// TestBoundToLink has connections of which both ends are bound to a link: the kernel finds these only if
// asked for the link too.
func TestBoundToLink(t *testing.T) {
	h := openHost(t)
	s := openSnapshot(t, h)
	l := socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	c := socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	for _, f := range []*os.File{l, c} {
		if err := unix.BindToDevice(fd(f), "lo"); err != nil {
			t.Fatal(err) // anybody may since Linux 5.7
		}
	}
	bind(t, l, sockaddr(unix.AF_INET, netip.AddrPortFrom(loopback4, 0)))
	if err := unix.Listen(fd(l), 1); err != nil {
		t.Fatal(err)
	}
	connect(t, c, sockaddr(unix.AF_INET, localOf(t, l)))
	srv := accept(t, l)
	write(t, c, 10)
	must(t, h, c, "ESTABLISHED", host.Outbound)
	must(t, h, srv, "ESTABLISHED", host.Inbound)
	p := readProcess(t, s, os.Getpid())
	peers := map[host.Object]host.Object{}
	for _, d := range p.Descriptors {
		if d.Kind == host.TCP && d.Remote.IsValid() {
			peers[d.Object] = d.Peer
		}
	}
	a, b := objectOfFile(t, c), objectOfFile(t, srv)
	if peers[a] != b || peers[b] != a {
		t.Errorf("peers of %q and %q: %v", a, b, peers)
	}
}

func objectOfFile(t testing.TB, f *os.File) host.Object {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd(f), &st); err != nil {
		t.Fatal(err)
	}
	return object{socketObject, 0, st.Ino}.name()
}

// TestNobodyHolds has sockets that the kernel keeps without a process: who owned them is not known, and
// uid 0 would accuse root.
func TestNobodyHolds(t *testing.T) {
	h := openHost(t)
	for _, a := range addressings {
		t.Run(a.name, func(t *testing.T) {
			l := listen(t, a.listen, a.addr, 0, 1)
			c, s := dial(t, l, a.family, a.to, 0)
			f := host.Flow{Protocol: host.TCP, Local: localOf(t, c), Remote: remoteOf(t, c)}
			want := func(state string) {
				t.Helper()
				var got host.Socket
				var err error
				waitFor(t, "the connection is in "+state, func() bool {
					got, err = h.Find(t.Context(), f)
					return err == nil && got.State == state
				})
				if got.Inode != 0 || got.Object != "" || got.Flow() != f {
					t.Errorf("%s: %+v; want nobody to hold it", state, got)
				}
			}
			write(t, c, 1)
			c.Close()
			want("FIN-WAIT-2")
			s.Close()
			// The server had not read: it resets. Otherwise TIME-WAIT.
			c, s = dial(t, l, a.family, a.to, 0)
			f = host.Flow{Protocol: host.TCP, Local: localOf(t, c), Remote: remoteOf(t, c)}
			c.Close()
			s.Close()
			want("TIME-WAIT")
			if got, err := h.Find(t.Context(), f); err != nil || got.Direction != host.UnknownDirection {
				t.Errorf("TIME-WAIT has no counters: %+v, %v", got, err)
			}
		})
	}
}
