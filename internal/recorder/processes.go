package recorder

// processes is the table of processes.
type processes struct {
	all   []process
	slots slots
	pids  chain
}

// A process as it lies in the table.
type process struct {
	start, parentStart, exited                                     uint64
	pid, parent, ruid, euid, loginUID, auditSession, session, path uint32
	parentSlot                                                     uint32
	children                                                       uint32 // that are remembered
	name                                                           [15]byte
	flags                                                          uint8
}

func (p *processes) make(n int) {
	*p = processes{make([]process, n+1), newSlots(n), newList(bucketsFor(n), n)}
}

// processesBytes is what make takes.
func processesBytes(n int) int { return taken[process](n+1) + 4*(n+1) + listBytes(bucketsFor(n), n) }

func (s *process) id() ID { return ID{s.pid, s.start} }

func (h *History) process(n uint32) Process {
	s := &h.processes.all[n]
	p := Process{ID: s.id(), Parent: ID{s.parent, s.parentStart}, Exited: s.exited, Name: append([]byte(nil), name(s.name[:])...),
		RUID: s.ruid, EUID: s.euid, LoginUID: s.loginUID, AuditSession: s.auditSession, Session: s.session,
		Met: s.flags&met != 0, Unsure: s.flags&unsure != 0}
	if s.path != 0 {
		p.Exe = append([]byte(nil), h.paths.at(s.path)...)
	}
	return p
}

// findProcess returns the latest process with a pid that started between two times. Those with one pid were entered in the
// order in which they started.
func (h *History) findProcess(pid uint32, from, to uint64) uint32 {
	p := &h.processes
	for n := p.pids.first(h.pidHash(pid)); n != 0; n = p.pids.next[n] {
		if s := &p.all[n]; s.pid == pid && s.start <= to {
			if s.start < from {
				return 0 // all others are older
			}
			return n
		}
	}
	return 0
}

func (h *History) find(id ID) uint32 { return h.findProcess(id.PID, id.Start, id.Start) }

func (h *History) forked(at uint64, e *Process) {
	if old := h.findProcess(e.PID, 0, 1<<64-1); old != 0 {
		s := &h.processes.all[old]
		if s.start == e.Start {
			return // a sweep was faster
		}
		if s.exited == 0 { // its end was lost
			s.flags |= unsure
			h.exit(old, at)
		}
	}
	h.addProcess(at, e)
}

func (h *History) addProcess(at uint64, e *Process) uint32 {
	p := &h.processes
	n := p.slots.take()
	if n == 0 && p.slots.first != 0 {
		h.dropProcess(chances)
		n = p.slots.take()
	}
	if n == 0 {
		h.missed = true
		h.losses.add(Loss{Full, at, at})
		return 0
	}
	s := &p.all[n]
	*s = process{pid: e.PID, start: e.Start, parent: e.Parent.PID, parentStart: e.Parent.Start, path: h.paths.add(e.Exe)}
	if s.parentSlot = h.find(e.Parent); s.parentSlot != 0 {
		of := &p.all[s.parentSlot]
		of.children++
		if len(e.Exe) == 0 && of.path != 0 { // it runs what its parent does
			s.path = of.path
			h.paths.refs[s.path]++
		}
	}
	s.describe(e)
	p.pids.insert(h.pidHash(e.PID), n)
	return n
}

// describe enters what a process is now.
func (s *process) describe(e *Process) {
	s.ruid, s.euid, s.loginUID, s.auditSession, s.session = e.RUID, e.EUID, e.LoginUID, e.AuditSession, e.Session
	s.name = [15]byte{}
	copy(s.name[:], e.Name)
}

func (h *History) executed(e *Process) {
	if n := h.find(e.ID); n != 0 {
		s := &h.processes.all[n]
		s.describe(e)
		h.paths.drop(s.path)
		s.path = h.paths.add(e.Exe)
	}
}

func (h *History) exited(at uint64, e *Process) {
	n := h.find(e.ID)
	if n == 0 {
		return
	}
	switch s := &h.processes.all[n]; {
	case s.exited == 0:
		s.describe(e)
		h.exit(n, at)
	case s.flags&unsure != 0: // a sweep was faster
		s.describe(e)
		s.exited, s.flags = at, s.flags&^unsure
	}
}

func (h *History) exit(n uint32, at uint64) {
	h.processes.all[n].exited = at
	h.processes.slots.end(n)
	if of := h.joints.of[n]; of != 0 {
		h.unshare(of, at)
	}
}

func (h *History) metProcess(at uint64, e *Process) {
	n := h.find(e.ID)
	if n == 0 {
		if n = h.addProcess(at, e); n == 0 {
			return
		}
		h.processes.all[n].flags |= met
	}
	if s := &h.processes.all[n]; s.exited == 0 {
		s.describe(e)
		if len(e.Exe) > 0 { // it may run another since
			old := s.path
			s.path = h.paths.add(e.Exe)
			h.paths.drop(old)
		}
		s.flags = s.flags&^swept | h.sweep
	}
}

// chances is how many processes that made others which are still remembered are passed over before one has to leave.
const chances = 8

// dropProcess forgets the process that ended first, of the first so many one without children that are remembered.
// Those that it passes over are behind all others then. Of one alone it forgets none with children.
func (h *History) dropProcess(among int) {
	p := &h.processes
	n := uint32(0)
	for i := range among {
		n = p.slots.shift()
		if p.all[n].children == 0 || i == chances-1 {
			break
		}
		p.slots.end(n)
		n = 0
	}
	if n == 0 {
		return
	}
	s := &p.all[n]
	h.losses.forgot(s.exited)
	if of := &p.all[s.parentSlot]; of.children > 0 && of.id() == (ID{s.parent, s.parentStart}) {
		of.children--
	}
	h.paths.drop(s.path)
	h.forgetJoints(n)
	p.pids.remove(h.pidHash(s.pid), n)
	*s = process{}
	p.slots.give(n)
}
