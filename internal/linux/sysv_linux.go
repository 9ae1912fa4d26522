package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A sysv is the System V message queues and semaphores of one IPC namespace. The kernel remembers who used them
// last, and no others.
type sysv struct {
	queues []queue
	sets   []semSet
	errs   []error
}

// A user is a queue or a set of semaphores.
type user interface {
	mode(pid int, start time.Time) host.Mode
}

// sysvOf returns what there is in an IPC namespace, read once. d is a process in it.
func (s *snapshot) sysvOf(ns uint64, d procDir) *sysv {
	if v := s.sysv[ns]; v != nil {
		return v
	}
	v := &sysv{}
	s.sysv[ns] = v
	if home, err := ownIPC(); err == nil && home == ns {
		v.read()
	} else if err := d.within(ns, v.read); err != nil {
		v.errs = append(v.errs, fmt.Errorf("of another IPC namespace: %w", err))
	}
	for _, err := range v.errs {
		s.gaps = append(s.gaps, host.Gap{What: "message queues and semaphores", Why: err.Error()})
	}
	return v
}

func ownIPC() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/ipc", &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// within runs f in the IPC namespace of the process, in a thread that ends with it (setns(2); it takes
// CAP_SYS_ADMIN).
func (d procDir) within(ns uint64, f func()) error {
	if t, _, ok := d.living(); ok {
		defer t.close()
		d = t
	}
	fd, err := unix.Openat(d.fd, "ns/ipc", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "ns/ipc", Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != ns {
		return errors.New("the process has left it")
	}
	return apart(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWIPC); err != nil {
			return os.NewSyscallError("setns", err)
		}
		f()
		return nil
	})
}

// apart runs f in a thread that ends with it. The first thread of a process cannot end: it is the one that
// /proc/PID shows.
func apart(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- apart(f) // this one is taken, so it is another
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// maxSemaphores bounds how many semaphores of one namespace are asked about.
const maxSemaphores = 4096

// read reads what the thread's IPC namespace has. That /proc shows the namespace of who opens it.
func (v *sysv) read() {
	list := func(name string) []byte {
		b, err := os.ReadFile("/proc/sysvipc/" + name)
		if err != nil && !os.IsNotExist(err) { // a kernel without them
			v.errs = append(v.errs, err)
		}
		return b
	}
	var err error
	if v.queues, err = parseQueues(list("msg")); err != nil {
		v.errs = append(v.errs, err)
	}
	if v.sets, err = parseSems(list("sem")); err != nil {
		v.errs = append(v.errs, err)
	}
	asked := 0
	for i := range v.sets {
		set := &v.sets[i]
		for n := range set.number {
			if asked++; asked > maxSemaphores {
				v.errs = append(v.errs, fmt.Errorf("bound: %d semaphores", maxSemaphores))
				return
			}
			const getPID = 11 // GETPID of linux/sem.h
			pid, _, e := unix.Syscall6(unix.SYS_SEMCTL, uintptr(set.id), uintptr(n), getPID, 0, 0, 0)
			if e == unix.EINVAL || e == unix.EIDRM {
				break // the set is no more
			}
			if e != 0 {
				v.errs = append(v.errs, fmt.Errorf("last process of semaphores %d: %w", set.id, e))
				break
			}
			set.pids = append(set.pids, int(pid))
		}
	}
}

// sysv lists the queues and semaphores that the process was the last to use.
func (r *reading) sysv() {
	ns := r.d.ipcNamespace()
	if ns == 0 {
		return // it may not be known, as are its descriptors
	}
	v := r.s.sysvOf(ns, r.d)
	add := func(kind host.Kind, class byte, u user, key int64, id uint64) {
		m := u.mode(r.d.pid, r.p.Start)
		if m != u.mode(r.d.pid, time.Time{}) {
			r.gap("message queues and semaphores", "it began after a process with its pid had used "+string(kind)+" "+strconv.FormatUint(id, 10)+": the pid was used again, or the clock was set")
		}
		if m != "" {
			o := object{class, ns, id}.name()
			r.p.Descriptors = append(r.p.Descriptors, host.Descriptor{FDs: []int{}, Kind: kind, Mode: m, Object: o, Peer: o,
				Name: "key " + strconv.FormatInt(key, 10) + " id " + strconv.FormatUint(id, 10)})
		}
	}
	for _, q := range v.queues {
		add(host.Msg, queueObject, q, q.key, q.id)
	}
	for _, set := range v.sets {
		add(host.Sem, semObject, set, set.key, set.id)
	}
}

// sysvHolders returns who used a queue or a set of semaphores last. Those of other namespaces than the daemon's
// are known once a process of theirs was read.
func (s *snapshot) sysvHolders(o object) []host.Holder {
	if home, err := ownIPC(); err != nil || home != o.dev && s.sysv[o.dev] == nil {
		return nil
	}
	var u user
	var pids []int
	v := s.sysvOf(o.dev, procDir{})
	for _, q := range v.queues {
		if o.class == queueObject && q.id == o.n {
			u, pids = q, []int{q.sender, q.receiver}
		}
	}
	for _, set := range v.sets {
		if o.class == semObject && set.id == o.n {
			u, pids = set, slices.Clone(set.pids)
		}
	}
	var hs []host.Holder
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		start, ok := s.startOf(pid)
		if pid == 0 || !ok {
			continue // nobody yet, or it has ended
		}
		if m := u.mode(pid, s.startTime(start)); m != "" {
			hs = append(hs, host.Holder{ID: host.ID{PID: pid, Start: start}, FDs: []int{}, Mode: m})
		}
	}
	return hs
}

// startOf returns when a process started; false where there is none.
func (s *snapshot) startOf(pid int) (uint64, bool) {
	d, err := s.handle(pid)
	if err != nil {
		return 0, false
	}
	st, err := d.stat()
	return st.start, err == nil
}
