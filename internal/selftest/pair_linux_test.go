package selftest

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A pair that the child connects has this process at one end and the child at the other, and leaves no path.
func TestChildConnects(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, childConnects := range []bool{false, true} {
		a, err := arrange(func() *exec.Cmd {
			return &exec.Cmd{Path: self, Args: []string{self}, Env: append(os.Environ(), childEnv+"=1")}
		}, childConnects)
		if err != nil {
			t.Fatal(err)
		}
		cred, err := unix.GetsockoptUcred(a.ours[pair], unix.SOL_SOCKET, unix.SO_PEERCRED)
		want := os.Getpid()
		if childConnects {
			want = a.child
		}
		if err != nil || int(cred.Pid) != want {
			t.Errorf("at the other end is %+v (%v), and not process %d", cred, err, want)
		}
		a.end()
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
