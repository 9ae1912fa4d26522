package illumos

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var opts = cmp.Options{cmp.AllowUnexported(info{}, name{}, psinfo{}, connection{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func TestParseInfo(t *testing.T) {
	ap := netip.MustParseAddrPort
	real, err := os.ReadFile("testdata/fdinfo-ipd12")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		b    []byte
		want info
	}{
		{real, info{fd: 5, mode: 0o140666, inode: 63783, major: 559, flags: 0x82, peerPID: -1, kind: socketStream,
			name: name{familyInet, ap("172.27.10.9:22"), ""}, peer: name{familyInet, ap("172.27.10.79:38576"), ""}}},
		{record(t, "8000-fdinfo-3"), info{fd: 3, mode: 0o140666, inode: 100, major: 559, flags: 0x82, peerPID: -1, kind: socketStream,
			name: name{familyInet, ap("192.0.2.2:22"), ""}}},
		{record(t, "8338-fdinfo-3"), info{fd: 3, mode: 0o140000, inode: 201, major: 559, flags: 2, peerPID: 8337, kind: socketStream,
			name: name{family: familyUnix}, peer: name{family: familyUnix}}},
		{record(t, "8338-fdinfo-0"), info{fd: 0, mode: 0o20620, inode: 71, major: 561, rmajor: 24, rminor: 3, flags: 2, peerPID: -1, path: "/dev/pts/3"}},
		{record(t, "8339-fdinfo-4"), info{fd: 4, mode: 0o10000, inode: 300, major: 561, peerPID: -1}},
	} {
		got, err := parseInfo(tt.b)
		if d := cmp.Diff(tt.want, got, opts); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		for n := range len(tt.b) - 4 { // the size that ends the items is 4 octets
			if i, err := parseInfo(tt.b[:n]); err == nil && n < len(tt.b)-8 {
				t.Errorf("%d octets of %d: %+v", n, len(tt.b), i)
			}
		}
	}
}

func FuzzParseInfo(f *testing.F) {
	for _, n := range []string{"8000-fdinfo-3", "8337-fdinfo-4", "8337-fdinfo-6", "8338-fdinfo-0", "8339-fdinfo-5"} {
		f.Add(record(f, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseInfo(b)
		if err != nil {
			return
		}
		tab := &tables{procs: []proc{{psinfo{pid: 1}, []info{i}}}, slaves: 24, masters: 23}
		ps, _ := tab.processes()
		for _, d := range ps[0].Descriptors {
			if d.Kind == "" || d.Kind.Inet() && !d.Local.IsValid() {
				t.Errorf("%+v", d)
			}
		}
	})
}

func TestParsePsinfo(t *testing.T) {
	want := psinfo{pid: 8338, ppid: 8337, pgid: 8338, sid: 8338, ruid: 1000, euid: 1000, rgid: 1000, egid: 1000, tty: 24<<32 | 3,
		start: time.Unix(986130000+8338, 500).UTC(), name: "csh", priority: 59}
	got, err := parsePsinfo(record(t, "8338-psinfo"))
	if d := cmp.Diff(want, got, opts); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if p, err := parsePsinfo(make([]byte, psinfoSize-1)); err == nil {
		t.Errorf("%+v", p)
	}
	suid, sgid, err := parseCred(record(t, "8338-cred"))
	if suid != 1000 || sgid != 1000 || err != nil {
		t.Errorf("%d, %d, %v", suid, sgid, err)
	}
	if _, _, err := parseCred(nil); err == nil {
		t.Error("no ids are some")
	}
}

func FuzzParsePsinfo(f *testing.F) {
	f.Add(record(f, "8338-psinfo"))
	f.Add(record(f, "0-psinfo"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePsinfo(b)
		if err == nil && (p.start.Year() > 9999 || len(p.name) > 64) {
			t.Errorf("%+v", p)
		}
	})
}

func TestParseConnections(t *testing.T) {
	ap := netip.MustParseAddrPort
	table, rows, rows6 := record(t, "0-tcp"), record(t, "0-connections"), record(t, "0-connections6")
	want := []connection{{ap("192.0.2.2:22"), ap("0.0.0.0:0"), 2, 8000}, {ap("192.0.2.2:22"), ap("198.51.100.1:616"), 5, 8000},
		{ap("192.0.2.2:968"), ap("203.0.113.3:23"), 5, 8339}, {ap("192.0.2.2:967"), ap("203.0.113.3:23"), 11, 0},
		{ap("[2001:db8::2]:40000"), ap("[2001:db8::3]:22"), 5, 8339}}
	got, err := parseConnections([]message{{levelTCP, nameTable, table}, {levelTCP, nameConns, rows}, {levelTCP6, nameConn6, rows6}})
	if d := cmp.Diff(want, got, opts); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	// Of another release, with longer records.
	longer := bytes.Clone(table)
	longer[tcpConnSize] += 8
	var wide []byte
	for b := rows; len(b) > 0; b = b[172:] {
		wide = append(append(wide, b[:172]...), make([]byte, 8)...)
	}
	got, err = parseConnections([]message{{levelTCP, nameTable, longer}, {levelTCP, nameConns, wide}})
	if d := cmp.Diff(want[:4], got, opts); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	// One without creators is none that is known.
	shorter := bytes.Clone(table)
	shorter[tcpConnSize] = 100
	for _, ms := range [][]message{nil, {{levelTCP, nameConns, rows}}, {{levelTCP, nameTable, shorter}, {levelTCP, nameConns, rows}}} {
		if cs, err := parseConnections(ms); err == nil {
			t.Errorf("%+v", cs)
		}
	}
}

func FuzzParseConnections(f *testing.F) {
	f.Add(record(f, "0-tcp"), record(f, "0-connections"))
	f.Fuzz(func(t *testing.T, table, rows []byte) {
		cs, err := parseConnections([]message{{levelTCP, nameTable, table}, {levelTCP, nameConns, rows}, {levelTCP6, nameConn6, rows}})
		if err == nil && len(cs)*connMin > 2*len(rows) {
			t.Errorf("%d connections of %d octets", len(cs), len(rows))
		}
	})
}

func TestParseAck(t *testing.T) {
	ask := formatRequest()
	ack := bytes.Clone(ask)
	ack[0] = optMgmtAck
	ack[requestHeader], ack[requestHeader+1] = 6, 1 // level 262
	ack[requestHeader+4], ack[requestHeader+8] = 13, 172
	if level, name, size, err := parseAck(ack); level != levelTCP || name != nameConns || size != 172 || err != nil {
		t.Errorf("%d, %d, %d, %v", level, name, size, err)
	}
	refused := bytes.Clone(ack)
	refused[0] = errorAck
	far := bytes.Clone(ack)
	far[8] = 255
	for _, b := range [][]byte{nil, ask, refused, ack[:15]} {
		if level, _, _, err := parseAck(b); err == nil {
			t.Errorf("% x is of level %d", b, level)
		}
	}
	if level, _, size, err := parseAck(far); level != 0 || size != 0 || err != nil {
		t.Errorf("an option beyond the end: %d, %d, %v", level, size, err)
	}
}

func FuzzParseAck(f *testing.F) {
	f.Add(formatRequest())
	f.Fuzz(func(_ *testing.T, b []byte) { parseAck(b) })
}

func TestParseMajors(t *testing.T) {
	for text, want := range map[string][2]uint32{"ptm 23\npts 24\n": {24, 23}, "pts x\nptm\nptmx 5\n": {}, "": {}, "\"pts\" 7\npts 9": {9, 0}} {
		if s, m := parseMajors([]byte(text)); [2]uint32{s, m} != want {
			t.Errorf("%q: %d, %d", text, s, m)
		}
	}
}
