package linux

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A netspace is a network namespace of a test's own, which ends with it.
type netspace struct {
	*child
	nsfd int
}

func newNetspace(t testing.TB) netspace {
	t.Helper()
	needRoot(t)
	c := start(t, "hold", nil, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} })
	f, err := os.Open("/proc/" + strconv.Itoa(c.pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return netspace{c, int(f.Fd())}
}

// ip runs ip(8) in the namespace, one command a line.
func (n netspace) ip(t testing.TB, commands ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(n.pid)+"/ns/net", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run ip %q: %v: %s", commands, err, out)
	}
}

func recordAnswer(t *testing.T, name string, b []byte) {
	t.Helper()
	if !*update {
		return
	}
	if err := os.WriteFile(filepath.Join("testdata", name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Numbers of linux/netfilter/nfnetlink_conntrack.h that only these tests need.
const (
	ctNew           = 1 << 8
	ctaProtoInfo    = 4
	ctaNATSrc       = 6
	ctaTimeout      = 7
	ctaNATDst       = 13
	ctaNATMinIPv4   = 1
	ctaNATProto     = 3
	ctaNATMinIPv6   = 4
	ctaProtoNATPort = 1
)

// track has the kernel make an entry, as its rules would: it translates the source or the destination itself.
func track(t testing.TB, n netspace, p packet, translate uint16, to netip.AddrPort, zone []byte, original bool) {
	t.Helper()
	b := nfGenMsg(p.src.Addr())
	tuple := tupleAttribute(ctaTupleOrig, p)
	if original {
		tuple = appendAttribute(nil, ctaTupleOrig|nested, append(tuple[4:], appendAttribute(nil, ctaTupleZone, zone)...))
	}
	b = append(append(b, tuple...), tupleAttribute(ctaTupleReply, p.back())...)
	if !original && zone != nil {
		b = appendAttribute(b, ctaZone, zone)
	}
	b = appendAttribute(b, ctaTimeout, binary.BigEndian.AppendUint32(nil, 3600))
	b = appendAttribute(b, ctaProtoInfo|nested, appendAttribute(nil, 1|nested, appendAttribute(nil, 1, []byte{3}))) // TCP, established
	if to.IsValid() {
		min := uint16(ctaNATMinIPv4)
		if to.Addr().Is6() {
			min = ctaNATMinIPv6
		}
		port := appendAttribute(nil, ctaProtoNATPort, binary.BigEndian.AppendUint16(nil, to.Port()))
		b = appendAttribute(b, translate|nested, append(appendAttribute(nil, min, to.Addr().AsSlice()), appendAttribute(nil, ctaNATProto|nested, port)...))
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: n.nsfd})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flags := netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl
	if _, err := c.Execute(netlink.Message{Header: netlink.Header{Type: ctNew, Flags: flags}, Data: b}); err != nil {
		t.Fatalf("track %v: %v", p, err)
	}
}

// TestRecordTracked records what connection tracking answers. Without -update it only checks that this kernel's answers
// say what was put into it.
func TestRecordTracked(t *testing.T) {
	if untracked() {
		t.Skip(errNoConntrack)
	}
	n := newNetspace(t)
	ct := newConntrack(n.nsfd)
	defer ct.close()
	for _, e := range recordedEntries {
		p := e.want.original
		var translate uint16
		var to netip.AddrPort
		switch {
		case e.want.reply.dst != p.src:
			translate, to = ctaNATSrc, e.want.reply.dst
		case e.want.reply.src != p.dst:
			translate, to = ctaNATDst, e.want.reply.src
		}
		var zone []byte
		if e.zone != 0 {
			zone = binary.BigEndian.AppendUint16(nil, e.zone)
		}
		original, back := strings.HasSuffix(e.name, "-original"), e.zone
		if original {
			back = 0
		}
		track(t, n, p, translate, to, zone, original)
		b, err := ct.one(t.Context(), ctGet, trackedRequest(p, e.zone))
		if err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		recordAnswer(t, "ctnetlink/"+e.name, b)
		if got, err := parseTracked(b); got != e.want || err != nil {
			t.Errorf("%s: %+v, %v", e.name, got, err)
		}
		// From its other direction it is the same.
		if got, ok, err := ct.find(t.Context(), e.want.reply, back); got != e.want || !ok || err != nil {
			t.Errorf("%s, back: %+v, %t, %v", e.name, got, ok, err)
		}
		if _, ok, err := ct.find(t.Context(), p, e.zone+1); ok || err != nil {
			t.Errorf("%s in another zone: %t, %v", e.name, ok, err)
		}
	}
	b, err := ct.one(t.Context(), ctGetStats, make([]byte, nfGenMsgLen))
	if err != nil {
		t.Fatal(err)
	}
	recordAnswer(t, "ctnetlink/stats", b)
	if got, err := parseEntries(b); got != uint32(len(recordedEntries)) || err != nil {
		t.Errorf("%d entries, %v", got, err)
	}
}

// TestRecordRoutes records what rtnetlink answers of routes, links and namespaces. Without -update it only checks that
// this kernel's answers can be read.
func TestRecordRoutes(t *testing.T) {
	n, far := newNetspace(t), newNetspace(t)
	n.ip(t, "link set lo up",
		"link add v0 index 10 type veth peer name v1 index 11", "link set v0 up", "link set v1 up",
		"link add b0 index 12 type bridge", "link add v2 index 13 type veth peer name eth0 index 2 netns "+strconv.Itoa(far.pid),
		"link set v2 master b0 up", "link set b0 up",
		"link add link v0 name m0 index 14 type macvlan mode bridge", "link set m0 up",
		"link add link v0 name m1 index 3 netns "+strconv.Itoa(far.pid)+" type macvlan mode bridge",
		"address add 192.0.2.1/24 dev v0", "address add 2001:db8::1/64 dev v0 nodad",
		"route add 198.51.100.0/24 via 192.0.2.9", "route add 2001:db8:1::/64 via 2001:db8::9",
		"route add 203.0.113.0/25 via inet6 2001:db8::9 dev v0",
		"route add blackhole 203.0.113.128/27", "route add unreachable 203.0.113.160/27", "route add prohibit 203.0.113.192/27",
		"route add blackhole 2001:db8:2::/64", "route add unreachable 2001:db8:3::/64", "route add prohibit 2001:db8:4::/64")
	r := newRTNetlink(n.nsfd)
	defer r.close()
	waitFor(t, "the namespace has its address", func() bool { // some time after the link is up
		own, err := r.route(t.Context(), netip.MustParseAddr("2001:db8::1"))
		return err == nil && own.local
	})
	for _, c := range recordedRoutes {
		to := netip.MustParseAddr(c.to)
		if c.want.link == 0 {
			if got, err := r.route(t.Context(), to); got != (route{}) || err != nil {
				t.Errorf("no way to %s: %+v, %v", to, got, err)
			}
			continue
		}
		b, err := r.one(t.Context(), rtmGetRoute, routeRequest(to))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		recordAnswer(t, "rtnetlink/"+c.name, b)
		if got, err := parseRoute(to, b); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	fr := newRTNetlink(far.nsfd)
	defer fr.close()
	for _, c := range recordedLinks {
		in := r
		if c.far {
			in = fr
		}
		b, err := in.one(t.Context(), rtmGetLink, linkRequest(c.want.index))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		recordAnswer(t, "rtnetlink/"+c.name, b)
		if got, err := parseLink(b); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	if _, err := r.link(t.Context(), 99); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no link: %v", err)
	}
	third := newNetspace(t)
	for name, c := range map[string]struct {
		fd   int
		want int32
	}{"nsid": {far.nsfd, 0}, "nsid-none": {third.nsfd, nsidNotAssigned}} {
		b, err := r.one(t.Context(), rtmGetNSID, nsidRequest(c.fd))
		if err != nil {
			t.Fatal(err)
		}
		recordAnswer(t, "rtnetlink/"+name, b)
		if got, err := parseNSID(b); got != c.want || err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}
