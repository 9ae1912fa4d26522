package linux

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// A snapshot is one look at the machine.
type snapshot struct {
	root    int // /proc
	pipeDev uint64
	shmDev  uint64
	*spaceSet
	ix    *index
	again *index // of a second pass; see hidden

	processes  map[int]processRead
	kinds      map[host.Object]host.Descriptor // sockets met so far
	holders    map[host.Object][]host.Holder
	mapped     map[object]object // what the processes read so far map, by its key in the lists of mappings
	mem        *memoryIndex
	sysv       map[uint64]*sysv            // by IPC namespace
	queueFS    map[uint64]bool             // devices that were asked whether they are file systems of message queues
	looked     map[object]map[object][]ref // see closer
	fixed      map[object][]fixedHold      // see rings
	untold     []host.Gap                  // what is in tables of io_uring and the kernel does not name
	terminals  []terminals
	numbered   map[uint64][]object // slave sides by their number, on whichever file system
	traced     map[int][]int       // by who traces them
	handles    map[int]procDir     // see handle
	order      []int               // their pids, the first opened first
	starts     map[int]uint64      // when their processes started, by the handle's descriptor; see start
	audited    map[uint32][]int    // processes of each audit session
	holderless *holderless         // see parked
	gaps       []host.Gap
	past       *past // as it was when it was asked for first; see Remembered
}

type processRead struct {
	p   host.Process
	err error
}

// Snapshot begins one look at the machine.
func (h *Host) Snapshot(context.Context) (host.Snapshot, error) {
	root, err := openProcFS()
	if err != nil {
		return nil, err
	}
	dev, err := pipeDevice()
	if err != nil {
		unix.Close(root)
		return nil, err
	}
	memory, err := memoryDevice()
	if err != nil {
		unix.Close(root)
		return nil, err
	}
	h.readClock()
	return &snapshot{root: root, pipeDev: dev, shmDev: memory, spaceSet: h.newSpaces(),
		processes: map[int]processRead{}, holders: map[host.Object][]host.Holder{}, mapped: map[object]object{},
		queueFS: map[uint64]bool{}, sysv: map[uint64]*sysv{}, looked: map[object]map[object][]ref{}, traced: map[int][]int{}, handles: map[int]procDir{}, starts: map[int]uint64{}, kinds: map[host.Object]host.Descriptor{}}, nil
}

// pipeDevice returns the device number of the kernel's file system of pipes, which tells them from FIFOs.
func pipeDevice() (uint64, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("make pipe: %w", err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		return 0, fmt.Errorf("stat pipe: %w", err)
	}
	return st.Dev, nil
}

// Close ends the look. A second call does nothing but return an error.
func (s *snapshot) Close() error {
	if s.root < 0 {
		return os.ErrClosed
	}
	s.spaceSet.close()
	for _, d := range s.handles {
		d.close()
	}
	root := s.root
	s.root, s.handles = -1, nil
	return unix.Close(root)
}

// Gaps returns what could not be read so far. Processes that nobody asked for are counted where many have
// the same gap.
func (s *snapshot) Gaps() []host.Gap {
	gaps := slices.Clone(s.gaps)
	if s.ix == nil {
		return gaps
	}
	var others []host.Gap
	for _, g := range s.ix.gaps {
		switch _, asked := s.processes[g.PID]; {
		case !asked:
			others = append(others, g)
		case !slices.Contains(gaps, g):
			gaps = append(gaps, g)
		}
	}
	return append(gaps, posix.SumGaps(others)...)
}

// index returns who holds what, read at the first call.
func (s *snapshot) index(ctx context.Context) *index {
	if f := s.h.files.Load(); s.ix == nil && f != nil {
		var err error
		if s.ix, err = passIndex(ctx, f, s.root, s.pipeDev); err != nil {
			s.gaps = append(s.gaps, host.Gap{What: "descriptors by BPF", Why: err.Error() + "; they were read by /proc"})
		}
	}
	if s.ix == nil {
		s.ix = scan(ctx, s.root, s.pipeDev)
	}
	return s.ix
}

// Process reads a process, once.
func (s *snapshot) Process(ctx context.Context, pid int) (host.Process, error) {
	if r, ok := s.processes[pid]; ok {
		return r.p, r.err
	}
	p, err := s.readProcess(ctx, pid)
	for _, d := range p.Descriptors {
		if d.Kind == host.Unix || d.Kind.Inet() {
			s.kinds[d.Object] = d
		}
	}
	s.processes[pid] = processRead{p, err}
	return p, err
}

// Holders returns who holds an object, by ascending pid.
func (s *snapshot) Holders(ctx context.Context, name host.Object) ([]host.Holder, error) {
	if which, ok := strings.CutPrefix(string(name), recalled); ok {
		hs, gaps, err := s.h.recalledHolders(which)
		s.gaps = append(s.gaps, gaps...)
		return hs, err
	}
	o, ok := parseObject(name)
	if !ok {
		return nil, fmt.Errorf("find holders of %q: %w", name, errSyntax)
	}
	if hs, ok := s.holders[name]; ok {
		return hs, nil
	}
	switch o.class {
	case queueObject, semObject:
		return s.sysvHolders(o), nil
	case traceObject:
		return s.traceHolders(o), nil
	}
	asked := o.class == socketObject && len(s.holders) == 0 // the first that is asked about: the connection
	before := len(s.gaps)
	hs := s.descriptorHolders(ctx, o, name)
	until := part(ctx, 2)
	for seen, tries := false, 0; asked && len(hs) == 0 && o.n != 0 && ctx.Err() == nil; tries++ {
		seen = seen || len(s.index(ctx).of(o)) > 0
		if tries == maxHops || !seen && tries == 1 || !until.IsZero() && time.Now().After(until) {
			break
		}
		s.ix, s.gaps = nil, s.gaps[:before]
		hs = s.descriptorHolders(ctx, o, name)
	}
	if o.class == fileObject || o.class == sysvObject || o.class == ringObject {
		hs = s.mappers(ctx, o, hs)
	}
	if (o.class == socketObject || o.class == pipeObject) && !s.index(ctx).complete(o) {
		hs = s.fixedHolders(ctx, o, name, hs)
		if asked && len(hs) == 0 && o.n != 0 {
			s.mapped[o] = o
			if hs = s.mappers(ctx, o, hs); len(hs) == 0 {
				s.unheld(ctx, o)
			}
		}
	}
	if s.ix.pass != nil {
		s.hidden(ctx, o, name)
	}
	s.holders[name] = hs
	return hs, nil
}

// maxHops is how often all descriptors are read again where nobody has the asked connection any more with whom it was seen: processes
// may send it to each other all the time.
const maxHops = 10

// descriptorHolders returns who holds an object by a descriptor, by ascending pid.
func (s *snapshot) descriptorHolders(ctx context.Context, o object, name host.Object) []host.Holder {
	refs := s.refs(ctx, o)
	slices.Reverse(refs) // nearly sorted, where there are very many
	slices.SortFunc(refs, func(a, b ref) int {
		return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.fd, b.fd), cmp.Compare(a.tid, b.tid))
	})
	var hs []host.Holder
	for len(refs) > 0 {
		n := slices.IndexFunc(refs, func(r ref) bool { return r.pid != refs[0].pid })
		if n < 0 {
			n = len(refs)
		}
		if h, ok := s.holder(ctx, refs[:n], o, name); ok {
			hs = append(hs, h)
		}
		refs = refs[n:]
	}
	return hs
}

// maxHandles bounds how many processes a snapshot keeps a handle of.
const maxHandles = 256

// handle returns a handle of a process, the same whenever it is asked for: who was found to hold an object is
// then read, and not who got its pid since. Beyond the bound those that were kept longest give way.
func (s *snapshot) handle(pid int) (procDir, error) {
	if d, ok := s.handles[pid]; ok {
		return d, nil
	}
	d, err := openProc(s.root, pid)
	if err != nil {
		return procDir{}, err
	}
	if len(s.order) == maxHandles {
		oldest := s.handles[s.order[0]]
		delete(s.starts, oldest.fd) // the number will be another's
		oldest.close()
		delete(s.handles, s.order[0])
		s.order = s.order[1:]
	}
	s.handles[pid], s.order = d, append(s.order, pid)
	return d, nil
}

// start returns when a process started, in ticks, read once for a handle: nothing that the process does changes it
// (de_thread in fs/exec.c hands it on with the pid). That the process still runs it does not say.
func (s *snapshot) start(d procDir) (uint64, error) {
	if t, ok := s.starts[d.fd]; ok {
		return t, nil
	}
	st, err := d.stat()
	if err != nil {
		return 0, err
	}
	s.starts[d.fd] = st.start
	return st.start, nil
}

// maxModes is of how many descriptors that one process has of one object the modes are read. Very many are
// there to keep us busy.
const maxModes = 1024

// holder makes a holder of the descriptors of one process; false where it has ended.
func (s *snapshot) holder(ctx context.Context, refs []ref, o object, name host.Object) (host.Holder, bool) {
	h := host.Holder{ID: host.ID{PID: int(refs[0].pid)}}
	for _, r := range refs {
		h.FDs = append(h.FDs, int(r.fd))
	}
	h.FDs = slices.Compact(h.FDs)
	lost := func(err error) (host.Holder, bool) {
		s.gaps = append(s.gaps, host.Gap{PID: h.PID, What: "process", Why: whyUnread(h.PID, err)})
		return host.Holder{}, false
	}
	d, err := s.handle(h.PID)
	if err != nil {
		return lost(err)
	}
	if h.Start, err = s.start(d); err != nil {
		return lost(err)
	}
	// Another daemon may have had a copy for a moment (see socket), as may whoever was just closing it; and the
	// pid may be another process's by now.
	if !slices.ContainsFunc(refs[:min(len(refs), maxModes)], func(r ref) bool { return s.holds(ctx, d, r, o) }) {
		if _, err := d.stat(); err != nil {
			return lost(err)
		}
		s.gaps = append(s.gaps, host.Gap{PID: h.PID, What: "descriptors", Why: "they changed while the host was looked at"})
		return host.Holder{}, false
	}
	if o.class == socketObject {
		h.Mode = s.socketMode(o, name)
		return h, true
	}
	h.Mode = refs[0].mode(d)
	for i, r := range refs[1:] {
		if h.Mode == host.ReadWrite {
			break
		}
		if i == maxModes || ctx.Err() != nil {
			h.Mode = "" // the others may have another
			break
		}
		h.Mode = h.Mode.With(r.mode(d))
	}
	return h, true
}

func (s *snapshot) socketMode(o object, name host.Object) host.Mode {
	if d, ok := s.kinds[name]; ok {
		return d.Mode
	}
	if s.home.unixes != nil {
		if u, ok := s.home.unixes.byInode[o.n]; ok {
			return s.home.unixes.mode(u)
		}
	}
	return host.ReadWrite
}

// Peers returns the objects at the other end of one.
func (s *snapshot) Peers(ctx context.Context, name host.Object) ([]host.Object, error) {
	o, ok := parseObject(name)
	if !ok {
		return nil, fmt.Errorf("find peers of %q: %w", name, errSyntax)
	}
	if p := o.peer(); p.class != 0 {
		return []host.Object{p.name()}, nil
	}
	d, ok := s.socket(ctx, name)
	if !ok {
		return nil, nil
	}
	ns := s.home
	if n := s.others[d.NetNS]; n != nil {
		ns = n
	}
	switch d.Kind {
	case host.UDP:
		return ns.datagramPeers(ctx, &d)
	case host.Unix:
		return s.unixPeers(ctx, d)
	}
	if d.Peer == "" {
		return nil, nil
	}
	return []host.Object{d.Peer}, nil
}

// socket returns the descriptor of a socket. Where no process that was read so far holds it, one that does
// is read.
func (s *snapshot) socket(ctx context.Context, name host.Object) (host.Descriptor, bool) {
	if d, ok := s.kinds[name]; ok {
		return d, true
	}
	holders, err := s.Holders(ctx, name)
	if err != nil {
		return host.Descriptor{}, false
	}
	for _, h := range holders {
		if _, err := s.Process(ctx, h.PID); err != nil {
			continue // it is a gap of whoever asks for the process
		}
		if d, ok := s.kinds[name]; ok {
			return d, true
		}
	}
	return host.Descriptor{}, false
}

// unixPeers returns the socket that a UNIX socket is connected to, and those that are connected to it.
func (s *snapshot) unixPeers(ctx context.Context, d host.Descriptor) ([]host.Object, error) {
	var peers []host.Object
	if d.Peer != "" {
		peers = append(peers, d.Peer)
	}
	tables := []*namespace{s.home}
	for _, n := range s.others {
		tables = append(tables, n)
	}
	for _, n := range tables {
		if n.unixes == nil {
			continue
		}
		for _, inode := range n.unixes.connected[d.Inode] {
			if o := (object{socketObject, 0, inode}).name(); !slices.Contains(peers, o) {
				peers = append(peers, o)
			}
		}
	}
	slices.Sort(peers)
	return peers, nil
}

// PIDs lists the processes of the machine.
func (*Host) PIDs() ([]int, error) { return allPIDs() }

func allPIDs() ([]int, error) {
	root, err := openProcFS()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return listPIDs(root)
}
