package linux

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/stopd/stopd/internal/nlattr"
	"github.com/stopd/stopd/internal/posix"
)

var errSyntax = nlattr.ErrSyntax

// text is [posix.Text].
func text(b []byte) string { return posix.Text(b) }

// A stat is the part of /proc/PID/stat that a report needs (proc_pid_stat(5)).
type stat struct {
	pid, ppid, pgrp, session int
	name                     string
	state                    byte
	tty                      string
	priority, nice           int
	start                    uint64 // clock ticks after boot
	// Where its arguments and environment lie; zero where this may not be known.
	args, environ area
}

// An area is a part of the memory of a process.
type area struct{ from, to uint64 }

// size returns how many octets the area has.
func (a area) size() int {
	if a.to < a.from {
		return 0
	}
	return int(min(a.to-a.from, math.MaxInt))
}

// sameProgram reports whether the process runs the same program as in an earlier look.
func (s stat) sameProgram(t stat) bool {
	return s.start == t.start && s.name == t.name && s.args == t.args && s.environ == t.environ
}

// parseStat parses /proc/PID/stat. The name stands between the first opening and the last closing
// parenthesis and may itself hold both, blanks and newlines: a process chooses it.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return stat{}, fmt.Errorf("parse stat: %w", errSyntax)
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, fmt.Errorf("parse stat: %w", errSyntax)
	}
	var err error
	num := func(b []byte) int {
		n, e := strconv.Atoi(string(b))
		if e != nil {
			err = e
		}
		return n
	}
	s := stat{
		pid: num(bytes.TrimSpace(b[:open])), name: text(b[open+1 : end]), state: f[0][0],
		ppid: num(f[1]), pgrp: num(f[2]), session: num(f[3]), tty: ttyName(num(f[4])),
		priority: num(f[15]), nice: num(f[16]),
	}
	unsigned := func(i int) (n uint64) {
		if i < len(f) { // kernels have added fields
			var e error
			n, e = strconv.ParseUint(string(f[i]), 10, 64)
			err = errors.Join(err, e)
		}
		return n
	}
	s.start = unsigned(19)
	s.args, s.environ = area{unsigned(45), unsigned(46)}, area{unsigned(47), unsigned(48)}
	if err != nil {
		return stat{}, fmt.Errorf("parse stat: %w", errSyntax)
	}
	return s, nil
}

// ttyName names a terminal by its device number.
func ttyName(dev int) string {
	major, minor := deviceOf(dev)
	switch {
	case dev == 0:
		return ""
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<20|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

// deviceOf splits a device number as the kernel encodes it (new_encode_dev).
func deviceOf(dev int) (major, minor uint32) {
	d := uint32(dev)
	return d >> 8 & 0xfff, d&0xff | d>>12&0xfff00
}

// A status is the part of /proc/PID/status that a report needs. IDs are real, effective, saved, file system.
type status struct {
	uid, gid [4]uint32
	// tracer is the thread that traces the process, tgid the process that a thread is of; 0 is none or unknown.
	tracer, tgid int
}

// parseStatus parses /proc/PID/status. The kernel escapes newlines in the name, so lines can be trusted.
func parseStatus(b []byte) (status, error) {
	var s status
	seen := 0
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		var to *[4]uint32
		switch string(key) {
		case "Uid":
			to = &s.uid
		case "Gid":
			to = &s.gid
		case "TracerPid":
			s.tracer, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			continue
		case "Tgid":
			s.tgid, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			continue
		default:
			continue
		}
		f := bytes.Fields(value)
		if len(f) != 4 {
			return status{}, fmt.Errorf("parse status: %w", errSyntax)
		}
		for i := range f {
			n, err := strconv.ParseUint(string(f[i]), 10, 32)
			if err != nil {
				return status{}, fmt.Errorf("parse status: %w", errSyntax)
			}
			to[i] = uint32(n)
		}
		seen++
	}
	if seen != 2 {
		return status{}, fmt.Errorf("parse status: %w", errSyntax)
	}
	return s, nil
}

// parseAuditID parses /proc/PID/loginuid and sessionid. It is false where none was set: then the kernel shows
// 2^32-1 (include/linux/audit.h).
func parseAuditID(b []byte) (uint32, bool) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

// parseCgroup returns the path of a process in the unified hierarchy, or in systemd's own, or in the first
// there is (cgroups(7)).
func parseCgroup(b []byte) string {
	var path string
	best := 0
	for line := range bytes.Lines(b) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3)
		if len(f) != 3 {
			continue
		}
		rank := 1
		switch {
		case string(f[0]) == "0" && len(f[1]) == 0 && string(f[2]) != "/":
			rank = 4
		case string(f[1]) == "name=systemd":
			rank = 3
		case string(f[0]) == "0":
			rank = 2
		}
		if rank > best {
			best, path = rank, text(f[2])
		}
	}
	return path
}

// parseFdinfo returns a field of /proc/PID/fdinfo/N, such as tty-index.
func parseFdinfo(b []byte, field string) (string, bool) {
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(k) == field {
			return string(bytes.TrimSpace(v)), true
		}
	}
	return "", false
}

// parseOSRelease returns PRETTY_NAME of os-release(5).
func parseOSRelease(b []byte) string {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("PRETTY_NAME=")); ok {
			return text(bytes.Trim(v, `"'`))
		}
	}
	return ""
}
