package linux

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// joins makes one of each that can join two processes; near and far are what each of them is to have.
func joins(t *testing.T) (near, far []*os.File) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	must(err)
	path := filepath.Join(t.TempDir(), "fifo")
	must(unix.Mkfifo(path, 0o600))
	keep, err := os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	defer keep.Close()
	reads, err := os.OpenFile(path, os.O_RDONLY, 0)
	must(err)
	writes, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(err)
	must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(err)
	near = []*os.File{r, writes, os.NewFile(uintptr(pair[0]), ""), master}
	far = []*os.File{w, reads, os.NewFile(uintptr(pair[1]), ""), slave}
	return near, far
}

// TestJoints: what two processes had is remembered when both have ended as it was seen when they lived, with each other alone, though
// who made them had it all as well.
func TestJoints(t *testing.T) {
	h := remembering(t)
	near, far := joins(t)
	var was [2]host.Process
	var children []*child
	for i, files := range [][]*os.File{near, far} {
		children = append(children, start(t, "hold", files, nil))
		p, err := lookAt(t, h).Process(t.Context(), children[i].pid)
		if err != nil {
			t.Fatal(err)
		}
		was[i] = p
	}
	for _, f := range slices.Concat(near, far) {
		f.Close()
	}
	for _, c := range children {
		c.end()
	}
	s := lookAt(t, h)
	var recalled host.Recording
	for i, p := range was {
		m, err := s.Remembered(t.Context(), p.ID())
		if err != nil || m.Process.Exited == nil {
			t.Fatalf("remembered is %+v, %v", m, err)
		}
		recalled.Remembered = append(recalled.Remembered, m)
		for n, kind := range []host.Kind{host.Pipe, host.FIFO, host.Unix, host.PTY} {
			at := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, 3+n) })
			if at < 0 || p.Descriptors[at].Kind != kind {
				t.Fatalf("descriptor %d is not a %s: %+v", 3+n, kind, p.Descriptors)
			}
			want := p.Descriptors[at]
			var mode host.Mode
			for _, d := range was[1-i].Descriptors {
				if slices.Contains(d.FDs, 3+n) {
					mode = d.Mode
				}
			}
			// Names are not remembered.
			want.FDs, want.Path, want.Type = []int{}, "", ""
			if kind == host.PTY {
				want.Inode = 0
			}
			joint := host.Joint{Descriptor: want, With: []host.Holder{{ID: was[1-i].ID(), FDs: []int{}, Mode: mode}}}
			had := slices.IndexFunc(m.Joints, func(j host.Joint) bool { return j.Object == want.Object })
			if had < 0 {
				t.Errorf("%s is not remembered: %+v", want.Object, m.Joints)
				continue
			}
			if d := cmp.Diff(joint, m.Joints[had], cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
				t.Errorf("%s (-want +got):\n%s", want.Object, d)
			}
		}
	}
	again, err := lookAt(t, &host.Replay{Recording: recalled}).Remembered(t.Context(), was[0].ID())
	if d := cmp.Diff(recalled.Remembered[0], again, cmpopts.EquateComparable(netip.AddrPort{})); d != "" || err != nil {
		t.Errorf("replayed: %v (-want +got):\n%s", err, d)
	}
}
