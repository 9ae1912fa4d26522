package thesis

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRow(t *testing.T) {
	local, remote := netip.MustParseAddrPort("192.0.2.1:40001"), netip.MustParseAddrPort("198.51.100.7:23")
	line := fmt.Sprintf("  12: %s 01 00000000:00000000 00:00000000 00000000  1000        0 3703580 1 0000000000000000 20 4 30 10 -1",
		ends(nil, local, remote))
	r, ok := parseRow([]byte(line))
	want := row{local, remote, 1000, 3703580}
	if !ok || r != want {
		t.Errorf("row %+v, %t, want %+v", r, ok, want)
	}
	if r, ok := parseRow([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")); ok {
		t.Errorf("the heading is a row: %+v", r)
	}
}

func TestParseStat(t *testing.T) {
	var p Process
	stat := "42 (a) R (b) S 7 42 42 34816 42 4194304 1 0 0 0 0 0 0 0 20 -5 1 0 1234 5 6 7"
	if !p.parseStat([]byte(stat)) {
		t.Fatal("not parsed")
	}
	if d := cmp.Diff(Process{PPID: 7, TTY: 34816, Priority: 20, Start: 1234}, p); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if new(Process).parseStat([]byte("42 (a) S 7")) {
		t.Error("a short line is parsed")
	}
}

func TestIDs(t *testing.T) {
	got, ok := ids([]byte("Name:\tcat\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"), "\nUid:")
	if want := [4]uint32{1, 2, 3, 4}; !ok || got != want {
		t.Errorf("%v, %t, want %v", got, ok, want)
	}
}

// FuzzEnd has every end of a connection come back from its text.
func FuzzEnd(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, uint16(113))
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		if len(b) != 4 {
			return
		}
		want := netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), port)
		if got, ok := parseEnd(end(nil, want)); !ok || got != want {
			t.Errorf("%s is read as %s, %t", want, got, ok)
		}
	})
}

// FuzzParse has no line of /proc, whatever a kernel writes, end the baseline.
func FuzzParse(f *testing.F) {
	f.Add([]byte("0: 0100007F:0071 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := parseRow(b); ok && !(r.local.IsValid() && r.remote.IsValid()) {
			t.Errorf("row without ends: %+v", r)
		}
		ids(b, "\nUid:")
		new(Process).parseStat(b)
		objectInode(b, "pipe:[")
	})
}
