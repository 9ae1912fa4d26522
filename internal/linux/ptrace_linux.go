package linux

import (
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
)

// Whoever traces a process (ptrace(2)) commands it. The kernel tells it of the one that is traced, not of the
// tracer, and it names a thread.

// tracerOf returns the process that traces another; 0 for none, or one that may not be seen.
func (s *snapshot) tracerOf(thread int) int {
	if thread == 0 {
		return 0
	}
	d, err := openProc(s.root, thread)
	if err != nil {
		return 0
	}
	defer d.close()
	b, err := d.read("status")
	if err != nil {
		return 0
	}
	st, err := parseStatus(b)
	if err != nil {
		return 0
	}
	return st.tgid
}

// traces adds that the process is traced, and whom it is known to trace.
func (r *reading) traces() {
	add := func(tracee int, m host.Mode, name string) {
		o := object{traceObject, 0, uint64(tracee)}.name()
		r.p.Descriptors = append(r.p.Descriptors, host.Descriptor{FDs: []int{}, Kind: host.PTrace, Mode: m, Object: o, Peer: o, Name: name})
	}
	if r.tracer != 0 {
		by := r.s.tracerOf(r.tracer)
		if by == 0 {
			r.gap("tracer", "the process is traced by thread "+strconv.Itoa(r.tracer)+", whose process could not be read")
		} else {
			add(r.d.pid, host.Read, "by process "+strconv.Itoa(by))
			if !slices.Contains(r.s.traced[by], r.d.pid) {
				r.s.traced[by] = append(r.s.traced[by], r.d.pid)
			}
		}
	}
	for _, pid := range r.s.traced[r.d.pid] {
		add(pid, host.Write, "of process "+strconv.Itoa(pid))
	}
}

// traceHolders returns a traced process and the one that traces it.
func (s *snapshot) traceHolders(o object) []host.Holder {
	pid := int(o.n)
	d, err := openProc(s.root, pid)
	if err != nil {
		return nil
	}
	defer d.close()
	b, err := d.read("status")
	if err != nil {
		return nil
	}
	st, err := parseStatus(b)
	own, ok := s.startOf(pid)
	by := s.tracerOf(st.tracer)
	start, ok2 := s.startOf(by)
	if err != nil || !ok || !ok2 || by == 0 {
		return nil // it is not traced any more
	}
	hs := []host.Holder{{ID: host.ID{PID: pid, Start: own}, FDs: []int{}, Mode: host.Read}, {ID: host.ID{PID: by, Start: start}, FDs: []int{}, Mode: host.Write}}
	slices.SortFunc(hs, func(a, b host.Holder) int { return a.PID - b.PID })
	return hs
}
