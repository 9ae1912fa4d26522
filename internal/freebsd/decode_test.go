package freebsd

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var opts = cmp.Options{cmp.AllowUnexported(file{}, vnode{}, socket{}, proc{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func TestParseFiles(t *testing.T) {
	fs, err := parseFiles(record(t, "8337-files"))
	if err != nil {
		t.Fatal(err)
	}
	want := []file{
		{kind: typeVnode, fd: fdProgram, flags: 1, path: "/usr/sbin/sshd", vnode: vnode{vnodeRegular, 77, 0, 900}},
		{kind: typeVnode, fd: fdDirectory, flags: 1, path: "/home", vnode: vnode{2, 77, 0, 2}},
		{kind: typeSocket, fd: 4, flags: 3, addr: 0xfffff80001000100, socket: socket{family: familyInet, kind: socketStream, proto: protoTCP,
			local: netip.MustParseAddrPort("192.0.2.2:22"), remote: netip.MustParseAddrPort("198.51.100.1:616")}},
		{kind: typePTS, fd: 5, flags: 3, path: "pts/3", vnode: vnode{rdev: 0x9d}},
		{kind: typeSocket, fd: 6, flags: 3, addr: 0xfffff80002000000, peer: 0xfffff80002000100, socket: socket{family: familyUnix, kind: socketStream, path: "/tmp/agent.8337"}},
	}
	if d := cmp.Diff(want, fs, opts); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	b := record(t, "8337-files")
	if fs, err := parseFiles(append(b[:len(b):len(b)], make([]byte, 16)...)); err != nil || len(fs) != len(want) {
		t.Errorf("with what is left of the buffer: %d, %v", len(fs), err)
	}
	if fs, err := parseFiles(b[:len(b)-1]); err == nil {
		t.Errorf("%+v", fs)
	}
}

func FuzzParseFiles(f *testing.F) {
	for _, n := range []string{"8000-files", "8337-files", "8338-files", "8339-files"} {
		f.Add(record(f, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fs, err := parseFiles(b)
		if err != nil {
			return
		}
		tab := &tables{procs: []look{{proc{pid: 1}, fs}}}
		ps, _ := tab.processes()
		for _, d := range ps[0].Descriptors {
			if d.Kind == "" || d.Kind.Inet() && (!d.Local.IsValid() || d.Remote.IsValid() && d.Direction == "") {
				t.Errorf("%+v", d)
			}
		}
	})
}

func TestParseProcs(t *testing.T) {
	ps, err := parseProcs(record(t, "procs"))
	if err != nil || len(ps) != 6 {
		t.Fatalf("%d, %v", len(ps), err)
	}
	want := proc{pid: 8338, ppid: 8337, pgid: 8338, sid: 8338, ruid: 1000, euid: 1000, suid: 1000, rgid: 1000, egid: 1000, sgid: 1000,
		start: (986130000+8338)*1e6 + 5, nice: -5, priority: 120, name: "csh"}
	if d := cmp.Diff(want, ps[4], opts); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if at := ps[4].began(); !at.Equal(time.Unix(986130000+8338, 5000)) {
		t.Errorf("it began %v", at)
	}
	short := record(t, "procs")[:procSize]
	short[0]--
	for _, b := range [][]byte{short, make([]byte, procSize-1)} {
		if ps, err := parseProcs(b); err == nil {
			t.Errorf("%+v", ps)
		}
	}
}

func FuzzParseProcs(f *testing.F) {
	f.Add(record(f, "procs"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := parseProcs(b)
		if err == nil && len(ps) != len(b)/procSize {
			t.Errorf("%d of %d octets", len(ps), len(b))
		}
		for _, p := range ps {
			if p.began().Year() > 9999 {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestFormatEnds(t *testing.T) {
	end := netip.MustParseAddrPort
	name, b := formatEnds(end("192.0.2.2:968"), end("203.0.113.3:23"))
	if name != "net.inet.tcp.getcred" || !bytes.Equal(b, record(t, "8339-question")) {
		t.Errorf("%s of % x", name, b)
	}
	name, b = formatEnds(end("[2001:db8::2]:968"), end("[2001:db8::3]:23"))
	near := "\x1c\x1c\x03\xc8\x00\x00\x00\x00\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02\x00\x00\x00\x00"
	if name != "net.inet6.tcp6.getcred" || len(b) != 56 || string(b[:28]) != near || b[31] != 23 || b[28+23] != 3 {
		t.Errorf("%s of % x", name, b)
	}
}

func TestParseCred(t *testing.T) {
	if uid, err := parseCred(record(t, "8339-cred")); uid != 1000 || err != nil {
		t.Errorf("%d, %v", uid, err)
	}
	for _, b := range []string{"", "\x00\x00\x00\x00\xe8\x03", "\x01\x00\x00\x00\xe8\x03\x00\x00"} {
		if uid, err := parseCred([]byte(b)); err == nil {
			t.Errorf("%q: %d", b, uid)
		}
	}
}

func FuzzParseCred(f *testing.F) {
	f.Add(record(f, "8339-cred"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if uid, err := parseCred(b); err != nil && uid != 0 {
			t.Errorf("%d, %v", uid, err)
		}
	})
}
