package linux

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ringInfo is what Linux 6.18 shows of an io_uring instance.
const ringInfo = `pos:	0
flags:	02000002
mnt_id:	17
ino:	65037201
SqMask:	0x3
SQEs:	1
    0: opcode:NOP, fd:-1, flags:0, off:0, addr:0x0, rw_flags:0x0, buf_index:0 user_data:0
CQEs:	0
SqThread:	-1
UserFiles:	5
    0: socket:[65037202]
    1: socket:[65037204]
    2: pipe:[65037205]
    4: /etc/pass\012wd: x
UserBufs:	1
    0: 0x7f0000000000/4096
PollList:
`

func TestParseRing(t *testing.T) {
	tests := []struct {
		name, info string
		want       []fixedFile
		ok         bool
	}{
		{"files", ringInfo, []fixedFile{{0, "socket:[65037202]"}, {1, "socket:[65037204]"}, {2, "pipe:[65037205]"}, {4, `/etc/pass\012wd: x`}}, true},
		{"of an older kernel", "UserFiles:\t2\n    0: TCP\n    1: <none>\nUserBufs:\t0\n", []fixedFile{{0, "TCP"}}, true},
		{"all taken out", "UserFiles:\t2\n    0: <none>\n    1: <none>\n", nil, true},
		{"none", "UserFiles:\t0\nUserBufs:\t0\n", nil, true},
		{"in use", "pos:\t0\nSqMask:\t0x3\n", nil, false},
		{"in use, of an older kernel", "UserFiles:\t5\nUserBufs:\t1\n", nil, false},
		{"nothing", "", nil, false},
		{"nonsense", "UserFiles:\tmany\n    0: TCP\n", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseRing([]byte(tt.info))
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(fixedFile{})); d != "" || ok != tt.ok {
				t.Errorf("%t, want %t (-want +got):\n%s", ok, tt.ok, d)
			}
		})
	}
	var many strings.Builder
	fmt.Fprintf(&many, "UserFiles:\t%d\n", maxFixed+1)
	for i := range maxFixed + 1 {
		fmt.Fprintf(&many, "%5d: socket:[%d]\n", i, i)
	}
	if got, ok := parseRing([]byte(many.String())); !ok || len(got) != maxFixed {
		t.Errorf("%d files, %t; want the first %d", len(got), ok, maxFixed)
	}
}

func FuzzParseRing(f *testing.F) {
	f.Add([]byte(ringInfo))
	f.Add([]byte("UserFiles:\t1\n-1: x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, ok := parseRing(b)
		for _, x := range files {
			if x.slot < 0 || x.target == "<none>" {
				t.Errorf("file %+v", x)
			}
		}
		if !ok && len(files) > 0 {
			t.Errorf("%+v without success", files)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for s, want := range map[string]object{
		"socket:[17]": {socketObject, 0, 17}, "pipe:[17]": {pipeObject, 0, 17},
		"": {}, "TCP": {}, "/socket:[17]": {}, "socket:[x]": {}, "socket:[17": {}, "socket:17]": {}, "socket:[-1]": {}, "/etc/passwd": {}, "anon_inode:[eventfd]": {},
	} {
		if got := parseTarget(s); got != want {
			t.Errorf("parseTarget(%q) = %+v, want %+v", s, got, want)
		}
	}
}

func TestUntold(t *testing.T) {
	for s, want := range map[string]bool{"socket:[17]": false, "pipe:[17]": false, "/etc/passwd": false, "anon_inode:[eventfd]": false, "TCP": true, "": true} {
		if got := (fixedFile{target: s}).untold(); got != want {
			t.Errorf("a file that is told as %q: untold %t, want %t", s, got, want)
		}
	}
}

const drivers = `/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
serial               /dev/ttyS       4 64-95 serial
pty_slave            /dev/pts      136 0-1048575 pty:slave
unknown              /dev/tty        4 1-63 console
g_serial             /dev/ttyGS    235 0-7 serial
nodeless             4 200 serial
`

func TestParseTerminals(t *testing.T) {
	want := []terminals{{5, 0, 0}, {5, 1, 1}, {4, 64, 95}, {136, 0, 1048575}, {4, 1, 63}, {235, 0, 7}, {4, 200, 200}}
	if d := cmp.Diff(want, parseTerminals([]byte(drivers+"\nx\nx 1\nx 1 y\n")), cmp.AllowUnexported(terminals{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParseTerminals(f *testing.F) {
	f.Add([]byte(drivers))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(parseTerminals(b)); n > len(b)/5+1 {
			t.Errorf("%d drivers of %d octets", n, len(b))
		}
	})
}
