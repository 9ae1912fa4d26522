package daemon

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/evidence"
)

// self is this program, whatever lies at its path by now.
const self = "/proc/self/exe"

// A process of the daemon is called stopd, not exe. The name of a process is that of its first thread, which init
// runs on.
func init() {
	if os.Getenv(roleVariable) != "" {
		setName("stopd")
	}
}

func setName(name string) {
	b := append([]byte(name), 0)
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0) // of no account where it fails
}

// fallbackUID is what the front and the tracer run as where there is no user stopd. No distribution and no service
// manager gives it to anybody (systemd.io/UIDS-GIDS).
const fallbackUID = 61113

// unprivileged is the user that strangers' octets are read as; -1 where this process cannot become another.
func unprivileged() int {
	if os.Geteuid() != 0 {
		return -1
	}
	if u, err := user.Lookup("stopd"); err == nil {
		if uid, err := strconv.Atoi(u.Uid); err == nil && uid != 0 {
			return uid
		}
	}
	return fallbackUID
}

// capabilities are those that a role which stays root keeps: to read what belongs to others; and, for a store that
// belongs to another user, to write it. Both keep what they have in memory out of swap. The front and the tracer have none: they are not root; but see bindLow.
var capabilities = map[role][]int{
	reader: {unix.CAP_SETUID, unix.CAP_SETGID}, // until it is somebody
	collector: {unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON,
		unix.CAP_IPC_OWNER, unix.CAP_IPC_LOCK}, // who last used a semaphore is told to those who may read it
	keeper: {unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_IPC_LOCK},
}

// startRestricted starts a role from a thread of its own, which gives up first what binds one thread and is
// inherited: capabilities, and files by Landlock. What it cannot give up the role says when it begins.
func startRestricted(cmd *exec.Cmd, r role, cfg Config) error {
	var rules []rule
	free := r == collector || r == reader // to a home that only its user can open a reader restricts itself
	if !free {                            // of other processes' descriptors the collector would see none any more (ptrace(2), landlock(7))
		var err error
		if rules, err = rulesOf(r, cfg); err != nil {
			return err
		}
	}
	done := make(chan error)
	go onOwnThread(func() {
		done <- func() error {
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			keep, ok := capabilities[r]
			if r == tracer && cfg.NAT.Answer && bindsLow() && unprivileged() >= 0 {
				keep, ok = bindLow, true
				cmd.SysProcAttr = withCapabilities(unprivileged(), bindLow)
			}
			if ok {
				dropBounding(keep)
			}
			if !free {
				restrictFiles(r, rules)
			}
			return cmd.Start()
		}()
	})
	return <-done
}

// bindLow is what a tracer keeps that asks on behalf of others: hosts hear that from a port below 1024 alone. With the other it
// changes its root directory; no call that it has needs that afterwards.
var bindLow = []int{unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT}

// bindsLow reports whether a tracer that this process starts can bind such ports, by what is left to it or is given to it.
func bindsLow() bool {
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	return unix.Capget(&header, &data[0]) == nil && data[0].Permitted&(1<<unix.CAP_NET_BIND_SERVICE) != 0
}

// withCapabilities starts a process as a user who has capabilities, and whose group has nothing.
func withCapabilities(uid int, keep []int) *syscall.SysProcAttr {
	ambient := make([]uintptr, len(keep))
	for i, c := range keep {
		ambient[i] = uintptr(c)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: fallbackUID}, AmbientCaps: ambient}
}

// onOwnThread runs f on a thread that ends with it, and is not the first: the kernel shows that one as the process.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // without unlocking: the thread ends
	}
	done := make(chan struct{})
	go func() { defer close(done); onOwnThread(f) }()
	<-done
	runtime.UnlockOSThread()
}

// dropBounding takes all capabilities but these from what this thread executes.
func dropBounding(keep []int) {
	kept := map[int]bool{}
	for _, c := range keep {
		kept[c] = true
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if !kept[c] {
			unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) // without root there is nothing to drop
		}
	}
}

// confine gives up what the role does not need, in the process itself. The front and the tracer have an empty directory for it. It returns what could not be given up.
func confine(r role, s started, empty *os.File) (left []string) {
	failed := func(what string, err error) {
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", what, err))
		}
	}
	if r != collector {
		failed("restrict files", restricted())
	}
	if r == front || r == tracer {
		if s.UID >= 0 {
			if s.Root {
				failed("change root directory", changeRoot(empty))
			}
			if os.Geteuid() != s.UID { // else it was started as that
				failed("become user "+strconv.Itoa(s.UID), become(s.UID))
			}
		}
		empty.Close()
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			failed("keep others from reading memory", err)
		}
	}
	failed("restrict system calls", restrictCalls(r))
	return left
}

// restricted says why files are not restricted; nil where they are.
func restricted() error {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	unix.Close(fd)
	return errors.New("this kernel has no Landlock, or does not let it be used")
}

func changeRoot(dir *os.File) error {
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// become changes all threads to a user, who has no capability then.
func become(uid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(fallbackUID, fallbackUID, fallbackUID); err != nil { // a group that has nothing
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

// A rule says what may be done below a path.
type rule struct {
	path   string
	access uint64
}

const (
	readFile = unix.LANDLOCK_ACCESS_FS_READ_FILE
	readTree = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	library  = readFile | unix.LANDLOCK_ACCESS_FS_EXECUTE
	rewrite  = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	change   = readTree | rewrite | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER
)

// rulesOf says which files a role may use. The store and its lock are made where they are not there yet: a rule is
// about what exists.
func rulesOf(r role, cfg Config) ([]rule, error) {
	rules := []rule{{self, library}}
	if dynamic() {
		for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"} {
			rules = append(rules, rule{dir, library})
		}
	}
	switch {
	case r == keeper:
		dir := filepath.Clean(cfg.Store)
		if err := makeStore(dir); err != nil {
			return nil, err
		}
		if err := makePast(dir); err != nil {
			return nil, err
		}
		key, err := evidence.LogKeyPath(cfg.Store)
		if err != nil {
			return nil, fmt.Errorf("find log key: %w", err)
		}
		tlsKey, err := TLSKeyPath(cfg.Store)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule{dir, change}, rule{dir + ".lock", rewrite}, rule{key, readFile}, rule{tlsKey, readFile}, rule{pastDir(dir), change})
	case r == tracer && cfg.resolves():
		for _, path := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"} {
			rules = append(rules, rule{path, readFile})
		}
		if len(cfg.Witnesses) == 0 {
			break
		}
		for _, dir := range []string{"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"} {
			rules = append(rules, rule{dir, readTree})
		}
	}
	return rules, nil
}

// makePast makes the directory of what is remembered beside a store that there is.
func makePast(dir string) error {
	if resolved, err := filepath.EvalSymlinks(dir); err != nil {
		return nil // the keeper says why there is none
	} else if err := os.Mkdir(resolved+".past", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("open store %q: %w", dir, err)
	}
	return nil
}

// dynamic tells whether this program needs libraries to start.
func dynamic() bool {
	f, err := elf.Open(self)
	if err != nil {
		return true
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

// landlockVersion is what the kernel knows of Landlock; 0 is nothing.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// restrictFiles leaves this thread, and what it executes, the files of the rules (landlock(7)). The role notices
// where there is no Landlock.
func restrictFiles(r role, rules []rule) {
	v := landlockVersion()
	if v == 0 {
		return
	}
	// Each version of the kernel's interface knows more (include/uapi/linux/landlock.h).
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER - 1}
	if v >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if v >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if v >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if v >= 4 && r != tracer {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if v >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), 24, 0)
	if errno != 0 {
		return
	}
	defer unix.Close(int(fd))
	for _, x := range rules {
		allow(int(fd), x.path, x.access&attr.Handled_access_fs)
	}
	unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
}

// allow adds a rule; what is not there needs none.
func allow(ruleset int, path string, access uint64) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= library | rewrite
	}
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
}
