package linux

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
)

// A file that is registered with an io_uring instance stays open without a descriptor, for everybody who holds
// the instance.

// A fixedHold is a process's hold on a file in the table of an instance.
type fixedHold struct {
	pid   int
	start uint64
}

// rings returns who holds what by an io_uring instance alone, read at the first call.
func (s *snapshot) rings(ctx context.Context) map[object][]fixedHold {
	if s.fixed != nil {
		return s.fixed
	}
	s.fixed = map[object][]fixedHold{}
	shared, err := anonymous()
	if err != nil {
		return s.fixed
	}
	ix := s.index(ctx)
	ix.settle(ctx, s.root, object{class: anonObject})
	until := part(ctx, 4)
	for o := range ix.first {
		// Instances are on the file system of anonymous files (anon_inode_create_getfile in fs/anon_inodes.c); pidfds, of which
		// there are many, are on one of their own.
		if o.class != anonObject || o == shared || o.dev != shared.dev {
			continue
		}
		known := map[int32]bool{}
		for _, r := range ix.of(o) {
			if known[r.pid] {
				continue // the same instance once more
			}
			known[r.pid] = true
			if ctx.Err() != nil || !until.IsZero() && time.Now().After(until) {
				s.gaps = append(s.gaps, host.Gap{What: "io_uring instances", Why: "bound: deadline"})
				return s.fixed
			}
			s.ring(ctx, r, o)
		}
	}
	return s.fixed
}

// ring adds what one descriptor of an instance holds.
func (s *snapshot) ring(ctx context.Context, r ref, o object) {
	d, err := openProc(s.root, int(r.pid))
	if err != nil {
		return
	}
	defer d.close()
	target, _ := d.link(r.path())
	if target != "anon_inode:[io_uring]" {
		return
	}
	st, err := d.stat()
	if err != nil {
		return
	}
	files, err := ringFiles(d, r)
	if err != nil && !gone(err) {
		s.gaps = append(s.gaps, host.Gap{PID: d.pid, What: "files of io_uring descriptor " + strconv.Itoa(int(r.fd)), Why: err.Error()})
	}
	untold := 0
	for _, f := range files {
		if f.untold() {
			untold++
		}
		if x := parseTarget(f.target); x.class != 0 && !slices.Contains(s.fixed[x], fixedHold{d.pid, st.start}) {
			s.fixed[x] = append(s.fixed[x], fixedHold{d.pid, st.start})
		}
	}
	if untold > 0 {
		s.untold = append(s.untold, host.Gap{PID: d.pid, What: "owners",
			Why: fmt.Sprintf("%d files of its io_uring descriptor %d are not told: the socket may be among them", untold, r.fd)})
	}
}

// ringFiles reads the table of an instance through one descriptor of it.
func ringFiles(d procDir, r ref) ([]fixedFile, error) {
	for range 5 {
		b, err := d.readAtMost(r.info(), maxFdinfo)
		if err != nil {
			return nil, err
		}
		if files, ok := parseRing(b); ok {
			return files, nil
		}
	}
	return nil, fmt.Errorf("they could not be read: the instance was in use, or the kernel does not tell")
}

// fixed adds the files in the table of an instance to the descriptors of a process that holds it. They have no
// number.
func (r *reading) fixed(ctx context.Context, ring ref) {
	what := "files of io_uring descriptor " + strconv.Itoa(int(ring.fd))
	files, err := ringFiles(r.d, ring)
	if !r.note(what, ended(err)) {
		return
	}
	if len(files) == maxFixed {
		r.gap(what, fmt.Sprintf("bound: the first %d", maxFixed))
	}
	untold := 0
	for _, f := range files {
		o := parseTarget(f.target)
		d := host.Descriptor{FDs: []int{}, Object: o.name(), Peer: o.peer().name()}
		switch {
		case slices.ContainsFunc(r.p.Descriptors, func(x host.Descriptor) bool { return d.Object != "" && x.Object == d.Object }):
			continue // a descriptor says more
		case o.class == socketObject:
			d.Inode, d.FDs = o.n, []int{int(ring.fd)} // what is not told of it is told of the instance
			d.Kind = host.OtherSocket
			r.s.listed(ctx, &d, r)
			d.FDs = []int{}
		case o.class == pipeObject:
			d.Kind, d.Inode = host.Pipe, o.n
		case strings.HasPrefix(f.target, "/"):
			d.Kind, d.Path = host.File, f.target
		default:
			if f.untold() {
				untold++
			}
			d.Kind, d.Name = "other", f.target
		}
		r.p.Descriptors = append(r.p.Descriptors, d)
	}
	if untold > 0 {
		r.gap(what, strconv.Itoa(untold)+" of them are not told: others may hold them")
	}
}

// fixedHolders adds to the holders of an object those who hold it by an io_uring instance.
func (s *snapshot) fixedHolders(ctx context.Context, o object, name host.Object, hs []host.Holder) []host.Holder {
	for _, f := range s.rings(ctx)[o] {
		i := slices.IndexFunc(hs, func(h host.Holder) bool { return h.PID == f.pid })
		switch {
		case i >= 0 && o.class == pipeObject:
			hs[i].Mode = "" // that of a registered file is not told
		case i < 0:
			h := host.Holder{ID: host.ID{PID: f.pid, Start: f.start}, FDs: []int{}}
			if o.class == socketObject {
				h.Mode = s.socketMode(o, name)
			}
			hs = append(hs, h)
		}
	}
	slices.SortFunc(hs, func(a, b host.Holder) int { return a.PID - b.PID })
	return hs
}
