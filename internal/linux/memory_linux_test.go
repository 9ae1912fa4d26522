package linux

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// memoryRole shares what its environment says, and closes the descriptor if there was one: "sysv ID" and
// "file PATH" and "fd 3" are mapped, "own 3" is mapped as a copy of its own and "none 3" for neither reading nor writing,
// "new" is a segment of its own, "mq NAME" is opened, "send ID" and
// "receive ID" are of a queue, "post ID N" is of a semaphore, "receive and post ID ID" of both.
func memoryRole() (string, error) {
	what, arg, _ := strings.Cut(os.Getenv("STOPD_TEST_MEMORY"), " ")
	write := os.Getenv("STOPD_TEST_MODE") != "r"
	id, _ := strconv.Atoi(arg)
	switch what {
	case "new", "sysv":
		if what == "new" {
			var err error
			if id, err = unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600); err != nil {
				return "", os.NewSyscallError("shmget", err)
			}
		}
		flag := 0
		if !write {
			flag = unix.SHM_RDONLY
		}
		_, err := unix.SysvShmAttach(id, 0, flag)
		if what == "new" {
			_, err2 := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
			err = errors.Join(err, err2)
		}
		return strconv.Itoa(id), err
	case "own", "none":
		prot, flags := unix.PROT_READ, unix.MAP_PRIVATE
		if what == "none" {
			prot, flags = unix.PROT_NONE, unix.MAP_SHARED
		}
		_, err := unix.Mmap(id, 0, 4096, prot, flags)
		return "", errors.Join(err, unix.Close(id))
	case "file", "fd":
		fd, open, prot := id, unix.O_RDONLY, unix.PROT_READ
		if write {
			open, prot = unix.O_RDWR, unix.PROT_READ|unix.PROT_WRITE
		}
		if what == "file" {
			var err error
			if fd, err = unix.Open(arg, open|unix.O_CLOEXEC, 0); err != nil {
				return "", err
			}
		}
		_, err := unix.Mmap(fd, 0, 4096, prot, unix.MAP_SHARED)
		return "", errors.Join(err, unix.Close(fd))
	case "mq":
		open := unix.O_RDWR
		if !write {
			open = unix.O_RDONLY
		}
		fd, err := openQueue(arg, open|unix.O_CLOEXEC)
		return strconv.Itoa(fd), err
	case "send":
		m := struct {
			kind int
			text byte
		}{kind: 1}
		_, _, e := unix.Syscall6(unix.SYS_MSGSND, uintptr(id), uintptr(unsafe.Pointer(&m)), 1, 0, 0, 0)
		return "", noErrno(e)
	case "receive":
		var set int
		both, err := fmt.Sscanf(arg, "and post %d %d", &id, &set)
		var m struct {
			kind int
			text byte
		}
		_, _, e := unix.Syscall6(unix.SYS_MSGRCV, uintptr(id), uintptr(unsafe.Pointer(&m)), 1, 0, 0, 0)
		if e != 0 || both == 0 {
			return "", noErrno(e)
		}
		return "", errors.Join(err, post(set, 1))
	case "post":
		var n int
		if _, err := fmt.Sscan(arg, &id, &n); err != nil {
			return "", err
		}
		return "", post(id, n)
	}
	return "", fmt.Errorf("no memory %q", what)
}

func noErrno(e syscall.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// openQueue opens a POSIX message queue. The system call takes a name without the slash.
func openQueue(name string, flags int) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(p)), uintptr(flags), 0o600, 0, 0, 0)
	return int(fd), noErrno(e)
}

// shares starts a process that shares something, in a mode.
func shares(t *testing.T, what string, m host.Mode, files ...*os.File) *child {
	t.Helper()
	return start(t, "memory", files, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "STOPD_TEST_MEMORY="+what, "STOPD_TEST_MODE="+string(m))
	})
}

// segment makes a System V segment that ends with the test.
func segment(t *testing.T) int {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	if err != nil {
		t.Fatal(os.NewSyscallError("shmget", err))
	}
	t.Cleanup(func() {
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
			t.Error(os.NewSyscallError("shmctl", err))
		}
	})
	return id
}

// page makes a file of one page.
func page(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// only returns the one descriptor of a process that cond holds for.
func only(t *testing.T, p host.Process, cond func(host.Descriptor) bool) host.Descriptor {
	t.Helper()
	ds := slices.DeleteFunc(slices.Clone(p.Descriptors), func(d host.Descriptor) bool { return !cond(d) })
	if len(ds) != 1 {
		t.Fatalf("process %d has %d such descriptors, want 1: %+v", p.PID, len(ds), p.Descriptors)
	}
	return ds[0]
}

// joined checks that two processes hold one object, each in its mode, from whichever it is looked at.
func joined(t *testing.T, want host.Descriptor, a, b *child, modeA, modeB host.Mode) {
	t.Helper()
	for _, first := range []*child{a, b} {
		s := openSnapshot(t, openHost(t))
		p := readProcess(t, s, first.pid)
		d := only(t, p, func(d host.Descriptor) bool { return d.Kind == want.Kind && d.Path == want.Path && d.Name == want.Name })
		want.Mode = modeA
		if first == b {
			want.Mode = modeB
		}
		if d.Object == "" || d.Object != d.Peer || d.Mode != want.Mode || !slices.Equal(d.FDs, want.FDs) || d.FDs == nil {
			t.Errorf("descriptor %+v; want %+v, of an object that is its own peer", d, want)
		}
		peers, err := s.Peers(t.Context(), d.Object)
		if err != nil || !slices.Equal(peers, []host.Object{d.Object}) {
			t.Errorf("Peers(%q) = %q, %v", d.Object, peers, err)
		}
		hs, err := s.Holders(t.Context(), d.Object)
		if err != nil {
			t.Fatal(err)
		}
		far := b
		if first == b {
			far = a
		}
		wantHolders := []host.Holder{
			{ID: p.ID(), FDs: want.FDs, Mode: want.Mode},
			{ID: readProcess(t, s, far.pid).ID(), FDs: want.FDs, Mode: map[*child]host.Mode{a: modeA, b: modeB}[far]},
		}
		slices.SortFunc(wantHolders, func(a, b host.Holder) int { return a.PID - b.PID })
		if diff := cmp.Diff(wantHolders, hs); diff != "" {
			t.Errorf("Holders(%q) (-want +got):\n%s", d.Object, diff)
		}
		if g := gapsOf(s, first.pid); len(g) > 0 {
			t.Errorf("gaps %q", g)
		}
	}
}

// TestSharedMemory has pairs of processes that share memory and nothing else.
func TestSharedMemory(t *testing.T) {
	needRoot(t)
	t.Run("System V", func(t *testing.T) {
		what := "sysv " + strconv.Itoa(segment(t))
		joined(t, host.Descriptor{FDs: []int{}, Kind: host.SHM, Path: "/SYSV00000000 (deleted)"},
			shares(t, what, host.ReadWrite), shares(t, what, host.Read), host.ReadWrite, host.Read)
	})
	t.Run("POSIX", func(t *testing.T) {
		path := page(t, fmt.Sprintf("/dev/shm/stopd test\n%d", rand.Uint64()))
		joined(t, host.Descriptor{FDs: []int{}, Kind: host.SHM, Path: strings.ReplaceAll(path, "\n", `\012`)},
			shares(t, "file "+path, host.Read), shares(t, "file "+path, host.ReadWrite), host.Read, host.ReadWrite)
	})
	// What is mapped for reading may be made writable, where it was opened so and is not sealed.
	for _, tt := range []struct {
		name, what string
		mode       host.Mode
		sealed     bool
		want       host.Mode
	}{
		{"memfd", "fd 3", host.ReadWrite, false, host.ReadWrite},
		{"memfd for reading", "fd 3", host.Read, false, host.ReadWrite},
		{"sealed memfd", "fd 3", host.Read, true, host.Read},
		{"a copy of one's own of a memfd", "own 3", host.Read, false, host.Read},
		{"memfd for neither", "none 3", host.Read, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fd, err := unix.MemfdCreate("stopd-test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "memfd")
			if err := f.Truncate(4096); err != nil {
				t.Fatal(err)
			}
			a := shares(t, "fd 3", host.ReadWrite, f)
			if tt.sealed {
				if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
					t.Fatal(err)
				}
			}
			b := shares(t, tt.what, tt.mode, f)
			f.Close()
			joined(t, host.Descriptor{FDs: []int{}, Kind: host.Memfd, Path: "/memfd:stopd-test (deleted)"}, a, b, host.ReadWrite, tt.want)
		})
	}
	t.Run("file", func(t *testing.T) {
		path := page(t, filepath.Join(t.TempDir(), "file"))
		joined(t, host.Descriptor{FDs: []int{}, Kind: host.File, Path: path},
			shares(t, "file "+path, host.ReadWrite), shares(t, "file "+path, host.ReadWrite), host.ReadWrite, host.ReadWrite)
	})
	t.Run("file in memory", func(t *testing.T) {
		runtime.LockOSThread() // it has mounts of its own, and ends with the test
		dir := t.TempDir()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("test", dir, "tmpfs", 0, ""))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		path := page(t, filepath.Join(dir, "file"))
		joined(t, host.Descriptor{FDs: []int{}, Kind: host.File, Path: path},
			shares(t, "file "+path, host.ReadWrite), shares(t, "file "+path, host.ReadWrite), host.ReadWrite, host.ReadWrite)
	})
}

func TestMessageQueues(t *testing.T) {
	needRoot(t)
	t.Run("POSIX", func(t *testing.T) {
		name := fmt.Sprintf("stopd-test-%d", rand.Uint64())
		fd, err := openQueue(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		t.Cleanup(func() {
			p, _ := unix.BytePtrFromString(name)
			if _, _, e := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
				t.Error(os.NewSyscallError("mq_unlink", e))
			}
		})
		a, b := shares(t, "mq "+name, host.ReadWrite), shares(t, "mq "+name, host.Read)
		n, err := strconv.Atoi(a.line)
		if err != nil || a.line != b.line {
			t.Fatalf("queues at descriptors %q and %q", a.line, b.line)
		}
		joined(t, host.Descriptor{FDs: []int{n}, Kind: host.MQueue, Path: "/" + name}, a, b, host.ReadWrite, host.Read)
	})
	t.Run("System V", func(t *testing.T) {
		q, _, e := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600, 0)
		if e != 0 {
			t.Fatal(os.NewSyscallError("msgget", e))
		}
		t.Cleanup(func() {
			if _, _, e := unix.Syscall(unix.SYS_MSGCTL, q, unix.IPC_RMID, 0); e != 0 {
				t.Error(os.NewSyscallError("msgctl", e))
			}
		})
		id := strconv.Itoa(int(q))
		a := shares(t, "send "+id, host.Write)
		b := shares(t, "receive "+id, host.Read)
		joined(t, host.Descriptor{FDs: []int{}, Kind: host.Msg, Name: "key 0 id " + id}, a, b, host.Write, host.Read)
		home, err := ownIPC()
		if err != nil {
			t.Fatal(err)
		}
		hs, err := openSnapshot(t, openHost(t)).Holders(t.Context(), object{queueObject, home, uint64(q)}.name())
		if err != nil || len(hs) != 2 {
			t.Errorf("holders of a queue, before any process was read: %+v, %v; want two", hs, err)
		}
	})
}

// TestSegmentsOfNamespaces has two IPC namespaces whose first segments have one number.
func TestSegmentsOfNamespaces(t *testing.T) {
	needRoot(t)
	namespace := func() *child {
		return start(t, "memory", nil, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "STOPD_TEST_MEMORY=new")
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWIPC}
		})
	}
	a, b := namespace(), namespace()
	if a.line != "0" || b.line != "0" {
		t.Fatalf("the first segments are %s and %s, want 0", a.line, b.line)
	}
	s := openSnapshot(t, openHost(t))
	objects := map[host.Object]bool{}
	for _, c := range []*child{a, b} {
		d := only(t, readProcess(t, s, c.pid), func(d host.Descriptor) bool { return d.Kind == host.SHM })
		hs, err := s.Holders(t.Context(), d.Object)
		if err != nil || len(hs) != 1 || hs[0].PID != c.pid {
			t.Errorf("Holders(%q) = %+v, %v; want process %d", d.Object, hs, err, c.pid)
		}
		objects[d.Object] = true
	}
	if len(objects) != 2 {
		t.Errorf("two segments are %v", objects)
	}
}

// TestReadOnlyMapping has a process that maps what everybody does: it is listed, and nobody else is looked at.
func TestReadOnlyMapping(t *testing.T) {
	needRoot(t)
	path := page(t, filepath.Join(t.TempDir(), "cache"))
	read, written := shares(t, "file "+path, host.Read), shares(t, "file "+path, host.ReadWrite)
	cached := func(d host.Descriptor) bool { return d.Path == path }
	s := openSnapshot(t, openHost(t))
	d := only(t, readProcess(t, s, read.pid), cached)
	if hs, err := s.Holders(t.Context(), d.Object); err != nil || len(hs) != 0 || s.mem != nil {
		t.Errorf("holders of a file that is only read: %+v, %v; all mappings were read: %t", hs, err, s.mem != nil)
	}
	s = openSnapshot(t, openHost(t))
	d = only(t, readProcess(t, s, written.pid), cached)
	if hs, err := s.Holders(t.Context(), d.Object); err != nil || len(hs) != 2 || s.mem == nil {
		t.Errorf("holders of a file that is written: %+v, %v; all mappings were read: %t", hs, err, s.mem != nil)
	}
}

// TestMemoryDeadline looks for who shares memory when there is no time left: that is a gap.
func TestMemoryDeadline(t *testing.T) {
	needRoot(t)
	path := page(t, filepath.Join(t.TempDir(), "file"))
	c := shares(t, "file "+path, host.ReadWrite)
	s := openSnapshot(t, openHost(t))
	d := only(t, readProcess(t, s, c.pid), func(d host.Descriptor) bool { return d.Path == path })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Holders(ctx, d.Object); err != nil {
		t.Fatal(err)
	}
	if g := gapsOf(s, 0); !slices.Contains(g, "shared memory: bound: deadline") {
		t.Errorf("gaps %q lack that of the deadline", g)
	}
}

// TestMapsTooLong reads a list of mappings that is larger than any should be.
func TestMapsTooLong(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "maps"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "maps"), maxMaps+1); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := procDir{fd: fd}
	defer d.close()
	if ms, err := d.mappings(0); err == nil || !strings.Contains(err.Error(), "larger than") || ms != nil {
		t.Errorf("mappings of a list that is too long: %d, %v", len(ms), err)
	}
}

func TestMkdev(t *testing.T) {
	for range 1000 {
		major, minor := rand.Uint32()>>rand.IntN(32), rand.Uint32()>>rand.IntN(32)
		if got, want := mkdev(uint64(major), uint64(minor)), unix.Mkdev(major, minor); got != want {
			t.Errorf("mkdev(%#x, %#x) = %#x, want %#x", major, minor, got, want)
		}
	}
}
