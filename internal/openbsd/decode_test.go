package openbsd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// The offsets are those that a C compiler printed of the system's own headers.
func TestLayout(t *testing.T) {
	text, err := os.ReadFile("testdata/layout-7.3-amd64.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, structure := map[string]int{}, ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if f[0] == "SIZE" {
			structure = f[len(f)-2]
			f = []string{"size", f[len(f)-1]}
		}
		if n, err := strconv.Atoi(f[1]); err == nil {
			want[structure+"."+f[0]] = n
		}
	}
	for name, at := range map[string]int{
		"kinfo_file.size": fileSize, "kinfo_file.f_fileaddr": fileAddr, "kinfo_file.f_flag": fileFlag, "kinfo_file.f_type": fileType,
		"kinfo_file.f_msgcount": fileMsgCount, "kinfo_file.f_uid": fileUID, "kinfo_file.f_data": fileData, "kinfo_file.v_type": fileVType,
		"kinfo_file.va_rdev": fileRdev, "kinfo_file.va_fileid": fileID, "kinfo_file.va_fsid": fileFSID, "kinfo_file.f_mntonname": fileMount,
		"kinfo_file.so_type": sockType, "kinfo_file.so_state": sockState, "kinfo_file.so_pcb": sockPCB, "kinfo_file.so_protocol": sockProto,
		"kinfo_file.so_family": sockFamily, "kinfo_file.inp_lport": inpLPort, "kinfo_file.inp_laddru": inpLAddr, "kinfo_file.inp_fport": inpFPort,
		"kinfo_file.inp_faddru": inpFAddr, "kinfo_file.unp_conn": unpConn, "kinfo_file.pipe_peer": pipePeer, "kinfo_file.p_pid": filePID,
		"kinfo_file.fd_fd": fileFD, "kinfo_file.p_comm": fileComm, "kinfo_file.inp_rtableid": inpTable, "kinfo_file.unp_path": unpPath,
		"kinfo_file.inp_proto": inpProto, "kinfo_file.t_state": tcpState,
		"kinfo_proc.size": procSize, "kinfo_proc.p_pid": procPID, "kinfo_proc.p_ppid": procPPID, "kinfo_proc.p_sid": procSID,
		"kinfo_proc.p__pgid": procPGID, "kinfo_proc.p_uid": procUID, "kinfo_proc.p_ruid": procRUID, "kinfo_proc.p_gid": procGID,
		"kinfo_proc.p_rgid": procRGID, "kinfo_proc.p_tdev": procTDev, "kinfo_proc.p_priority": procPriority, "kinfo_proc.p_nice": procNice,
		"kinfo_proc.p_comm": procComm, "kinfo_proc.p_uvalid": procValid, "kinfo_proc.p_ustart_sec": procStart, "kinfo_proc.p_ustart_usec": procStart + 8,
		"kinfo_proc.p_svuid": procSVUID, "kinfo_proc.p_svgid": procSVGID, "kinfo_proc.p_rtableid": procTable,
	} {
		if want[name] != at {
			t.Errorf("%s is at %d, the headers have %d", name, at, want[name])
		}
	}
}

func TestParseFiles(t *testing.T) {
	fs, err := parseFiles(read(t, "root.kern.file.bin"))
	if err != nil || len(fs) != 67 {
		t.Fatalf("%d records, %v", len(fs), err)
	}
	got := map[[2]int]file{}
	for _, f := range fs {
		got[[2]int{f.pid, f.fd}] = f
	}
	for _, want := range []file{
		{pid: 26306, fd: 3, comm: "probe", addr: got[[2]int{26306, 3}].addr, flag: 3, kind: typeSocket, data: 0xfffffd803edf7000,
			socket: socket{kind: socketStream, state: 0x82, proto: protoTCP, family: familyInet, pcb: 0xfffffd803edf6150,
				local: netip.MustParseAddrPort(serverEnd), remote: netip.MustParseAddrPort(clientEnd), tcp: 4}},
		{pid: 81187, fd: 4, comm: "probe", addr: got[[2]int{81187, 4}].addr, flag: 7, kind: typeSocket, data: 0xfffffd803edf7720,
			socket: socket{kind: socketStream, state: 0x80, proto: protoTCP, family: familyInet, pcb: 0xfffffd803edf6d20,
				local: netip.MustParseAddrPort(serverEnd), tcp: 1}},
		{pid: 13153, fd: 3, comm: "probe", addr: got[[2]int{13153, 3}].addr, flag: 3, kind: typePipe, data: 0xfffffd803e9d73e8, pipePeer: 0xfffffd803e9d7360},
		{pid: 92493, fd: 12, comm: "probe", addr: got[[2]int{92493, 12}].addr, flag: 7, kind: typeSocket, data: 0xfffffd803edf7c78,
			socket: socket{kind: socketStream, state: 0x82, proto: 1, family: familyUnix, pcb: 0xfffffd803f11fab0, conn: 0xfffffd803f11fbd0, path: "/tmp/x.sock"}},
		{pid: 92493, fd: 5, comm: "probe", addr: got[[2]int{92493, 5}].addr, flag: 3, kind: typeVnode, data: got[[2]int{92493, 5}].data,
			vnode: vnode{kind: vnodeCharacter, rdev: 0x600, fsid: 0x1100, id: 17, mount: "/"}},
		{pid: 1, fd: -1, comm: "init", flag: 1, kind: typeVnode, vnode: vnode{kind: vnodeRegular, rdev: 0x539, fsid: 0x1100, id: 42, mount: "/"}},
	} {
		if d := cmp.Diff(want, got[[2]int{want.pid, want.fd}], cmp.AllowUnexported(file{}, vnode{}, socket{}), compareAddresses); d != "" {
			t.Errorf("descriptor %d of process %d (-want +got):\n%s", want.fd, want.pid, d)
		}
	}
	user, err := parseFiles(read(t, "user.kern.file.bin"))
	if err != nil || len(user) != 72 {
		t.Fatalf("%d records, %v", len(user), err)
	}
	for _, f := range user {
		if f.addr != 0 || f.data != 0 || f.pipePeer != 0 || f.socket.conn != 0 || f.kind == typeSocket && f.socket.pcb != hidden {
			t.Errorf("a user is told an address: %+v", f)
		}
	}
	for _, n := range []int{1, fileSize - 1, fileSize + 1} {
		if fs, err := parseFiles(make([]byte, n)); err == nil {
			t.Errorf("%d octets: %+v", n, fs)
		}
	}
}

// Addresses of version 6, of which the kernel keeps the link of local ones within.
func TestParseSocket6(t *testing.T) {
	b := make([]byte, fileSize)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(sockType, socketStream)
	put(sockProto, protoTCP)
	put(sockFamily, familyInet6)
	put(sockState, stateConnectOut|2)
	put(tcpState, 4)
	put(sockPCB, 1)
	local, remote := netip.MustParseAddr("fe80:3::1").As16(), netip.MustParseAddr("2001:db8::2").As16()
	copy(b[inpLAddr:], local[:])
	copy(b[inpFAddr:], remote[:])
	binary.BigEndian.PutUint16(b[inpLPort:], 40000)
	binary.BigEndian.PutUint16(b[inpFPort:], 22)
	s := parseSocket(b)
	if s.local != netip.MustParseAddrPort("[fe80::1]:40000") || s.remote != netip.MustParseAddrPort("[2001:db8::2]:22") {
		t.Errorf("%s to %s", s.local, s.remote)
	}
	if d, by := s.direction(); d != host.Outbound || by != host.FromKernel {
		t.Errorf("%s by %s", d, by)
	}
}

func FuzzParseFiles(f *testing.F) {
	for _, who := range []string{"root", "user"} {
		b := read(f, who+".kern.file.bin")
		for i := 0; i+fileSize <= len(b); i += 5 * fileSize {
			f.Add(b[i : i+fileSize])
		}
	}
	procs, err := parseProcs(read(f, "root.kern.proc.bin"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fs, err := parseFiles(b)
		if err != nil || len(fs) != len(b)/fileSize {
			if len(b)%fileSize == 0 {
				t.Errorf("%d octets: %d records, %v", len(b), len(fs), err)
			}
			return
		}
		for i := range fs {
			fs[i].pid = 26306
		}
		tables := &tables{files: fs, procs: procs, devices: map[uint32]string{}}
		ps, _ := tables.processes()
		paths(ps)
		for _, p := range ps {
			for _, d := range p.Descriptors {
				if d.Kind == "" || d.Kind.Inet() && d.Remote.IsValid() && d.Direction == "" {
					t.Errorf("%+v", d)
				}
			}
		}
		host.NewTable(ps)
	})
}

func TestParseProcs(t *testing.T) {
	ps, err := parseProcs(read(t, "root.kern.proc.bin"))
	if err != nil || len(ps) != 7 {
		t.Fatalf("%d records, %v", len(ps), err)
	}
	want := proc{pid: 26306, ppid: 92493, sid: 26306, pgid: 26306, ruid: 1001, euid: 1001, suid: 1001, rgid: 1001, egid: 1001, sgid: 1001,
		tty: 0x500, priority: 24, comm: "probe", start: 1795392415175477}
	if d := cmp.Diff(want, ps[0], cmp.AllowUnexported(proc{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if at := ps[0].began(); !at.Equal(time.Date(2026, 11, 23, 0, 6, 55, 175477000, time.UTC)) {
		t.Errorf("it began %s", at)
	}
	if ps[6].tty != noDevice || ps[6].pid != 1 || ps[6].ppid != 0 {
		t.Errorf("%+v", ps[6])
	}
	if ps, err := parseProcs(make([]byte, procSize+1)); err == nil {
		t.Errorf("%+v", ps)
	}
	ended, err := parseProcs(make([]byte, procSize))
	if err != nil || !ended[0].began().IsZero() {
		t.Errorf("%+v, %v", ended, err)
	}
}

func FuzzParseProcs(f *testing.F) {
	b := read(f, "user.kern.proc.bin")
	f.Add(b[:procSize])
	f.Add(b)
	f.Add(b[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := parseProcs(b)
		if (err == nil) != (len(b)%procSize == 0) || err == nil && len(ps) != len(b)/procSize {
			t.Errorf("%d octets: %d records, %v", len(b), len(ps), err)
		}
		for _, p := range ps {
			if y := p.began().Year(); y > 9999 || ttyName(p.tty) == "" && p.tty != noDevice {
				t.Errorf("%+v", p)
			}
		}
	})
}

// strings8 makes what kern.procargs gives.
func strings8(ss ...string) []byte {
	b := bytes.Repeat([]byte{0, 0, 0, 0, 0xc0, 0, 0, 1}, len(ss))
	b = append(b, make([]byte, 8)...)
	for _, s := range ss {
		b = append(append(b, s...), 0)
	}
	return b
}

func TestParseStrings(t *testing.T) {
	for _, want := range [][]string{nil, {"sh"}, {"sh", "-c", "echo a b\n"}, {"", ""}} {
		got, err := parseStrings(strings8(want...))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
	whole := strings8("sh", "-c")
	for n := range len(whole) {
		if ss, err := parseStrings(whole[:n]); err == nil {
			t.Errorf("%d octets of %d: %q", n, len(whole), ss)
		}
	}
}

func FuzzParseStrings(f *testing.F) {
	f.Add(strings8("sh", "-c"))
	f.Add(strings8())
	f.Fuzz(func(t *testing.T, b []byte) {
		ss, err := parseStrings(b)
		if err == nil && 9*len(ss)+8 > len(b) {
			t.Errorf("%d strings of %d octets", len(ss), len(b))
		}
	})
}

// record makes a record of utmp.
func record(line, name, from string, at int64) []byte {
	b := make([]byte, utmpSize)
	copy(b, line)
	copy(b[utmpName:], name)
	copy(b[utmpHost:], from)
	binary.LittleEndian.PutUint64(b[utmpTime:], uint64(at))
	return b
}

func TestParseUtmp(t *testing.T) {
	login := func(line, name, from string, at, ended int64) host.Login {
		l := host.Login{Source: host.LoginUtmp, Line: line, User: name, Host: from, Time: time.Unix(at, 0).UTC()}
		if a, err := netip.ParseAddr(from); err == nil {
			l.Remote = netip.AddrPortFrom(a, 0)
		}
		if ended != 0 {
			l.Ended = time.Unix(ended, 0).UTC()
		}
		return l
	}
	got := parseUtmp(slicesOf(record("ttyp0", "alice", "192.0.2.1", 100), record("ttyp1", "", "", 90), record("ttyC0", "root", "", 80), make([]byte, 7)))
	want := []host.Login{login("ttyp0", "alice", "192.0.2.1", 100, 0), login("ttyC0", "root", "", 80, 0)}
	if d := cmp.Diff(want, got, compareAddresses); d != "" {
		t.Errorf("utmp (-want +got):\n%s", d)
	}
	got, reaches := parseWtmp(slicesOf(record("ttyp0", "mallory", "192.0.2.9", 10), record("~", "reboot", "", 50), record("ttyp0", "alice", "2001:db8::1", 60),
		record("{", "date", "", 61), record("ttyp1", "bob", "b.example", 65), record("ttyp0", "", "", 70), record("ttyp1", "carol", "", 80)), time.Unix(50, 0))
	want = []host.Login{login("ttyp0", "alice", "2001:db8::1", 60, 70), login("ttyp1", "bob", "b.example", 65, 80)}
	if d := cmp.Diff(want, got, compareAddresses); d != "" || !reaches {
		t.Errorf("wtmp, reaches %t (-want +got):\n%s", reaches, d)
	}
}

func slicesOf(bs ...[]byte) []byte { return bytes.Join(bs, nil) }

func FuzzParseUtmp(f *testing.F) {
	f.Add(slicesOf(record("ttyp0", "alice", "192.0.2.1", 100), record("ttyp0", "", "", 110)))
	f.Add(record("~", "reboot", "", 1<<62))
	f.Fuzz(func(t *testing.T, b []byte) {
		ended, _ := parseWtmp(b, time.Unix(5, 0))
		for _, l := range append(parseUtmp(b), ended...) {
			if l.User == "" || l.Time.Year() > 9999 || !l.Ended.IsZero() && l.Ended.Before(l.Time) {
				t.Errorf("%+v", l)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for dev, want := range map[uint32]string{0x500: "ttyp0", 0x53d: "ttypZ", 0x53e: "ttyq0", 0: "console", noDevice: "", 0x801: "8,1", 0x10500: "ttyt8"} {
		if got := ttyName(dev); got != want {
			t.Errorf("%#x: %q, want %q", dev, got, want)
		}
	}
	if _, err := parseDomain([]byte{3, 0, 1, 0}); err != nil {
		t.Error(err)
	}
	if d, err := parseDomain([]byte{3, 0, 1, 0, 0}); err == nil {
		t.Error(d)
	}
}
