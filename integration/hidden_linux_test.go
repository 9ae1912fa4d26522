package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// Who has become root hides the relay's processes from ps, lsof and whoever else reads /proc by mounts over their directories
// there. The daemon, which runs already, sees them.
func TestHiddenByMount(t *testing.T) {
	s := theWorld(t).stage(t)
	tr := s.intrude()
	pids, err := processes(s.ctx, s.b.Host, "mallory")
	s.must(err)
	if len(pids) < 3 {
		t.Fatalf("the relay has the processes %v", pids)
	}
	var hide, show []string
	for _, pid := range pids {
		hide = append(hide, fmt.Sprintf("mount -t tmpfs none /proc/%d", pid))
		show = append(show, fmt.Sprintf("umount /proc/%d", pid))
	}
	// Before the stage is cleared, which looks for them.
	t.Cleanup(func() {
		if _, err := s.b.Host.Run(context.Background(), "sh", "-c", strings.Join(show, "; ")); err != nil {
			t.Error(err)
		}
	})
	_, err = s.b.Host.Run(s.ctx, "sh", "-ec", strings.Join(hide, "\n"))
	s.must(err)
	if left, err := processes(s.ctx, s.b.Host, "mallory"); err != nil || len(left) > 0 {
		t.Fatalf("processes %v are not hidden, %v", left, err)
	}
	r := s.asked("SV_REC", tr.out, true)
	s.inBetween(r.Report, tr)
	s.named(r, tr.in)
	for _, pid := range pids {
		seen := false
		for _, p := range r.Report.Processes {
			seen = seen || p.PID == pid
		}
		if !seen {
			t.Errorf("process %d is hidden", pid)
		}
	}
	for _, g := range r.Report.Gaps {
		if strings.Contains(g.Why, "ended") {
			t.Errorf("a process that runs is said to have ended: %+v", g)
		}
	}
	s.previousToken(s.a, r)
}
