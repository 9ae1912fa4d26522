package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

// Accelerate lets the kernel list the descriptors of all processes by a program, from the next snapshot on.
// Where it does not, the error says why and everything goes on by /proc.
func (h *Host) Accelerate() error {
	if err := sameProcesses(); err != nil {
		return err
	}
	f, err := bpf.Open()
	if err != nil {
		return err
	}
	if old := h.files.Swap(f); old != nil {
		old.Close()
	}
	return nil
}

// sameProcesses fails where /proc counts processes otherwise than the daemon's own PID namespace, as the
// kernel's lists do.
func sameProcesses() error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && len(strings.Fields(ids)) != 1 {
			return errors.New("/proc is of another PID namespace than the daemon")
		}
	}
	return nil
}

// Sources says where reports come from.
func (h *Host) Sources() []string {
	from := []string{"netlink", "proc"}
	if h.files.Load() != nil {
		from = append(from, "bpf")
	}
	if p := h.past.Load(); p != nil && p.isOff() == nil {
		from = append(from, "recorder")
	}
	return from
}

// maxRefs is how many descriptors an index takes: a quarter of a gigabyte.
const maxRefs = 4 << 20

// A pass is what fills an index by the kernel's iterator.
type pass struct {
	files   *bpf.Files
	pipeDev uint64
	// found is what is known of each of the index's refs beside, by the same number.
	found []found
	// own is the first thread that was met of each table of threads; see index.threads.
	own map[ownTable]int32
	cut bool // not all could be read
	// unsure are refs whose objects stat(2) has to tell, by inode.
	unsure map[uint64][]int32
	// rest are tables that were not read whole, the newest processes first.
	rest []position
}

type ownTable struct {
	pid   uint32
	table uint64
}

// A found is what the kernel says of a descriptor. Addresses only serve to be compared.
type found struct {
	file, table                uint64
	references, waiters, files uint32
}

// What ref.told has: that the kernel told the descriptor's mode, which, and that stat(2) told the object.
const (
	toldMode  = 4
	toldWhich = 3
	toldStat  = 8
)

// modes are those of records.
var modes = [4]host.Mode{"", host.Read, host.Write, host.ReadWrite}

// mode returns the mode of a descriptor, read where nobody told it.
func (r ref) mode(d procDir) host.Mode {
	if r.told&toldMode != 0 {
		return modes[r.told&toldWhich]
	}
	return d.mode(r)
}

// passRest is how many descriptors of one table are looked at in a turn, once each table had its first.
const passRest = 16 * turn

// passIndex reads the descriptors of all processes in one pass, of each table a turn. What was not read
// whole, because there is more in a table, or not enough time, is read when somebody is looked for whom the
// index does not have for sure.
func passIndex(ctx context.Context, files *bpf.Files, root int, pipeDev uint64) (*index, error) {
	ix := newPass(files, pipeDev)
	if err := ix.all(ctx, root); err != nil {
		return nil, err
	}
	// Copies that the daemon has of others' descriptors do not make it a holder; see table.
	self := share{buf: make([]byte, 32<<10), threads: map[int][]int{}, rest: []position{{pid: int32(os.Getpid())}}}
	for len(self.rest) > 0 {
		p := self.rest[0]
		if ctx.Err() != nil {
			self.gaps = append(self.gaps, host.Gap{PID: int(p.pid), What: "descriptors", Why: "bound: deadline"})
			break
		}
		self.rest = nil
		self.table(root, pipeDev, p)
	}
	for i, o := range self.objects {
		ix.add(o, self.refs[i])
		ix.pass.found = append(ix.pass.found, found{})
	}
	ix.gaps = append(ix.gaps, self.gaps...)
	return ix, nil
}

func newPass(files *bpf.Files, pipeDev uint64) *index {
	return &index{first: map[object]int32{}, threads: map[int][]int{},
		pass: &pass{files: files, pipeDev: pipeDev, own: map[ownTable]int32{}, unsure: map[uint64][]int32{}}}
}

// all is the one pass, for a quarter of the time.
func (ix *index) all(ctx context.Context, root int) error {
	short := ctx
	if until := part(ctx, 4); !until.IsZero() {
		var cancel context.CancelFunc
		short, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	var last uint32
	err := ix.pass.files.Read(short, bpf.Tables{Most: turn}, func(r *bpf.Record) bool {
		last = r.PID
		ix.record(r)
		return len(ix.refs) < maxRefs
	})
	if len(ix.refs) >= maxRefs || short.Err() != nil && errors.Is(err, short.Err()) {
		err = nil
		pids, e := listPIDs(root)
		if e != nil {
			ix.gaps = append(ix.gaps, host.Gap{What: "processes", Why: e.Error()})
		}
		for _, pid := range pids {
			if pid > int(last) && pid != os.Getpid() {
				ix.pass.rest = append(ix.pass.rest, position{pid: int32(pid)})
			}
		}
	}
	slices.SortStableFunc(ix.pass.rest, func(a, b position) int { return int(b.pid - a.pid) })
	return err
}

// record enters one descriptor.
func (ix *index) record(r *bpf.Record) {
	p := ix.pass
	ref := ref{pid: int32(r.PID), fd: int32(r.FD), told: toldMode | uint8(r.Mode&toldWhich)}
	if r.TID != r.PID {
		key := ownTable{r.PID, r.Table}
		first, ok := p.own[key]
		if !ok {
			first = int32(r.TID)
			p.own[key] = first
			ix.threads[int(r.PID)] = append(ix.threads[int(r.PID)], int(first))
		}
		if first != int32(r.TID) {
			return // it shares the table of another thread
		}
		ref.tid = first
	}
	if r.Mode == bpf.Cut {
		p.rest = append(p.rest, position{ref.pid, ref.tid, int64(r.FD)})
		return
	}
	o, sure := recordObject(r, p.pipeDev)
	switch {
	case o.class == 0:
		return
	case !sure && o.class == masterObject:
		ix.gaps = append(ix.gaps, host.Gap{PID: int(r.PID), What: fmt.Sprint("descriptor ", r.FD), Why: errTerminal.Error()})
		return
	case !sure:
		ref.told |= toldStat
		p.unsure[r.Inode] = append(p.unsure[r.Inode], int32(len(ix.refs)))
		ix.refs = append(ix.refs, ref)
	default:
		ix.add(o, ref)
	}
	p.found = append(p.found, found{r.File, r.Table, r.References, r.Waiters, r.Files})
}

// resolve asks stat(2) for the objects of inodes that the kernel alone does not tell, one descriptor of each.
func (ix *index) resolve(root int) {
	for _, inode := range slices.Sorted(maps.Keys(ix.pass.unsure)) {
		refs := ix.pass.unsure[inode]
		var st unix.Statx_t
		err := error(unix.ENOENT)
		for _, i := range refs {
			r := ix.refs[i]
			path := fdPath(position{pid: r.pid, tid: r.tid}) + "/" + fmt.Sprint(r.fd)
			if err = statFD(root, append([]byte(path), 0), &st); err == nil {
				break
			}
		}
		if err != nil {
			if !gone(err) {
				ix.gaps = append(ix.gaps, host.Gap{PID: int(ix.refs[refs[0]].pid), What: "descriptors", Why: err.Error()})
			}
			continue
		}
		if o := objectOf(&st, ix.pass.pipeDev); o.class != 0 {
			for _, i := range refs {
				ix.refs[i].next, ix.first[o] = ix.first[o], i+1
			}
		}
	}
	clear(ix.pass.unsure)
}

// settle reads on until all holders of an object are known, or a third of the time that is left has passed:
// with the one pass that is half.
func (ix *index) settle(ctx context.Context, root int, o object) {
	p := ix.pass
	if p == nil {
		return // a scan reads all at once
	}
	for until := part(ctx, 3); ; {
		if o.class != socketObject && o.class != pipeObject && o.class != masterObject {
			ix.resolve(root)
		}
		if len(p.rest) == 0 || ix.complete(o) {
			return
		}
		todo := p.rest
		for p.rest = nil; len(todo) > 0 && len(ix.refs) < maxRefs && ctx.Err() == nil && (until.IsZero() || time.Now().Before(until)); todo = todo[1:] {
			if err := p.turn(ctx, ix, todo[0]); err != nil && ctx.Err() == nil && !gone(err) {
				ix.gaps = append(ix.gaps, host.Gap{PID: int(todo[0].pid), What: "descriptors", Why: err.Error()})
			}
		}
		if len(todo) > 0 {
			why := "bound: deadline"
			if len(ix.refs) >= maxRefs {
				why = fmt.Sprintf("bound: %d descriptors on the host", maxRefs)
			}
			for _, t := range append(todo, p.rest...) {
				ix.gaps = append(ix.gaps, host.Gap{PID: int(t.pid), What: "descriptors", Why: why})
			}
			p.rest, p.cut = nil, true
		}
	}
}

// turn reads on in one table, or begins with a process that the one pass did not come to.
func (p *pass) turn(ctx context.Context, ix *index, t position) error {
	tables := bpf.Tables{PID: int(t.pid), Most: passRest}
	if t.offset > 0 {
		tables = bpf.Tables{TID: int(t.pid), First: int(t.offset), Most: passRest}
		if t.tid != 0 {
			tables.TID = int(t.tid)
		}
	}
	return p.files.Read(ctx, tables, func(r *bpf.Record) bool {
		ix.record(r)
		return len(ix.refs) < maxRefs
	})
}

// complete reports whether all who hold an object are known.
func (ix *index) complete(o object) bool {
	if ix.pass == nil {
		return false
	}
	n, counted := ix.unfound(o)
	return counted && n == 0
}

// unfound returns how many references to an object there are beside the descriptors in the index and the
// calls that wait for it: with none all holders are known. It is false where the kernel does not count them.
func (ix *index) unfound(o object) (int, bool) {
	if o.class != socketObject && o.class != pipeObject && o.class != fifoObject {
		return 0, false
	}
	files, tables, n := map[uint64]found{}, map[uint64]position{}, 0
	for i := ix.first[o]; i != 0; i = ix.refs[i-1].next {
		r, f := ix.refs[i-1], ix.pass.found[i-1]
		of := position{pid: r.pid, tid: r.tid}
		if f.file != 0 {
			if first, ok := tables[f.table]; ok && first != of {
				continue // one table of several processes (CLONE_FILES), whose references are counted once
			}
			files[f.file], tables[f.table] = f, of
		}
		n--
	}
	for _, f := range files {
		if int(f.files) != len(files) {
			return 0, false // others have open files of it, or the daemon itself has
		}
		n += int(f.references) - int(f.waiters)
	}
	return max(n, 0), len(files) > 0
}

// hidden notes that an object has more references than descriptors: somebody may hold it without one. All
// descriptors are read a second time before that is said, once a trace: what was under way counts as well.
func (s *snapshot) hidden(ctx context.Context, o object, name host.Object) {
	if n, counted := s.ix.unfound(o); n == 0 || !counted || s.ix.pass.cut {
		return
	}
	if s.again == nil {
		copies.Lock() // a copy that the daemon has is such a reference
		s.again = newPass(s.ix.pass.files, s.pipeDev)
		err := s.again.all(ctx, s.root)
		copies.Unlock()
		if err != nil {
			s.gaps = append(s.gaps, host.Gap{What: "descriptors by BPF", Why: err.Error()})
		}
	}
	s.again.settle(ctx, s.root, o)
	n, counted := s.again.unfound(o)
	n -= len(s.fixed[o]) // they are known
	for i := s.ix.first[o]; i != 0; i = s.ix.refs[i-1].next {
		if s.ix.pass.found[i-1].file == 0 {
			n-- // the daemon's own, which a pass leaves out
		}
	}
	if counted && n > 0 && !s.again.pass.cut {
		s.gaps = append(s.gaps, host.Gap{What: "holders of " + string(name), Why: fmt.Sprintf("the kernel counts %d references more than descriptors: "+
			"somebody may hold it without one, in flight over a UNIX socket or in io_uring", n)})
	}
}
