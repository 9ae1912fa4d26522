package linux

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"

	"github.com/stopd/stopd/internal/posix"
)

func TestParseMaps(t *testing.T) {
	tests := []struct {
		name, maps string
		want       []mapping
	}{
		{"nothing", "", nil},
		{"private", "7f0000000000-7f0000001000 rw-p 00000000 fe:00 12                         /usr/bin/sleep\n", nil},
		{"neither read nor written", "7f0000000000-7f0000001000 ---s 00000000 fe:00 12 /a\n",
			[]mapping{{area: "7f0000000000-7f0000001000", dev: 0xfe00, ino: 12, path: "/a"}}},
		{"memory of one's own copy", "10000-11000 rw-p 00000000 00:01 3 /memfd:x (deleted)\n11000-12000 ---p 00000000 00:01 4 /dev/shm/x\n",
			[]mapping{{area: "10000-11000", mode: host.Read, dev: 1, ino: 3, path: "/memfd:x (deleted)", private: true},
				{area: "11000-12000", mode: host.Read, dev: 1, ino: 4, path: "/dev/shm/x", private: true}}},
		{"memory of both", "10000-11000 r--p 00000000 00:01 3 /memfd:x (deleted)\n11000-12000 r--s 00000000 00:01 3 /memfd:x (deleted)\n",
			[]mapping{{area: "11000-12000", mode: host.Read, dev: 1, ino: 3, path: "/memfd:x (deleted)"}}},
		{"a file that is called as memory", "10000-11000 rw-p 00000000 fe:00 12 /a/memfd:x\n", nil},
		{"a socket", "10000-11000 r--s 00000000 00:08 12 socket:[12]\n", []mapping{{area: "10000-11000", mode: host.Read, dev: 8, ino: 12, path: "socket:[12]"}}},
		{"anonymous", "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n", nil},
		{"no path", "7f0000000000-7f0000001000 rw-s 00000000 00:00 0\n", nil},
		{"the kernel's", "7ffe1f5c7000-7ffe1f5c9000 r--s 00000000 00:00 0                          [vdso]\n", nil},
		{"ring", "7f0000000000-7f0000001000 rw-s 10000000 00:0f 1057                       anon_inode:[io_uring]\n",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.ReadWrite, dev: 0xf, ino: 1057, path: "anon_inode:[io_uring]"}}},
		{"file", "7f0000000000-7f0000001000 rw-s 00000000 fe:00 12                         /a\n",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: "/a"}}},
		{"the last line has no end", "7f0000000000-7f0000001000 r--s 00000000 fe:00 12 /a",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.Read, dev: 0xfe00, ino: 12, path: "/a"}}},
		{"written only", "7f0000000000-7f0000001000 -w-s 00000000 fe:00 12 /a\n",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.Write, dev: 0xfe00, ino: 12, path: "/a"}}},
		{"executed", "7f0000000000-7f0000001000 r-xs 00000000 fe:00 12 /a\n",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.Read, dev: 0xfe00, ino: 12, path: "/a"}}},
		{"device", "7f0000000000-7f0000001000 rw-s 100000000 00:06 431                       /dev/dri/renderD128\n",
			[]mapping{{area: "7f0000000000-7f0000001000", mode: host.ReadWrite, dev: 6, ino: 431, path: "/dev/dri/renderD128"}}},
		{"low addresses, as map_files calls them", "00010000-00011000 rw-s 00000000 fe:00 12 /a\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: "/a"}}},
		{"device number of many digits", "10000-11000 rw-s 00000000 fffff:fffff 12 /a\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: mkdev(0xfffff, 0xfffff), ino: 12, path: "/a"}}},
		{"deleted", "10000-11000 rw-s 00000000 fe:00 12 /a (deleted)\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: "/a (deleted)"}}},
		{"blanks", "10000-11000 rw-s 00000000 fe:00 12      /a  b (deleted)  \n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: "/a  b (deleted)  "}}},
		{"newline", "10000-11000 rw-s 00000000 fe:00 12 /a\\01210000-11000 rw-s 00000000 fe:00 13 /b\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: `/a\01210000-11000 rw-s 00000000 fe:00 13 /b`}}},
		{"not UTF-8", "10000-11000 rw-s 00000000 fe:00 12 /\xff\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: `/\xff`}}},
		{"the first segment", "10000-11000 rw-s 00000000 00:01 0                          /SYSV00000000 (deleted)\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 1, ino: 0, path: "/SYSV00000000 (deleted)"}}},
		{"one file in two modes", "10000-11000 r--s 00000000 fe:00 12 /a\n11000-12000 -w-s 00000000 fe:00 12 /a\n12000-13000 r--s 00000000 fe:01 12 /b\n",
			[]mapping{{area: "10000-11000", mode: host.ReadWrite, dev: 0xfe00, ino: 12, path: "/a"}, {area: "12000-13000", mode: host.Read, dev: 0xfe01, ino: 12, path: "/b"}}},
		{"a segment with the number of a file", "10000-11000 r--s 00000000 00:01 3 /memfd:x (deleted)\n11000-12000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)\n",
			[]mapping{{area: "10000-11000", mode: host.Read, dev: 1, ino: 3, path: "/memfd:x (deleted)"}, {area: "11000-12000", mode: host.ReadWrite, dev: 1, ino: 3, path: "/SYSV00000000 (deleted)"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseMaps([]byte(tt.maps))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(mapping{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseMapsErrors(t *testing.T) {
	for _, maps := range []string{
		"\n", "x\n", "10000-11000\n", "10000-11000 rw-s 0\n",
		"10000-11000 rws 00000000 fe:00 12 /a\n",
		"10000 rw-s 00000000 fe:00 12 /a\n",
		"10000-x rw-s 00000000 fe:00 12 /a\n",
		"10000-11000 rw-s 00000000 fe00 12 /a\n",
		"10000-11000 rw-s 00000000 fe:fffffffff 12 /a\n",
		"10000-11000 rw-s 00000000 fe:00 -1 /a\n",
		"10000-11000 rw-s 00000000 fe:00 18446744073709551616 /a\n",
		"10000-11000 r--s 00000000 fe:00 12 /a\n10000-11000 rw-s 00000000 fe:00 b /a\n",
	} {
		if got, err := parseMaps([]byte(maps)); err == nil || got != nil {
			t.Errorf("parseMaps(%q) = %+v, %v; want an error alone", maps, got, err)
		}
	}
}

// TestMapsBound reads lists of mappings at the bound, where each is of another file, and above it.
func TestMapsBound(t *testing.T) {
	var b bytes.Buffer
	n := 0
	for ; ; n++ {
		line := fmt.Sprintf("%x-%x rw-s 00000000 fe:00 %d /a\n", n<<12, (n+1)<<12, n+1)
		if b.Len()+len(line) > maxMaps {
			break
		}
		b.WriteString(line)
	}
	if got, err := parseMaps(b.Bytes()); err != nil || len(got) != n {
		t.Errorf("%d mappings, %v; want %d", len(got), err, n)
	}
}

// format writes mappings as the kernel does.
func format(ms []mapping) []byte {
	var b bytes.Buffer
	for _, m := range ms {
		perms := map[host.Mode]string{"": "---s", host.Read: "r--s", host.Write: "-w-s", host.ReadWrite: "rw-s"}[m.mode]
		if m.private {
			perms = "r--p"
		}
		major, minor := m.dev>>8&0xfff|m.dev>>32&^0xfff, m.dev&0xff|m.dev>>12&0xffffff00
		from, to, _ := strings.Cut(m.area, "-")
		fmt.Fprintf(&b, "%08s-%08s %s 00000000 %02x:%02x %d %s\n", from, to, perms, major, minor, m.ino, posix.Octets(m.path))
	}
	return b.Bytes()
}

// FuzzParseMaps checks that what was read can be written, and is then read as the same.
func FuzzParseMaps(f *testing.F) {
	if b, err := os.ReadFile("/proc/self/maps"); err == nil {
		f.Add(b)
	}
	f.Add([]byte("00010000-00011000 rw-s 00000000 fe:00 12                         /a\\012 (deleted)\n11000-12000 r--s 00000000 00:01 0 /SYSV00000000\n"))
	f.Add([]byte("10000-11000 ---s 00000000 00:01 3 /memfd:x (deleted)\n10000-11000 ---p 00000000 00:01 3 /memfd:x (deleted)\n10000-11000 r--s 00000000 00:08 4 socket:[4]\n"))
	f.Add([]byte("10000-11000 rw-s 00000000 00:06 431 /dev/dri/card0\n10000-11000 -w-s 00000000 00:06 431 /\xff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ms, err := parseMaps(b)
		if err != nil {
			if ms != nil {
				t.Errorf("%+v with an error", ms)
			}
			return
		}
		if n := bytes.Count(b, []byte("\n")) + 1; len(ms) > n {
			t.Errorf("%d mappings of %d lines", len(ms), n)
		}
		for _, m := range ms {
			if !filepath.IsAbs(m.path) && m.path != ringPath && !strings.HasPrefix(m.path, socketPath) || m.private && m.mode != host.Read || strings.HasPrefix(m.area, "0") && m.area[1] != '-' {
				t.Errorf("mapping %+v", m)
			}
		}
		again, err := parseMaps(format(ms))
		if err != nil {
			t.Fatalf("%q: %v", format(ms), err)
		}
		if d := cmp.Diff(ms, again, cmp.AllowUnexported(mapping{})); d != "" {
			t.Errorf("%q (-once +twice):\n%s", format(ms), d)
		}
	})
}
