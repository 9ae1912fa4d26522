package linux

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// readProcess reads one process with its descriptors. What could not be read is a gap of the snapshot. One that
// changes while it is looked at is looked at again.
func (s *snapshot) readProcess(ctx context.Context, pid int) (host.Process, error) {
	d, err := s.handle(pid)
	if err != nil {
		return host.Process{}, err
	}
	const tries = 3
	for try := 1; ; try++ {
		before := len(s.gaps)
		p, changed, err := s.readOnce(ctx, d)
		if err != nil || changed == "" {
			return p, err
		}
		if try < tries && changed == programChanged && ctx.Err() == nil {
			// What it lacked as another program is nothing that this one lacks.
			s.gaps = append(s.gaps[:before:before], slices.DeleteFunc(slices.Clone(s.gaps[before:]), func(g host.Gap) bool { return g.PID == pid })...)
			continue
		}
		s.gaps = append(s.gaps, host.Gap{PID: pid, What: "process", Why: changed})
		return p, nil
	}
}

// How a process may have changed while it was looked at.
const (
	programChanged = "its name, arguments or program changed while it was looked at"
	processEnded   = "it ended while it was looked at"
)

// readOnce reads a process, and how it changed meanwhile; empty is not at all.
func (s *snapshot) readOnce(ctx context.Context, d procDir) (host.Process, string, error) {
	st, err := d.stat()
	if gone(err) {
		return host.Process{}, "", host.ErrNotFound
	}
	if err != nil {
		return host.Process{}, "", err
	}
	p := host.Process{PID: d.pid, PPID: new(st.ppid), StartTicks: st.start, Start: s.startTime(st.start), Name: st.name, TTY: st.tty,
		Priority: new(st.priority), Nice: new(st.nice), Session: new(st.session), PGRP: new(st.pgrp)}
	r := &reading{s: s, d: d, p: &p, until: part(ctx, 8)}
	memory := r.beginMemory(st)
	r.identity(ctx)
	r.place()
	if st.state == 'Z' {
		r.gap("process", "it has ended and waits for its parent; its threads may go on")
	}
	if d.pid == os.Getpid() {
		r.memory(ctx, memory) // or our own descriptors would show what it takes
		memory = nil
	}
	r.descriptors(ctx, memory)
	again, err := d.stat()
	if err != nil {
		return p, processEnded, nil
	}
	if !again.sameProgram(st) {
		return p, programChanged, nil
	}
	return p, "", nil
}

// userHZ is the unit of times in /proc/PID/stat, the same on every architecture that Go runs on.
const userHZ = 100

func (s *snapshot) startTime(ticks uint64) time.Time {
	return s.h.at(time.Duration(ticks) * (time.Second / userHZ))
}

// A reading is a process while it is read.
type reading struct {
	s *snapshot
	d procDir
	p *host.Process
	// job is the batch job by the control group.
	job string
	// maps is what the process shares of its memory.
	maps []mapping
	// rings are its io_uring instances.
	rings []ref
	// unbacked are the devices of its files that are on no real one: a process may serve them.
	unbacked []uint64
	// tracer is the thread that traces it, 0 for none.
	tracer int
	// until is when this process has had its share of the time, if it has very many descriptors; zero is
	// never. Nobody hides by them who else is behind a connection.
	until time.Time
}

func (r *reading) gap(what, why string) {
	r.s.gaps = append(r.s.gaps, host.Gap{PID: r.d.pid, What: what, Why: why})
}

// note records an error as a gap.
func (r *reading) note(what string, err error) bool {
	if err != nil {
		r.gap(what, err.Error())
	}
	return err == nil
}

func (r *reading) identity(ctx context.Context) {
	b, err := r.d.read("status")
	if r.note("user and group ids", err) {
		st, err := parseStatus(b)
		if r.note("user and group ids", err) {
			u, g := r.s.h.uids, r.s.h.gids
			r.p.RUID, r.p.EUID, r.p.SUID = u.known(st.uid[0]), u.known(st.uid[1]), u.known(st.uid[2])
			r.p.RGID, r.p.EGID, r.p.SGID = g.known(st.gid[0]), g.known(st.gid[1]), g.known(st.gid[2])
			if r.p.RUID == nil || r.p.EUID == nil || r.p.SUID == nil || r.p.RGID == nil || r.p.EGID == nil || r.p.SGID == nil {
				r.gap("user and group ids", "some are not of the user namespace that the daemon is in")
			}
			r.p.RUser, r.p.EUser = r.name(ctx, r.p.RUID), r.name(ctx, r.p.EUID)
			r.tracer = st.tracer
		}
	}
	r.p.LoginUID = r.audit("loginuid")
	if r.p.LoginUID != nil { // the kernel sets both at once
		r.p.AuditSession = r.audit("sessionid")
	}
}

func (r *reading) name(ctx context.Context, uid *uint32) string {
	if uid == nil {
		return ""
	}
	return r.s.h.UserName(ctx, *uid)
}

// audit reads an audit id; the kernel shows 2^32-1 where none was set.
func (r *reading) audit(name string) *uint32 {
	b, err := r.d.read(name)
	if os.IsNotExist(err) {
		return nil // a kernel without audit
	}
	if !r.note(name, err) {
		return nil
	}
	n, ok := parseAuditID(b)
	if !ok {
		return nil
	}
	return &n
}

// place reads where the process is: directory and control group.
func (r *reading) place() {
	d := r.d
	if t, _, ok := d.living(); ok {
		defer t.close()
		d = t
	}
	if cwd, err := d.link("cwd"); r.note("working directory", ended(err)) {
		r.p.CWD = cwd
	}
	if b, err := r.d.read("cgroup"); r.note("control group", err) {
		r.p.Cgroup = parseCgroup(b)
		r.p.Container = containerOf(r.p.Cgroup)
		r.job = jobOfCgroup(b)
		r.p.Job = posix.JobOf(r.job, host.Job{})
	}
}

// ended leaves out the error of a link that a kernel thread or a process that is ending does not have.
func ended(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// memoryTimeout is how long the parts of a process may take that its user can make block: its program may be
// in a file system of their own making, and on some kernels so may its arguments and environment.
var memoryTimeout = 250 * time.Millisecond // not a constant for the tests alone

// memoryReadings bounds how many such reads may be stuck at once.
var memoryReadings = make(chan struct{}, 16)

type fromMemory struct {
	args, environ []string
	maps          []mapping
	exe           string
	deleted       bool
	x             executable
	gaps          map[string]error
}

// beginMemory begins to read what may block, aside. The channel is nil where it cannot.
func (r *reading) beginMemory(st stat) <-chan fromMemory {
	select {
	case memoryReadings <- struct{}{}:
	default:
		r.gap("arguments, environment and program", "too many processes do not let theirs be read")
		return nil
	}
	dir, err := unix.FcntlInt(uintptr(r.d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		<-memoryReadings
		r.gap("arguments, environment and program", err.Error())
		return nil
	}
	done := make(chan fromMemory, 1)
	go func() {
		d := procDir{dir, r.d.pid}
		m := d.memory(r.s.h.exes, st, r.s.shmDev)
		d.close()
		<-memoryReadings
		done <- m
	}()
	return done
}

// memory waits for what was read aside.
func (r *reading) memory(ctx context.Context, done <-chan fromMemory) {
	if done == nil {
		return
	}
	wait := memoryTimeout
	if until := part(ctx, 4); !until.IsZero() {
		wait = min(wait, time.Until(until))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var m fromMemory
	select {
	case m = <-done:
	case <-timer.C:
		r.gap("arguments, environment and program", "reading them did not end in time: the process may block it")
		return
	case <-ctx.Done():
		r.gap("arguments, environment and program", "bound: deadline")
		return
	}
	r.maps = m.maps
	for _, what := range []string{"arguments", "environment", "shared memory", "program", "hash of the program"} {
		if err := ended(m.gaps[what]); err != nil {
			r.gap(what, err.Error())
		}
	}
	r.p.Args, r.p.Exe, r.p.ExeSHA256, r.p.ExeBuildID = m.args, m.exe, m.x.sha256, m.x.buildID
	if m.exe != "" {
		r.p.ExeDeleted = new(m.deleted)
	}
	login, job := posix.ParseEnviron(m.environ)
	r.p.Login, r.p.Job = login, posix.JobOf(r.job, job)
}

func (d procDir) memory(exes *executables, st stat, shmDev uint64) fromMemory {
	m := fromMemory{gaps: map[string]error{}}
	if t, of, ok := d.living(); ok {
		defer t.close()
		d, st = t, of
	}
	b, err := d.area("cmdline", st.args, maxArguments)
	m.args, m.gaps["arguments"] = posix.ParseStrings(b), err
	b, err = d.area("environ", st.environ, maxProcFile)
	m.environ, m.gaps["environment"] = posix.ParseStrings(b), err
	m.maps, m.gaps["shared memory"] = d.mappings(shmDev)
	if m.exe, err = d.link("exe"); err != nil {
		m.gaps["program"] = err
		return m
	}
	f, err := d.open("exe")
	if err != nil {
		m.gaps["program"] = err
		return m
	}
	defer f.Close()
	var file unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err == nil && file.Nlink == 0 {
		m.deleted = true
		m.exe = strings.TrimSuffix(m.exe, " (deleted)")
	}
	m.x, m.gaps["hash of the program"] = exes.of(f)
	return m
}

// maxArguments is how much of a process's arguments a report takes. The kernel lets a user have megabytes.
const maxArguments = 32 << 10

// descriptors reads the descriptors of the process, and of threads that have some of their own, and adds what
// of its memory is read aside.
func (r *reading) descriptors(ctx context.Context, aside <-chan fromMemory) {
	read := func(dir string, tid int) {
		t := &table{r: r, tid: tid, pidfd: -1, known: map[tableKey]int{}}
		defer t.close()
		t.read(ctx, dir)
	}
	read("fd", 0)
	for _, tid := range r.s.index(ctx).threads[r.d.pid] {
		read(filepath.Join("task", strconv.Itoa(tid), "fd"), tid)
	}
	slices.SortStableFunc(r.p.Descriptors, func(a, b host.Descriptor) int { return a.FDs[0] - b.FDs[0] })
	for _, ring := range r.rings {
		r.fixed(ctx, ring)
	}
	r.served(ctx, r.unbacked)
	r.memory(ctx, aside)
	r.shared(ctx, r.maps)
	r.sysv()
	r.traces()
}
