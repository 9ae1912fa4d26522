package illumos

import (
	"fmt"
	"time"
)

// Where psinfo_t and prcred_t have what is read (sys/procfs.h, with 64 bits).
const (
	psinfoSize = 416
	psPID      = 8
	psPPID     = 12
	psPGID     = 16
	psSID      = 20
	psUID      = 24
	psEUID     = 28
	psGID      = 32
	psEGID     = 36
	psTTY      = 72 // major and minor number, 32 bits each
	psStart    = 88 // seconds and nanoseconds
	psName     = 136
	psNice     = 288 + 27 // of the representative lwp
	psPriority = 288 + 32

	credSize = 32 // without further groups
	credSUID = 8
	credSGID = 20
)

// noDevice is no terminal (PRNODEV).
const noDevice = 1<<64 - 1

// A psinfo is what /proc/PID/psinfo says.
type psinfo struct {
	pid, ppid, pgid, sid   int
	ruid, euid, rgid, egid uint32
	tty                    uint64
	start                  time.Time
	name                   string
	priority, nice         int
}

func parsePsinfo(b []byte) (psinfo, error) {
	if len(b) < psinfoSize {
		return psinfo{}, fmt.Errorf("parse psinfo: %d octets are less than a record", len(b))
	}
	signed := func(at int) int { return int(int32(u32(b, at))) }
	p := psinfo{
		pid: signed(psPID), ppid: signed(psPPID), pgid: signed(psPGID), sid: signed(psSID),
		ruid: u32(b, psUID), euid: u32(b, psEUID), rgid: u32(b, psGID), egid: u32(b, psEGID),
		tty: u64(b, psTTY), name: str(b[psName : psName+16]),
		start: time.Unix(int64(u64(b, psStart)), int64(u64(b, psStart+8))).UTC(), priority: signed(psPriority), nice: int(int8(b[psNice])) - 20, // NZERO
	}
	if y := p.start.Year(); y < 1970 || y > 9999 { // no report can have it
		p.start = time.Time{}
	}
	return p, nil
}

// parseCred parses the saved ids of /proc/PID/cred.
func parseCred(b []byte) (suid, sgid uint32, err error) {
	if len(b) < credSize-4 { // who is in no group has none
		return 0, 0, fmt.Errorf("parse cred: %d octets are less than a record", len(b))
	}
	return u32(b, credSUID), u32(b, credSGID), nil
}
