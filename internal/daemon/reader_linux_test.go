package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/optin"
)

const (
	aliceUID = 61001
	otherUID = 61002
)

// alone runs a test once more, by itself, with mounts that nobody else has. It reports whether this is that run.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	if os.Getenv("STOPD_TEST_ALONE") != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "STOPD_TEST_ALONE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return false
}

func TestReader(t *testing.T) {
	if !alone(t) {
		return
	}
	const list, rule = "192.0.2.9\n", "to 192.0.2.9 { hide }\n"
	nothing, listed, hidden := optin.Answer{}, optin.Answer{Listed: true}, optin.Answer{Hidden: true}
	// Tricks are done with a name; what is there then is not read. The text is one that would list, or hide.
	tricks := map[string]func(h *home, name, text string){
		"link to one's own file": func(h *home, name, text string) {
			h.write("mine", text, aliceUID, 0o644)
			h.must(os.Symlink("mine", h.at(name)))
		},
		"link to another's file": func(h *home, name, text string) {
			h.write("../other", text, otherUID, 0o644)
			h.must(os.Symlink("../other", h.at(name)))
		},
		"link to nothing": func(h *home, name, _ string) { h.must(os.Symlink("nothing", h.at(name))) },
		"hard link to another's file": func(h *home, name, text string) {
			h.write("../other", text, otherUID, 0o644)
			h.must(os.Link(h.at("../other"), h.at(name)))
		},
		"hard link to root's file": func(h *home, name, text string) {
			h.write("../roots", text, 0, 0o644)
			h.must(os.Link(h.at("../roots"), h.at(name)))
		},
		"FIFO": func(h *home, name, _ string) {
			h.must(unix.Mkfifo(h.at(name), 0o600))
			h.must(os.Chown(h.at(name), aliceUID, aliceUID))
		},
		"directory": func(h *home, name, _ string) {
			h.must(os.Mkdir(h.at(name), 0o700))
			h.must(os.Chown(h.at(name), aliceUID, aliceUID))
		},
		"socket": func(h *home, name, _ string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			h.must(err)
			h.must(unix.Bind(fd, &unix.SockaddrUnix{Name: h.at(name)}))
			h.must(unix.Close(fd))
		},
		"device": func(h *home, name, _ string) { h.must(unix.Mknod(h.at(name), unix.S_IFCHR|0o666, 1<<8|5)) },
		"a device of one's own that is empty": func(h *home, name, _ string) {
			h.must(unix.Mknod(h.at(name), unix.S_IFCHR|0o600, 1<<8|3))
			h.must(os.Chown(h.at(name), aliceUID, aliceUID))
		},
		"device by bind": func(h *home, name, text string) {
			h.write(name, text, aliceUID, 0o644)
			h.must(unix.Mount("/dev/zero", h.at(name), "", unix.MS_BIND, ""))
			h.t.Cleanup(func() { unix.Unmount(h.at(name), unix.MNT_DETACH) })
		},
		"file of /proc by bind": func(h *home, name, text string) {
			h.write(name, text, aliceUID, 0o644)
			h.must(unix.Mount("/proc/kmsg", h.at(name), "", unix.MS_BIND, ""))
			h.t.Cleanup(func() { unix.Unmount(h.at(name), unix.MNT_DETACH) })
		},
		"1 GiB": func(h *home, name, text string) {
			h.write(name, text, aliceUID, 0o644)
			h.must(os.Truncate(h.at(name), 1<<30))
		},
		"an octet too much": func(h *home, name, text string) {
			h.write(name, text+strings.Repeat("#", optin.MaxFile+1-len(text)), aliceUID, 0o644)
		},
		"nobody may read":       func(h *home, name, text string) { h.write(name, text, aliceUID, 0) },
		"everybody may write":   func(h *home, name, text string) { h.write(name, text, aliceUID, 0o666) },
		"the group's by setgid": func(h *home, name, text string) { h.write(name, text, otherUID, 0o664|os.ModeSetgid) },
	}
	type test struct {
		name string
		make func(h *home)
		want optin.Answer
	}
	tests := []test{
		{"nothing", func(*home) {}, nothing},
		{"listed", func(h *home) { h.write(".ident", list, aliceUID, 0o600) }, listed},
		{"as large as may be", func(h *home) {
			h.write(".ident", list+strings.Repeat("#", optin.MaxFile-len(list)), aliceUID, 0o664)
		}, listed},
		{"names", func(h *home) { h.write(".ident", "irc.example\n", aliceUID, 0o600) }, optin.Answer{ListedNames: []string{"irc.example"}}},
		{"another is listed", func(h *home) { h.write(".ident", "192.0.2.8\n", aliceUID, 0o600) }, nothing},
		{".noident", func(h *home) { h.write(".ident", list, aliceUID, 0o600); h.write(".noident", "", aliceUID, 0) }, hidden},
		{".noident of root", func(h *home) { h.write(".noident", "", 0, 0) }, hidden},
		{".noident is a link to nothing", func(h *home) { h.must(os.Symlink("/nothing", h.at(".noident"))) }, hidden},
		{".noident is a directory", func(h *home) { h.must(os.Mkdir(h.at(".noident"), 0)) }, hidden},
		{".noident is a FIFO", func(h *home) { h.must(unix.Mkfifo(h.at(".noident"), 0o600)) }, hidden},
		{"hide", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.write(".oidentd.conf", rule, aliceUID, 0o600)
		}, hidden},
		{"hide, in .config", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.write(".config/oidentd.conf", rule, aliceUID, 0o600)
		}, hidden},
		{"hide from another", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.write(".oidentd.conf", "to 192.0.2.8 { hide }\n", aliceUID, 0o600)
		}, listed},
		{"hide from a name", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.write(".oidentd.conf", "to irc.example { hide }\n", aliceUID, 0o600)
		}, optin.Answer{Listed: true, HiddenFrom: []string{"irc.example"}}},
		{".config is a file", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.write(".config", "", aliceUID, 0o600)
		}, listed},
		{".config may not be entered", func(h *home) {
			h.write(".config/x", "", aliceUID, 0o600)
			h.must(os.Chmod(h.at(".config"), 0o700)) // root's
		}, hidden},
		{"no home", func(h *home) { h.must(os.Remove(h.path)) }, nothing},
		{"the home is a FIFO", func(h *home) { h.must(os.Remove(h.path)); h.must(unix.Mkfifo(h.path, 0o666)) }, nothing},
		{"the home is a device", func(h *home) {
			h.must(os.Remove(h.path))
			h.must(unix.Mknod(h.path, unix.S_IFCHR|0o666, 1<<8|5))
		}, nothing},
		{"the home is a link", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.must(os.Rename(h.path, h.path+"2"))
			h.must(os.Symlink(h.path+"2", h.path))
		}, listed},
		{"the home may not be entered", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.must(os.Chmod(h.path, 0))
		}, hidden},
		{"the home is root's alone", func(h *home) {
			h.write(".ident", list, aliceUID, 0o600)
			h.must(os.Chown(h.path, 0, 0))
		}, hidden},
		{"a large directory", func(h *home) {
			for i := range 2000 {
				h.must(os.WriteFile(h.at(strconv.Itoa(i)), nil, 0o600))
			}
			h.write(".ident", list, aliceUID, 0o600)
		}, listed},
	}
	for name, trick := range tricks {
		tests = append(tests, test{"list: " + name, func(h *home) { trick(h, ".ident", list) }, nothing},
			test{"rules: " + name, func(h *home) {
				h.write(".ident", list, aliceUID, 0o600)
				trick(h, ".oidentd.conf", "to 192.0.2.8 { hide }\n")
			}, hidden})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHome(t)
			tt.make(h)
			said, err := h.ask(readerAsked{Question: h.question()})
			if d := cmp.Diff(tt.want, said.Answer); err != nil || d != "" {
				t.Errorf("(-want +got) %v:\n%s", err, d)
			}
		})
	}
}

// A reader tries what it must not be able to do, as a user and as root.
func TestReaderConfined(t *testing.T) {
	if !alone(t) {
		return
	}
	h := newHome(t)
	h.write("secret", "", aliceUID, 0o600)
	h.write("../alices", "", aliceUID, 0o600) // hers, but not in her home
	for uid, want := range map[uint32][]string{aliceUID: nil, 0: {"act as root"}} {
		for _, file := range []string{"/etc/passwd", h.at("../alices")} {
			q := h.question()
			q.UID, q.GID = uid, uid
			ended := make(chan struct{})
			b, err := readBy(readerAsked{q, &trial{File: file, Dir: h.path, Store: h.path, PID: os.Getpid()}}, Config{}, time.Now().Add(time.Minute), func() { close(ended) })
			<-ended
			var said readerSaid
			if err == nil {
				said, err = parseSaid(b)
			}
			if d := cmp.Diff(want, said.Can); err != nil || d != "" {
				t.Errorf("user %d can (-want +got) %v:\n%s", uid, err, d)
			}
		}
	}
}

// A user who serves his own home has his readers wait for ever: the answer is in time all the same, and there are not many of them. They
// have his rights, no descriptor but what they were given, and end when he lets them.
func TestReaderWaits(t *testing.T) {
	if !alone(t) {
		return
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE")
	}
	h := newHome(t)
	waiting, end := serveNothing(t, h.path)
	s := &supervisor{}
	read := func() error {
		began := time.Now()
		_, err := s.read(t.Context(), readerAsked{Question: h.question()})
		took := time.Since(began)
		if took > readerTime+time.Minute { // as loaded as the machine may be
			t.Errorf("it took %s", took)
		}
		if !errors.Is(err, errReaders) && (!errors.Is(err, errLate) || took < readerTime) {
			t.Fatalf("after %s: %v", took, err)
		}
		if n := len(readersOf(t)); n > 1 {
			t.Fatalf("%d readers run", n)
		}
		return err
	}
	// On a busy machine some are killed before they come to the file system.
	var waits []int
	eventually(t, stateTime, func() bool { read(); waits = waiting(); return len(waits) > 0 }, func() string { return "no reader waits" })
	for range 100 {
		if err := read(); !errors.Is(err, errReaders) {
			t.Fatalf("beside one that waits: %v", err)
		}
	}
	if is := readersOf(t); !slices.Equal(is, waits) {
		t.Fatalf("readers are %v, and %v wait", is, waits)
	}
	// Another user's is read.
	o := newHome(t)
	q := o.question()
	q.UID, q.GID = otherUID, otherUID
	if _, err := s.read(t.Context(), readerAsked{Question: q}); err != nil && !errors.Is(err, errLate) {
		t.Errorf("another user's: %v", err)
	}
	for _, pid := range waits {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("\t%d\t%[1]d\t%[1]d\t%[1]d\n", aliceUID)
		for _, want := range []string{"\nUid:" + id, "\nGid:" + id, "\nGroups:\t \n", "\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n",
			"\nCapEff:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("a reader's status lacks %q:\n%s", want, status)
			}
		}
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || strings.Count(string(environ), "\x00") != 2 {
			t.Errorf("a reader's environment is %q, %v", environ, err)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
			// Go's runtime has its own process's share of the processors open.
			if to != "/dev/null" && !strings.HasPrefix(to, "/sys/fs/cgroup/") && to != h.path && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") {
				t.Errorf("a reader has %q", to)
			}
		}
	}
	end()
	eventually(t, stateTime, func() bool { return len(readersOf(t)) == 0 }, func() string { return "readers are left" })
	counted := 0
	eventually(t, stateTime, func() bool {
		s.readers.mu.Lock()
		defer s.readers.mu.Unlock()
		counted = s.readers.counts[readerKey{}].running
		return counted == 0
	}, func() string { return fmt.Sprintf("%d readers are counted and not there", counted) })
}

// readersOf are the readers that this process started and that have not ended.
func readersOf(t *testing.T) []int { return childrenOf(t, reader) }

// serveNothing mounts a file system of alice's (FUSE) that answers that it is there, and nothing else, until end is called. Who waits
// for an answer is told.
func serveNothing(t *testing.T, dir string) (waiting func() []int, end func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40700,user_id=%d,group_id=%d", fd, aliceUID, aliceUID)
	if err := unix.Mount("nothing", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
		unix.Close(fd)
	})
	t.Cleanup(end)
	var mu sync.Mutex
	var threads []uint32
	waiting = func() (pids []int) {
		mu.Lock()
		defer mu.Unlock()
		for _, thread := range threads {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
			_, rest, _ := strings.Cut(string(status), "\nTgid:\t")
			var pid int
			if _, err := fmt.Sscan(rest, &pid); err == nil { // else it has ended
				pids = append(pids, pid)
			}
		}
		return pids
	}
	go func() {
		b := make([]byte, 1<<17)
		for {
			n, err := unix.Read(fd, b)
			if err == unix.EINTR || err == unix.ENOENT {
				continue
			}
			if err != nil {
				return
			}
			// struct fuse_in_header: length, opcode, unique, node, uid, gid, pid (include/uapi/linux/fuse.h).
			const initOp, interruptOp = 26, 36
			if n < 40 {
				continue
			}
			switch op := binary.NativeEndian.Uint32(b[4:]); op {
			default:
				mu.Lock()
				threads = append(threads, binary.NativeEndian.Uint32(b[32:]))
				mu.Unlock()
			case interruptOp: // of one that is killed
			case initOp:
				var out bytes.Buffer
				init := [16]uint32{7, 31, 0, 0, 0, 4096}
				binary.Write(&out, binary.NativeEndian, struct {
					Length, Error uint32
					Unique        uint64
					Init          [16]uint32
				}{16 + 64, 0, binary.NativeEndian.Uint64(b[8:]), init})
				unix.Write(fd, out.Bytes())
			}
		}
	}()
	return waiting, end
}
