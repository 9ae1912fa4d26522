package linux

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// sessionFile is as logind of systemd 252 writes it.
const sessionFile = `# This is private data. Do not parse.
UID=1001
USER=mallory
ACTIVE=1
IS_DISPLAY=0
STATE=closing
REMOTE=1
LEADER_FD_SAVED=0
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-3.scope
FIFO=/run/systemd/sessions/3.ref
TTY=pts/0
TTY_VALIDITY=from-pam
REMOTE_HOST=192.0.2.1
SERVICE=sshd
POSITION=0
LEADER=4242
AUDIT=3
REALTIME=1767322800123456
MONOTONIC=123456
`

func TestParseSession(t *testing.T) {
	whole := host.Login{Source: host.LoginAudit, User: "mallory", Line: "pts/0", Host: "192.0.2.1", Remote: netip.MustParseAddrPort("192.0.2.1:0"), PID: 4242,
		Audit: new(uint32(3)), Cgroup: "/user.slice/user-1001.slice/session-3.scope", Time: time.UnixMicro(1767322800123456).UTC()}
	for _, tt := range []struct {
		file string
		want host.Login
		ok   bool
	}{
		{sessionFile, whole, true},
		{"", host.Login{}, false},
		{"USER=mallory\nSCOPE=session-3.scope\n", host.Login{}, false},
		{"UID=-1\nSCOPE=session-3.scope\n", host.Login{}, false},
		{"UID=0\nUSER=\"root\"\nREMOTE_HOST=a.example\nLEADER=-4\nAUDIT=4294967295\nREALTIME=x\n", host.Login{Source: host.LoginAudit, User: "root", Host: "a.example"}, true},
		{"UID=1\nREMOTE_HOST=2001:db8::1", host.Login{Source: host.LoginAudit, Host: "2001:db8::1", Remote: netip.MustParseAddrPort("[2001:db8::1]:0")}, true},
		{"UID=1\nREMOTE_HOST=::ffff:192.0.2.1", host.Login{Source: host.LoginAudit, Host: "::ffff:192.0.2.1", Remote: netip.MustParseAddrPort("192.0.2.1:0")}, true},
	} {
		got, ok := parseSession([]byte(tt.file))
		if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" || ok != tt.ok {
			t.Errorf("%q: %t (-want +got):\n%s", tt.file, ok, d)
		}
	}
}

func FuzzParseSession(f *testing.F) {
	f.Add([]byte(sessionFile))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseSession(b)
		if !ok && l != (host.Login{}) {
			t.Errorf("%+v", l)
		}
		inRecording(t, l)
	})
}

// inRecording checks that what was read can be written into a recording, and read back.
func inRecording(t *testing.T, l host.Login) {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var back host.Login
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if d := cmp.Diff(l, back, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("%s (-want +got):\n%s", b, d)
	}
}
