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

	"github.com/stopd/stopd/internal/conntrack"
	"github.com/stopd/stopd/internal/nlattr"
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
	ctaTupleZone    = 3
	ctaZone         = 18
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
func track(t testing.TB, n netspace, p conntrack.Tuple, translate uint16, to netip.AddrPort, zone []byte, original bool) {
	t.Helper()
	b := conntrack.GetRequest(p, 0)[:4] // struct nfgenmsg
	tuple := conntrack.AppendTuple(nil, conntrack.OriginalTuple, p)
	if original {
		tuple = nlattr.Append(nil, conntrack.OriginalTuple|nlattr.Nested, append(tuple[4:], nlattr.Append(nil, ctaTupleZone, zone)...))
	}
	b = conntrack.AppendTuple(append(b, tuple...), conntrack.ReplyTuple, p.Back())
	if !original && zone != nil {
		b = nlattr.Append(b, ctaZone, zone)
	}
	b = nlattr.Append(b, ctaTimeout, binary.BigEndian.AppendUint32(nil, 3600))
	b = nlattr.Append(b, ctaProtoInfo|nlattr.Nested, nlattr.Append(nil, 1|nlattr.Nested, nlattr.Append(nil, 1, []byte{3}))) // TCP, established
	if to.IsValid() {
		min := uint16(ctaNATMinIPv4)
		if to.Addr().Is6() {
			min = ctaNATMinIPv6
		}
		port := nlattr.Append(nil, ctaProtoNATPort, binary.BigEndian.AppendUint16(nil, to.Port()))
		b = nlattr.Append(b, translate|nlattr.Nested, append(nlattr.Append(nil, min, to.Addr().AsSlice()), nlattr.Append(nil, ctaNATProto|nlattr.Nested, port)...))
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: n.nsfd})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flags := netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl
	if _, err := c.Execute(netlink.Message{Header: netlink.Header{Type: conntrack.MessageNew, Flags: flags}, Data: b}); err != nil {
		t.Fatalf("track %v: %v", p, err)
	}
}

// tracks are the entries that TestRecordTracked has the kernel make: what is sent first, and how one end of it is translated. A
// zone is of both directions, of the original one alone where the name says so.
var tracks = []struct {
	name      string
	zone      uint16
	packet    conntrack.Tuple
	translate uint16
	to        string
}{
	{name: "plain4", packet: tupleOf("10.0.0.2:40000", "192.0.2.3:80")},
	{"snat4", 0, tupleOf("10.0.0.2:5555", "192.0.2.3:80"), ctaNATSrc, "192.0.2.2:61000"},
	{"dnat4", 0, tupleOf("192.0.2.1:616", "192.0.2.2:2222"), ctaNATDst, "10.0.0.2:22"},
	{"snat6", 0, tupleOf("[fd00::2]:5555", "[2001:db8::3]:80"), ctaNATSrc, "[2001:db8::2]:61000"},
	{"dnat6", 0, tupleOf("[2001:db8::1]:616", "[2001:db8::2]:2222"), ctaNATDst, "[fd00::2]:22"},
	{"zone4", 7, tupleOf("10.0.0.2:6666", "192.0.2.3:80"), ctaNATSrc, "192.0.2.2:61001"},
	{"zone4-original", 8, tupleOf("10.0.0.2:7777", "192.0.2.3:80"), ctaNATSrc, "192.0.2.2:61002"},
	{"zone6", 256, tupleOf("[2001:db8::1]:617", "[2001:db8::2]:2222"), ctaNATDst, "[fd00::2]:22"},
}

func tupleOf(src, dst string) conntrack.Tuple {
	return conntrack.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// TestRecordTracked records what connection tracking answers, for the tests of internal/conntrack. Without -update it only checks that
// this kernel's answers say what was put into it.
func TestRecordTracked(t *testing.T) {
	if untracked() {
		t.Skip(errNoConntrack)
	}
	n := newNetspace(t)
	ct := newConntracker(n.nsfd)
	defer ct.close()
	for _, c := range tracks {
		want := conntrack.Entry{Original: c.packet, Reply: c.packet.Back(), State: "ESTABLISHED"}
		var to netip.AddrPort
		switch c.translate {
		case ctaNATSrc:
			to = netip.MustParseAddrPort(c.to)
			want.Reply.Dst = to
		case ctaNATDst:
			to = netip.MustParseAddrPort(c.to)
			want.Reply.Src = to
		}
		var zone []byte
		if c.zone != 0 {
			zone = binary.BigEndian.AppendUint16(nil, c.zone)
		}
		original, back := strings.HasSuffix(c.name, "-original"), c.zone
		if original {
			back = 0
		} else {
			want.Zone = c.zone
		}
		track(t, n, c.packet, c.translate, to, zone, original)
		b, err := ct.one(t.Context(), conntrack.MessageGet, conntrack.GetRequest(c.packet, c.zone))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		recordAnswer(t, "../../conntrack/testdata/"+c.name, b)
		if got, err := conntrack.ParseEntry(b); got != want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		// From its other direction it is the same.
		if got, ok, err := ct.find(t.Context(), want.Reply, back); got != want || !ok || err != nil {
			t.Errorf("%s, back: %+v, %t, %v", c.name, got, ok, err)
		}
		if _, ok, err := ct.find(t.Context(), c.packet, c.zone+1); ok || err != nil {
			t.Errorf("%s in another zone: %t, %v", c.name, ok, err)
		}
	}
	b, err := ct.one(t.Context(), conntrack.MessageStats, conntrack.StatsRequest())
	if err != nil {
		t.Fatal(err)
	}
	recordAnswer(t, "../../conntrack/testdata/stats", b)
	if got, err := conntrack.ParseStats(b); got != uint32(len(tracks)) || err != nil {
		t.Errorf("%d entries, %v", got, err)
	}
}

// The kernel tells of each entry as it is made and as it is destroyed.
func TestListen(t *testing.T) {
	if untracked() {
		t.Skip(errNoConntrack)
	}
	n := newNetspace(t)
	l, err := conntrack.Listen(n.nsfd, conntrack.New, conntrack.Destroyed)
	if err != nil {
		t.Fatal(err)
	}
	p := tupleOf("10.0.0.2:5555", "192.0.2.3:80")
	want := conntrack.Entry{Original: p, Reply: tupleOf("192.0.2.3:80", "192.0.2.2:61000")}
	track(t, n, p, ctaNATSrc, want.Reply.Dst, nil, false)
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: n.nsfd})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := netlink.Message{Header: netlink.Header{Type: conntrack.MessageDelete, Flags: netlink.Request | netlink.Acknowledge}, Data: conntrack.GetRequest(p, 0)}
	if _, err := c.Execute(m); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []conntrack.Kind{conntrack.New, conntrack.Destroyed} {
		got, err := l.Receive()
		if err != nil || len(got) != 1 || got[0].Kind != kind || got[0].Entry.Original != want.Original || got[0].Entry.Reply != want.Reply {
			t.Fatalf("%+v, %v, want kind %d of %+v", got, err, kind, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Receive(); err == nil {
		t.Errorf("closed, and told of %+v", got)
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
