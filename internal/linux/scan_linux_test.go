package linux

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A countdown is a context that ends when it has been asked a number of times: a deadline that does not
// depend on how fast the machine is.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// refsOf returns who holds an object.
func refsOf(ix *index, o object) (refs []ref) {
	for i := ix.first[o]; i != 0; i = ix.refs[i-1].next {
		refs = append(refs, ix.refs[i-1])
	}
	return refs
}

// TestScanIsFair has processes with very many descriptors. Each process gets its turn, all are read in the
// end, and a deadline leaves gaps for those alone that were not read whole.
func TestScanIsFair(t *testing.T) {
	const hogs, many = 3, 3000
	hog := map[int]bool{}
	for range hogs {
		hog[start(t, "many", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(many)) }).pid] = true
	}
	r, w := pipe(t)
	quiet := start(t, "hold", nil, func(cmd *exec.Cmd) { cmd.ExtraFiles = append(cmd.ExtraFiles, r, w) }) // the last pid
	s := openSnapshot(t, openHost(t))
	var st unix.Stat_t
	if err := unix.Fstat(fd(r), &st); err != nil {
		t.Fatal(err)
	}
	o := object{pipeObject, 0, st.Ino}

	whole := scan(context.Background(), s.root, s.pipeDev)
	count := func(ix *index) map[int]int {
		n := map[int]int{}
		for _, r := range ix.refs {
			if hog[int(r.pid)] {
				n[int(r.pid)]++
			}
		}
		return n
	}
	for pid, n := range count(whole) {
		if n < many || n > many+20 {
			t.Errorf("process %d: %d descriptors, want %d and few more", pid, n, many)
		}
	}
	if got := refsOf(whole, o); len(got) != 4 { // two here, two in the child
		t.Errorf("holders of the quiet pipe: %+v", got)
	}
	for _, g := range whole.gaps {
		if hog[g.PID] || g.PID == quiet.pid {
			t.Errorf("gap %+v without a deadline", g)
		}
	}

	// After the first round, in which each process is asked about once. How many others there are may change.
	pids := []int{os.Getpid(), quiet.pid}
	for pid := range hog {
		pids = append(pids, pid)
	}
	ctx := &countdown{Context: context.Background()}
	ctx.left.Store(int64(len(pids)) + 1)
	part := scanThese(ctx, s.root, s.pipeDev, pids)
	for pid, n := range count(part) {
		if n < turn-50 || n > turn {
			t.Errorf("process %d: %d descriptors by the deadline, want %d less those that are not indexed", pid, n, turn)
		}
	}
	if got := refsOf(part, o); len(got) != 4 {
		t.Errorf("holders of the quiet pipe by the deadline: %+v", got)
	}
	gaps := map[int]string{}
	for _, g := range part.gaps {
		gaps[g.PID] = g.What + ": " + g.Why
	}
	for pid := range hog {
		if gaps[pid] != "descriptors: bound: deadline" {
			t.Errorf("gap of process %d: %q", pid, gaps[pid])
		}
	}
	if g := gaps[quiet.pid]; g != "" {
		t.Errorf("gap of a process that was read whole: %q", g)
	}

	// A deadline that has passed leaves a gap for each process.
	ctx.left.Store(0)
	if none := scanThese(ctx, s.root, s.pipeDev, pids); len(none.refs) != 0 || len(none.gaps) != len(pids) {
		t.Errorf("scan after its deadline: %d descriptors, %d gaps", len(none.refs), len(none.gaps))
	}
}

// TestGaps: the gaps of a process that was asked for stay its own, whatever many others have.
func TestGaps(t *testing.T) {
	s := openSnapshot(t, openHost(t))
	s.ix = &index{}
	for pid := 1000; pid < 1100; pid++ {
		s.ix.gaps = append(s.ix.gaps, host.Gap{PID: pid, What: "descriptors", Why: "permission denied"})
	}
	s.processes[1007], s.processes[1008] = processRead{}, processRead{}
	s.gaps = []host.Gap{{PID: 1008, What: "descriptors", Why: "permission denied"}}
	var got []string
	for _, g := range s.Gaps() {
		got = append(got, fmt.Sprintf("%d %s", g.PID, g.What))
	}
	if want := "1008 descriptors, 1007 descriptors, 0 descriptors of 98 processes"; strings.Join(got, ", ") != want {
		t.Errorf("gaps: %q, want %q", got, want)
	}
}
