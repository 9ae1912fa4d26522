package linux

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

const queueHeading = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"

func TestParseQueues(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	tests := []struct {
		name, list string
		want       []queue
	}{
		{"nothing", "", nil},
		{"none", queueHeading, nil},
		{"two", queueHeading +
			"         0          0   600           0          0   100   200     0     0     0     0 1700000001 1700000002 1700000000\n" +
			"-559038737      98305   666          12          1     0     0  1000  1000  1000  1000          0          0 1700000000\n",
			[]queue{{0, 0, 100, 200, at(1700000001), at(1700000002)}, {-559038737, 98305, 0, 0, at(0), at(0)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseQueues([]byte(tt.list))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(queue{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	for _, line := range []string{
		"x\n",
		"0 0 600 0 0 100 200\n",
		"x 0 600 0 0 100 200 0 0 0 0 1 2 3\n",
		"0 -1 600 0 0 100 200 0 0 0 0 1 2 3\n",
		"0 0 600 0 0 -1 200 0 0 0 0 1 2 3\n",
		"0 0 600 0 0 100 4294967296 0 0 0 0 1 2 3\n",
		"0 0 600 0 0 100 200 0 0 0 0 x 2 3\n",
		"0 0 600 0 0 100 200 0 0 0 0 1 x 3\n",
	} {
		if got, err := parseQueues([]byte(queueHeading + line)); err == nil || got != nil {
			t.Errorf("parseQueues(%q) = %+v, %v; want an error alone", line, got, err)
		}
	}
}

func TestQueueMode(t *testing.T) {
	then := time.Unix(1700000000, 0)
	q := queue{sender: 100, receiver: 200, sent: then, received: then}
	for _, tt := range []struct {
		name  string
		q     queue
		pid   int
		start time.Time
		want  host.Mode
	}{
		{"sender", q, 100, then.Add(-time.Hour), host.Write},
		{"receiver", q, 200, then.Add(-time.Hour), host.Read},
		{"both", queue{sender: 100, receiver: 100, sent: then, received: then}, 100, then, host.ReadWrite},
		{"neither", q, 300, then, ""},
		{"nobody", queue{}, 0, time.Time{}, ""},
		{"in the same second", q, 100, then.Add(900 * time.Millisecond), host.Write},
		{"right after it, by the clock that is a tick behind", q, 100, then.Add(1004 * time.Millisecond), host.Write},
		{"the pid was used again", q, 100, then.Add(coarse), ""},
		{"the pid was used again by the receiver", queue{sender: 100, receiver: 100, sent: then, received: then.Add(time.Hour)}, 100, then.Add(time.Minute), host.Read},
	} {
		if got := tt.q.mode(tt.pid, tt.start); got != tt.want {
			t.Errorf("%s: mode %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzParseQueues checks that what was read can be written, and is then read as the same.
func FuzzParseQueues(f *testing.F) {
	f.Add([]byte(queueHeading + "-559038737      98305   666          12          1   100   200  1000  1000  1000  1000 1700000001 1700000002 1700000000\n"))
	f.Add([]byte(queueHeading + "\n0 0 0 0 0 0 0 0 0 0 0 0 0 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		qs, err := parseQueues(b)
		if err != nil {
			if qs != nil {
				t.Errorf("%+v with an error", qs)
			}
			return
		}
		w := bytes.NewBufferString(queueHeading)
		for _, q := range qs {
			if q.sender < 0 || q.receiver < 0 {
				t.Errorf("queue %+v", q)
			}
			fmt.Fprintf(w, "%10d %10d  600 0 0 %5d %5d 0 0 0 0 %10d %10d 0\n", q.key, q.id, q.sender, q.receiver, q.sent.Unix(), q.received.Unix())
		}
		again, err := parseQueues(w.Bytes())
		if err != nil {
			t.Fatalf("%q: %v", w, err)
		}
		if d := cmp.Diff(qs, again, cmp.AllowUnexported(queue{})); d != "" {
			t.Errorf("%q (-once +twice):\n%s", w, d)
		}
	})
}

const semHeading = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"

func TestParseSems(t *testing.T) {
	got, err := parseSems([]byte(semHeading + "         0          3   600          2     0     0     0     0 1700000001 1700000000\n" +
		"-559038737      98305   666          1  1000  1000  1000  1000          0 1700000000\n"))
	want := []semSet{{key: 0, id: 3, number: 2, used: time.Unix(1700000001, 0)}, {key: -559038737, id: 98305, number: 1, used: time.Unix(1700000000, 0)}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(semSet{})); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, line := range []string{"x\n", "0 0 600 1 0 0 0 0 1\n", "x 0 600 1 0 0 0 0 1 2\n", "0 -1 600 1 0 0 0 0 1 2\n", "0 0 600 -1 0 0 0 0 1 2\n",
		"0 0 600 1 0 0 0 0 x 2\n", "0 0 600 1 0 0 0 0 1 x\n"} {
		if got, err := parseSems([]byte(semHeading + line)); err == nil || got != nil {
			t.Errorf("parseSems(%q) = %+v, %v; want an error alone", line, got, err)
		}
	}
}

func TestSemMode(t *testing.T) {
	then := time.Unix(1700000000, 0)
	s := semSet{used: then, pids: []int{0, 100, 200}}
	for _, tt := range []struct {
		pid   int
		start time.Time
		want  host.Mode
	}{{100, then, host.ReadWrite}, {200, then.Add(-time.Hour), host.ReadWrite}, {300, then, ""}, {0, time.Time{}, ""}, {100, then.Add(coarse), ""}} {
		if got := s.mode(tt.pid, tt.start); got != tt.want {
			t.Errorf("mode(%d, %v) = %q, want %q", tt.pid, tt.start, got, tt.want)
		}
	}
}

func FuzzParseSems(f *testing.F) {
	f.Add([]byte(semHeading + "0 3 600 2 0 0 0 0 1700000001 1700000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sets, err := parseSems(b)
		for _, s := range sets {
			if s.number < 0 || err != nil {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}
