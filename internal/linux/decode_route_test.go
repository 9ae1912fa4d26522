package linux

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/nlattr"
)

func number32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

var equateRoutes = cmp.Options{cmp.AllowUnexported(route{}, link{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

func TestParseRoute(t *testing.T) {
	to := netip.MustParseAddr("10.0.0.2")
	message := func(typ byte, attributes ...[]byte) []byte {
		b := make([]byte, rtMsgLen)
		b[7] = typ
		for _, a := range attributes {
			b = append(b, a...)
		}
		return b
	}
	oif := nlattr.Append(nil, rtaOIF, number32(5))
	for name, c := range map[string]struct {
		b    []byte
		want route
	}{
		"on the link": {message(rtnUnicast, oif), route{next: to, link: 5}},
		"gateway":     {message(rtnUnicast, oif, nlattr.Append(nil, rtaGateway, []byte{192, 0, 2, 1})), route{next: netip.MustParseAddr("192.0.2.1"), link: 5}},
		"gateway of the other family": {message(rtnUnicast, oif, nlattr.Append(nil, rtaVia, append([]byte{afInet6, 0}, netip.MustParseAddr("fd00::1").AsSlice()...))),
			route{next: netip.MustParseAddr("fd00::1"), link: 5}},
		"local":     {message(rtnLocal, nlattr.Append(nil, rtaOIF, number32(1))), route{local: true, next: to, link: 1}},
		"blackhole": {message(6), route{}},
	} {
		got, err := parseRoute(to, c.b)
		if d := cmp.Diff(c.want, got, equateRoutes); d != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
	if _, err := parseRoute(to, nil); err == nil {
		t.Error("an empty message is a route")
	}
}

func TestParseLink(t *testing.T) {
	head := make([]byte, ifInfoMsgLen)
	binary.NativeEndian.PutUint32(head[4:], 7)
	kind := nlattr.Append(nil, iflaLinkInfo|nlattr.Nested, nlattr.Append(nil, iflaInfoKind, []byte("veth\x00")))
	veth := append(append([]byte{}, head...), kind...)
	veth = nlattr.Append(veth, iflaLink, number32(2))
	far := nlattr.Append(append([]byte{}, veth...), iflaLinkNetNSID, number32(3))
	far = nlattr.Append(far, iflaMaster, number32(9))
	for name, c := range map[string]struct {
		b    []byte
		want link
	}{
		"device":                         {head, link{index: 7, nsid: noNSID}},
		"veth within one namespace":      {veth, link{index: 7, kind: "veth", other: 2, nsid: noNSID}},
		"veth to another, in a bridge":   {far, link{index: 7, kind: "veth", other: 2, nsid: 3, master: 9}},
		"veth to one that is not called": {nlattr.Append(append([]byte{}, veth...), iflaLinkNetNSID, number32(1<<32-1)), link{index: 7, kind: "veth", other: 2, nsid: -1}},
	} {
		got, err := parseLink(c.b)
		if d := cmp.Diff(c.want, got, equateRoutes); d != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, d)
		}
	}
}

func TestParseNamespace(t *testing.T) {
	if n, ok := parseNamespace([]byte("net:[4026531840]")); n != 4026531840 || !ok {
		t.Errorf("%d, %t", n, ok)
	}
	for _, s := range []string{"", "net:[]", "mnt:[1]", "net:[1", "net:[-1]"} {
		if _, ok := parseNamespace([]byte(s)); ok {
			t.Errorf("%q is a network namespace", s)
		}
	}
	for line, want := range map[string]string{
		`50 49 0:4 net:[4026532288] /run/netns/a\040b rw shared:1 - nsfs nsfs rw`: "/run/netns/a b",
		`50 49 0:4 mnt:[4026532288] /run/mnt rw - nsfs nsfs rw`:                   "",
		`50 49 0:4 / / rw`: "",
		``:                 "",
	} {
		if _, path, ok := parseNamespaceMount([]byte(line)); ok != (want != "") || ok && path != want {
			t.Errorf("%q: %q, %t", line, path, ok)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, c := range recordedRoutes {
		if c.want.link != 0 {
			f.Add(recordedBy(f, "rtnetlink", c.name))
		}
	}
	for _, c := range recordedLinks {
		f.Add(recordedBy(f, "rtnetlink", c.name))
	}
	f.Add(recordedBy(f, "rtnetlink", "nsid"))
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		to := netip.MustParseAddr("10.0.0.2")
		if r, err := parseRoute(to, b); err == nil && r.link != 0 && !r.next.IsValid() {
			t.Errorf("%x: %+v", b, r)
		}
		_, _ = parseLink(b)
		_, _ = parseNSID(b)
		parseNamespaceMount(b)
	})
}
