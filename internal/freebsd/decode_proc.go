package freebsd

import (
	"fmt"
	"time"
)

// Where struct kinfo_proc has what is read (sys/user.h, with 64 bits). Its size has been the same since FreeBSD 5.
const (
	procSize = 1088

	procPID      = 72
	procPPID     = 76
	procPGID     = 80
	procSID      = 88
	procUID      = 168
	procRUID     = 172
	procSVUID    = 176
	procRGID     = 180
	procSVGID    = 184
	procGroups   = 192 // the first is the effective one
	procStart    = 336 // seconds and microseconds, 64 bits each
	procStat     = 388
	procNice     = 389
	procComm     = 447 // 20 octets
	procPriority = 605
	zombie       = 5 // SZOMB
)

// A proc is one record of kern.proc.
type proc struct {
	pid, ppid, pgid, sid int
	ruid, euid, suid     uint32
	rgid, egid, sgid     uint32
	start                uint64 // microseconds since 1970
	nice, priority       int
	ended                bool
	name                 string
}

// parseProcs parses what kern.proc gives: records of procSize octets, each of which says so.
func parseProcs(b []byte) ([]proc, error) {
	var ps []proc
	for ; len(b) > 0; b = b[procSize:] {
		if len(b) < procSize || signed(b, 0) != procSize {
			return nil, fmt.Errorf("parse kern.proc: its records are none of %d octets", procSize)
		}
		ps = append(ps, proc{
			pid: signed(b, procPID), ppid: signed(b, procPPID), pgid: signed(b, procPGID), sid: signed(b, procSID),
			ruid: u32(b, procRUID), euid: u32(b, procUID), suid: u32(b, procSVUID),
			rgid: u32(b, procRGID), egid: u32(b, procGroups), sgid: u32(b, procSVGID),
			start: u64(b, procStart)*1e6 + u64(b, procStart+8), nice: int(int8(b[procNice])), priority: int(b[procPriority]),
			ended: b[procStat] == zombie, name: str(b[procComm : procComm+20]),
		})
	}
	return ps, nil
}

// began is when a process started; zero is unknown.
func (p proc) began() time.Time {
	t := time.UnixMicro(int64(p.start)).UTC()
	if p.start == 0 || t.Year() < 1970 || t.Year() > 9999 { // no report can have it
		return time.Time{}
	}
	return t
}
