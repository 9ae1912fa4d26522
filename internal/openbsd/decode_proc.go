package openbsd

import (
	"fmt"
	"time"
)

// noDevice is no terminal (NODEV).
const noDevice = 1<<32 - 1

// A proc is one record of kern.proc.
type proc struct {
	pid, ppid, sid, pgid int
	ruid, euid, suid     uint32
	rgid, egid, sgid     uint32
	tty                  uint32 // noDevice for none
	priority, nice       int
	comm                 string
	// start is when it started, in microseconds since 1970; 0 of a process that has ended.
	start uint64
	table uint32 // routing table
}

// parseProcs parses what kern.proc gives: records of procSize octets.
func parseProcs(b []byte) ([]proc, error) {
	if len(b)%procSize != 0 {
		return nil, fmt.Errorf("parse kern.proc: %d octets are no whole records of %d", len(b), procSize)
	}
	ps := make([]proc, 0, len(b)/procSize)
	for ; len(b) > 0; b = b[procSize:] {
		ps = append(ps, parseProc(b[:procSize]))
	}
	return ps, nil
}

func parseProc(b []byte) proc {
	signed := func(at int) int { return int(int32(u32(b, at))) }
	p := proc{
		pid: signed(procPID), ppid: signed(procPPID), sid: signed(procSID), pgid: signed(procPGID),
		ruid: u32(b, procRUID), euid: u32(b, procUID), suid: u32(b, procSVUID),
		rgid: u32(b, procRGID), egid: u32(b, procGID), sgid: u32(b, procSVGID),
		tty: u32(b, procTDev), priority: int(b[procPriority]), nice: int(b[procNice]) - 20, // NZERO
		comm: str(b[procComm : procComm+24]), table: u32(b, procTable),
	}
	if u64(b, procValid) != 0 {
		p.start = u64(b, procStart)*1e6 + uint64(u32(b, procStart+8))
	}
	return p
}

// began is when a process started; zero is unknown.
func (p proc) began() time.Time {
	t := time.UnixMicro(int64(p.start)).UTC()
	if p.start == 0 || t.Year() < 1970 || t.Year() > 9999 { // no report can have it
		return time.Time{}
	}
	return t
}
