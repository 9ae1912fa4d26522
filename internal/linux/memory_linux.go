package linux

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// shared adds the mappings of a process to its descriptors: they are ends of channels like these, without a
// number.
func (r *reading) shared(ctx context.Context, ms []mapping) {
	for _, m := range ms {
		o := r.d.objectOf(m, r.s.shmDev)
		if o.class == ringObject || o.class == socketObject {
			r.mapped(ctx, m, o)
			continue
		}
		d := host.Descriptor{FDs: []int{}, Kind: memoryKind(m.path), Mode: m.mode, Inode: m.ino, Object: o.name(), Peer: o.peer().name(), Path: m.path}
		r.p.Descriptors = append(r.p.Descriptors, d)
		if o.class == 0 {
			continue
		}
		// Files that are only read from, such as caches of the C library, are mapped by everybody.
		if m.mode.Writes() || d.Kind != host.File {
			r.s.mapped[o] = r.d.mapKey(m, r.s.shmDev)
		}
	}
}

// mapped adds an io_uring instance or a socket that the process has mapped, and no descriptor of.
func (r *reading) mapped(ctx context.Context, m mapping, o object) {
	r.s.mapped[o] = o
	if slices.ContainsFunc(r.p.Descriptors, func(d host.Descriptor) bool { return d.Object == o.name() }) {
		return // that says more
	}
	d := host.Descriptor{FDs: []int{}, Kind: host.IOUring, Mode: m.mode, Object: o.name(), Peer: o.peer().name(), Name: m.path}
	if o.class == socketObject {
		d.Kind, d.Inode, d.Name = host.OtherSocket, o.n, ""
		r.s.listed(ctx, &d, r)
	} else {
		r.gap("files of "+string(o.name()), "it has the instance mapped and no descriptor of it: what that holds is not told")
	}
	r.p.Descriptors = append(r.p.Descriptors, d)
}

// memoryKind tells shared memory from files by the kernel's own names.
func memoryKind(path string) host.Kind {
	switch {
	case strings.HasPrefix(path, memfdPath):
		return host.Memfd
	case strings.HasPrefix(path, sysvPath), strings.HasPrefix(path, zeroPath), strings.HasPrefix(path, shmPath):
		return host.SHM
	}
	return host.File
}

// objectOf returns the identity of what is mapped, the same that a descriptor of it has. Some file systems
// show another device there than to stat, so it is looked up through the mapping where it may differ. Of a
// device each who maps it may have another part: it has no identity.
func (d procDir) objectOf(m mapping, shmDev uint64) object {
	if memoryKind(m.path) == host.File && strings.HasPrefix(m.path, "/") {
		var st unix.Statx_t
		err := unix.Statx(d.fd, "map_files/"+m.area, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &st)
		switch {
		case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
			return object{}
		case err == nil:
			return object{fileObject, unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
		}
	}
	return d.mapKey(m, shmDev)
}

// mapKey is how what is mapped appears in the lists of mappings. Anybody may call a file as the kernel calls a
// segment, but not have it on the kernel's own file system.
func (d procDir) mapKey(m mapping, shmDev uint64) object {
	switch {
	case m.path == ringPath:
		o := object{ringObject, m.dev, m.ino}
		if shared, err := anonymous(); err != nil || o.dev == shared.dev && o.n == shared.n {
			return object{} // Linux before 5.12
		}
		return o
	case strings.HasPrefix(m.path, socketPath):
		return object{socketObject, 0, m.ino}
	}
	if m.dev == shmDev && strings.HasPrefix(m.path, sysvPath) {
		return object{sysvObject, d.ipcNamespace(), m.ino}
	}
	return object{fileObject, m.dev, m.ino}
}

// memoryDevice returns the device number of the kernel's own file system of shared memory.
func memoryDevice() (uint64, error) {
	fd, err := unix.MemfdCreate("stopd", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("make memory: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat memory: %w", err)
	}
	return st.Dev, nil
}

// ipcNamespace returns the number of the process's IPC namespace: System V identifiers are counted in each.
func (d procDir) ipcNamespace() uint64 {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, "ns/ipc", &st, 0); err != nil {
		t, _, ok := d.living()
		if !ok {
			return 0
		}
		defer t.close()
		return t.ipcNamespace()
	}
	return st.Ino
}

// A memoryIndex says who maps what, read when it is first needed.
type memoryIndex struct {
	mu   sync.Mutex
	by   map[object][]mapper
	gaps []host.Gap
}

type mapper struct {
	host.ID
	mode host.Mode
}

// memoryScans bounds how many scans may wait for processes that do not let their mappings be read.
var memoryScans = make(chan struct{}, 4)

// memory returns who maps what of all processes. It leaves half of the time to those who are found; what has
// been read until then counts, with a gap.
func (s *snapshot) memory(ctx context.Context) map[object][]mapper {
	if s.mem != nil {
		return s.mem.by
	}
	s.mem = &memoryIndex{by: map[object][]mapper{}}
	if until := part(ctx, 2); !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	select {
	case memoryScans <- struct{}{}:
	default:
		s.gaps = append(s.gaps, host.Gap{What: "shared memory", Why: "too many processes do not let theirs be read"})
		return s.mem.by
	}
	pids, err := listPIDs(s.root)
	if err != nil {
		s.gaps = append(s.gaps, host.Gap{What: "shared memory", Why: err.Error()})
	}
	root, err := unix.FcntlInt(uintptr(s.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		<-memoryScans
		s.gaps = append(s.gaps, host.Gap{What: "shared memory", Why: err.Error()})
		return s.mem.by
	}
	ix, done := &memoryIndex{by: map[object][]mapper{}}, make(chan struct{})
	go func() {
		ix.scan(ctx, root, pids, s.shmDev)
		unix.Close(root)
		<-memoryScans
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		s.gaps = append(s.gaps, host.Gap{What: "shared memory", Why: "bound: deadline"})
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for o, ms := range ix.by {
		s.mem.by[o] = slices.Clone(ms)
	}
	s.gaps = append(s.gaps, posix.SumGaps(ix.gaps)...)
	return s.mem.by
}

// scan reads the mappings of all processes, on all processors.
func (ix *memoryIndex) scan(ctx context.Context, root int, pids []int, shmDev uint64) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for pid := range next {
				ix.process(root, pid, shmDev)
			}
		})
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			break
		}
		next <- pid
	}
	close(next)
	wg.Wait()
}

func (ix *memoryIndex) process(root, pid int, shmDev uint64) {
	d, err := openProc(root, pid)
	if err != nil {
		return // it has ended
	}
	defer d.close()
	ms, err := d.mappings(shmDev)
	id := host.ID{PID: pid}
	if len(ms) > 0 {
		st, err := d.stat()
		if err != nil {
			return // it has ended
		}
		id.Start = st.start
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err != nil && !gone(err) && !os.IsNotExist(err) {
		ix.gaps = append(ix.gaps, host.Gap{PID: pid, What: "shared memory", Why: err.Error()})
	}
	for _, m := range ms {
		key := d.mapKey(m, shmDev)
		ix.by[key] = append(ix.by[key], mapper{id, m.mode})
	}
}

// mappers adds to the holders of an object those who map it.
func (s *snapshot) mappers(ctx context.Context, o object, hs []host.Holder) []host.Holder {
	key, ok := s.mapped[o]
	if !ok {
		return hs
	}
	for _, m := range s.memory(ctx)[key] {
		i := slices.IndexFunc(hs, func(h host.Holder) bool { return h.ID == m.ID })
		if i >= 0 {
			hs[i].Mode = hs[i].Mode.With(m.mode)
			continue
		}
		d, err := s.handle(m.PID)
		if err != nil {
			continue
		}
		if st, err := d.stat(); err != nil || st.start != m.Start {
			continue // it has ended
		}
		hs = append(hs, host.Holder{ID: m.ID, FDs: []int{}, Mode: m.mode})
	}
	slices.SortFunc(hs, func(a, b host.Holder) int { return a.PID - b.PID })
	return hs
}
