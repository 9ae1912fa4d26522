package linux

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

var update = flag.Bool("update", false, "record answers of this kernel into testdata")

// TestRecord records what the kernel answers about sockets of every kind, for the tests of the decoders,
// which run on every system. Without -update it only checks that this kernel's answers can be read.
func TestRecord(t *testing.T) {
	h := openHost(t)
	saved := map[string]bool{}
	save := func(name string, b []byte) {
		t.Helper()
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", "diag", name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err := parseInet(host.TCP, b)
		if strings.HasPrefix(name, "unix") {
			_, err = parseUnix(b)
		}
		if err != nil {
			t.Errorf("%s: %v: % x", name, err, b)
		}
		saved[name] = true
	}
	ask := func(family, proto uint8, local, remote netip.AddrPort) []byte {
		t.Helper()
		ms, err := h.diag.ask(t.Context(), 0, inetRequest(family, proto, 0xffffffff, local, remote, 0))
		if err != nil || len(ms) != 1 {
			t.Fatalf("%d answers, %v", len(ms), err)
		}
		return ms[0].Data
	}
	for name, a := range map[string]addressing{"tcp4": addressings[0], "tcp6": addressings[2], "mapped": addressings[3]} {
		l := listen(t, a.listen, a.addr, 0, 1)
		c, s := dial(t, l, a.family, a.to, 0)
		write(t, c, 1000)
		waitFor(t, "the data is acknowledged", func() bool { i, _, err := settledInfo(fd(c), 0); return err == nil && i.unacked == 0 })
		family := uint8(a.family)
		save(name+"-client", ask(family, protoTCP, localOf(t, c), remoteOf(t, c)))
		save(name+"-server", ask(family, protoTCP, localOf(t, s), remoteOf(t, s)))
	}
	u := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	bind(t, u, sockaddr(unix.AF_INET, netip.AddrPortFrom(loopback4, 0)))
	v := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	connect(t, v, sockaddr(unix.AF_INET, localOf(t, u)))
	save("udp4", ask(afInet, protoUDP, remoteOf(t, v), localOf(t, v)))

	dir, err := os.MkdirTemp("/tmp", "stopd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l := socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	bind(t, l, &unix.SockaddrUnix{Name: dir + "/stream"})
	if err := unix.Listen(fd(l), 1); err != nil {
		t.Fatal(err)
	}
	x := socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	connect(t, x, &unix.SockaddrUnix{Name: dir + "/stream"})
	y := accept(t, l)
	d := socket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	name := "@stopd\x00test"
	if !*update {
		name += strconv.Itoa(os.Getpid()) // as the same test may run beside
	}
	bind(t, d, &unix.SockaddrUnix{Name: name})
	e := socket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	connect(t, e, &unix.SockaddrUnix{Name: name})
	if err := unix.Shutdown(fd(x), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	ms, err := h.diag.ask(t.Context(), netlink.Dump, unixRequest())
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*os.File{"unix-listener": l, "unix-client": x, "unix-server": y, "unix-abstract": d, "unix-dgram": e} {
		for _, m := range ms {
			if s, err := parseUnix(m.Data); err == nil && (object{socketObject, 0, s.inode}).name() == objectOfFile(t, f) {
				save(name, m.Data)
			}
		}
	}
	if len(saved) != 12 {
		t.Errorf("%d answers, want 12: %v", len(saved), saved)
	}
}
