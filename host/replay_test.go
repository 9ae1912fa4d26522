package host

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func socket(local, remote, state string) Socket {
	s := Socket{Protocol: TCP, Local: netip.MustParseAddrPort(local), State: state, Object: Object(local + remote), Inode: 1}
	if remote != "" {
		s.Remote = netip.MustParseAddrPort(remote)
	}
	return s
}

func TestReplayFind(t *testing.T) {
	established := socket("192.0.2.2:40000", "203.0.113.9:22", "ESTABLISHED")
	second := socket("198.51.100.2:40000", "203.0.113.9:22", "ESTABLISHED")
	six := socket("[2001:db8::2]:22", "[2001:db8::9]:40000", "ESTABLISHED")
	h := &Replay{Recording{Sockets: []Socket{socket("192.0.2.2:22", "", "LISTEN"), established, second, six}}}
	tests := []struct {
		protocol      Kind
		local, remote string
		want          Object
	}{
		{TCP, "192.0.2.2:40000", "203.0.113.9:22", established.Object},
		{TCP, "198.51.100.2:40000", "203.0.113.9:22", second.Object},
		{TCP, "[2001:db8::2]:22", "[2001:db8::9]:40000", six.Object},
		{TCP, "0.0.0.0:40000", "203.0.113.9:22", established.Object},
		{TCP, "[::]:40000", "203.0.113.9:22", established.Object},
		{UDP, "192.0.2.2:40000", "203.0.113.9:22", ""},
		{TCP, "192.0.2.3:40000", "203.0.113.9:22", ""},
		{TCP, "192.0.2.2:40001", "203.0.113.9:22", ""},
		{TCP, "192.0.2.2:40000", "203.0.113.9:23", ""},
		{TCP, "192.0.2.2:40000", "203.0.113.8:22", ""},
		{TCP, "203.0.113.9:22", "192.0.2.2:40000", ""},
	}
	for _, tt := range tests {
		s, err := h.Find(t.Context(), Flow{Protocol: tt.protocol, Local: netip.MustParseAddrPort(tt.local), Remote: netip.MustParseAddrPort(tt.remote)})
		if s.Object != tt.want || (tt.want == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("Find(%s %s to %s) = %q, %v, want %q", tt.protocol, tt.local, tt.remote, s.Object, err, tt.want)
		}
	}
	if s, err := h.Find(t.Context(), Flow{Protocol: TCP, Local: netip.MustParseAddrPort("192.0.2.2:22")}); err == nil {
		t.Errorf("a listener is an answer: %+v", s)
	}
}

func replayed(t *testing.T, ps ...Process) Snapshot {
	t.Helper()
	s, err := (&Replay{Recording{Processes: ps}}).Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReplayHolders(t *testing.T) {
	s := replayed(t,
		Process{PID: 9, StartTicks: 90, Descriptors: []Descriptor{
			{FDs: []int{7, 3}, Kind: Pipe, Mode: Read, Object: "p", Peer: "p"},
			{FDs: []int{4}, Kind: Pipe, Mode: Write, Object: "p", Peer: "p"}}},
		Process{PID: 5, StartTicks: 50, Descriptors: []Descriptor{{Kind: Pipe, Mode: Write, Object: "p", Peer: "p"}}},
		Process{PID: 6, Descriptors: []Descriptor{{FDs: []int{0}, Kind: File, Path: "/etc/passwd"}}},
	)
	want := []Holder{
		{ID: ID{PID: 9, Start: 90}, FDs: []int{3, 4, 7}, Mode: ReadWrite},
		{ID: ID{PID: 5, Start: 50}, Mode: Write},
	}
	got, err := s.Holders(t.Context(), "p")
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("holders: %v (-want +got):\n%s", err, d)
	}
	if got, err := s.Holders(t.Context(), "q"); len(got) != 0 || err != nil {
		t.Errorf("holders of what nobody holds: %v, %v", got, err)
	}
	// A file has no object: who holds one must not be taken for a holder of every unknown one.
	if got, err := s.Holders(t.Context(), ""); len(got) != 0 || err == nil {
		t.Errorf("holders of an unknown object: %v, %v", got, err)
	}
	if got, err := s.Peers(t.Context(), ""); len(got) != 0 || err == nil {
		t.Errorf("peers of an unknown object: %v, %v", got, err)
	}
}

func TestReplayPeers(t *testing.T) {
	s := replayed(t,
		Process{PID: 5, Descriptors: []Descriptor{{FDs: []int{0}, Kind: Unix, Object: "a", Peer: "log"}, {FDs: []int{1}, Kind: Pipe, Object: "p", Peer: "p"}}},
		Process{PID: 6, Descriptors: []Descriptor{{FDs: []int{0}, Kind: Unix, Object: "b", Peer: "log"}}},
		Process{PID: 7, Descriptors: []Descriptor{{FDs: []int{0}, Kind: Unix, Object: "log"}}},
	)
	for o, want := range map[Object][]Object{"a": {"log"}, "log": {"a", "b"}, "p": {"p"}, "q": nil} {
		got, err := s.Peers(t.Context(), o)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("peers of %q: %v (-want +got):\n%s", o, err, d)
		}
	}
}

func TestReplayProcess(t *testing.T) {
	s := replayed(t, Process{PID: 5, Name: "x"})
	if p, err := s.Process(t.Context(), 5); p.Name != "x" || err != nil {
		t.Errorf("Process(5) = %+v, %v", p, err)
	}
	if _, err := s.Process(t.Context(), 6); !errors.Is(err, ErrNotFound) {
		t.Errorf("Process(6): %v, want %v", err, ErrNotFound)
	}
}

// A recording of a replay is the recording, and so it is after a way through JSON.
func TestRecord(t *testing.T) {
	connection := socket("192.0.2.2:40000", "203.0.113.9:22", "ESTABLISHED")
	ppid, zero, one := 1, uint32(0), uint32(1)
	rec := Recording{
		Facts:   Facts{Name: "b.example", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, Clock: &Clock{Offset: 0.25}},
		Sockets: []Socket{connection},
		Processes: []Process{{PID: 9, PPID: &ppid, StartTicks: 1 << 40, Name: "a\nb", EUID: &zero, AuditSession: &one, Descriptors: []Descriptor{
			{FDs: []int{3}, Kind: TCP, Object: connection.Object, Local: connection.Local, Remote: connection.Remote, State: connection.State},
			{FDs: []int{4}, Kind: TCP, Object: connection.Object, Local: connection.Local, Remote: connection.Remote, State: connection.State, Mode: Read},
			{FDs: []int{5}, Kind: TCP, Object: "listener", Local: netip.MustParseAddrPort("192.0.2.2:22"), State: "LISTEN"},
			{FDs: []int{6}, Kind: File, Path: "/etc/passwd"},
		}}},
		Logins: []Login{{Source: LoginUtmp, User: "alice", Remote: netip.MustParseAddrPort("203.0.113.5:0")}},
		// The process holds an inbound connection, and may have let somebody in.
		Accepted: []Login{{Source: LoginSSHD, PID: 9, User: "alice", Remote: netip.MustParseAddrPort("203.0.113.5:4000"), Key: "SHA256:x", Log: LogJournal}},
		Gaps:     []Gap{{PID: 9, What: "cwd", Why: "permission denied"}},
	}
	h := &Replay{rec}
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Record(t.Context(), h, s, []int{9, 10})
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	sameAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(rec, got, same, sameAddr); d != "" {
		t.Errorf("recorded (-want +got):\n%s", d)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = ParseRecording(b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rec, got, same, sameAddr); d != "" {
		t.Errorf("parsed (-want +got):\n%s", d)
	}
}

func TestReplayAccepted(t *testing.T) {
	one, two := uint32(1), uint32(2)
	h := &Replay{Recording{
		Processes: []Process{{PID: 9, AuditSession: &one}, {PID: 8, AuditSession: &two}, {PID: 7, AuditSession: &one}, {PID: 6}},
		Accepted:  []Login{{PID: 9, User: "alice"}, {PID: 8, User: "bob"}},
	}}
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pids, err := s.Audited(t.Context(), 1)
	if d := cmp.Diff([]int{7, 9}, pids); d != "" || err != nil {
		t.Errorf("Audited: %v (-want +got):\n%s", err, d)
	}
	ls, err := s.Accepted(t.Context(), []ID{{PID: 8}, {PID: 6}})
	if d := cmp.Diff(h.Recording.Accepted[1:], ls, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" || err != nil {
		t.Errorf("Accepted: %v (-want +got):\n%s", err, d)
	}
}

// A socket that cannot be found any more is a gap of the recording.
func TestRecordGaps(t *testing.T) {
	d := Descriptor{FDs: []int{3}, Kind: TCP, Local: netip.MustParseAddrPort("192.0.2.2:40000"), Remote: netip.MustParseAddrPort("203.0.113.9:22")}
	h := &Replay{Recording{Processes: []Process{{PID: 9, Descriptors: []Descriptor{d}}}}}
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Record(t.Context(), h, s, []int{9})
	want := []Gap{{PID: 9, What: "tcp socket 192.0.2.2:40000 to 203.0.113.9:22", Why: ErrNotFound.Error()}}
	if d := cmp.Diff(want, got.Gaps); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Record(ended, h, refusing{s}, []int{9}); !errors.Is(err, context.Canceled) {
		t.Errorf("Record after its context ended: %v", err)
	}
}

// A refusing snapshot shows no process.
type refusing struct{ Snapshot }

func (refusing) Process(ctx context.Context, _ int) (Process, error) {
	return Process{}, errors.New("permission denied")
}

func TestParseRecording(t *testing.T) {
	for _, bad := range []string{"", "[]", `{"processes":[{"pid":"1"}]}`, `{"sockets":[{"local":"x"}]}`, `{} {}`} {
		if r, err := ParseRecording([]byte(bad)); err == nil || !cmp.Equal(r, Recording{}) {
			t.Errorf("ParseRecording(%q) = %+v, %v", bad, r, err)
		}
	}
}
