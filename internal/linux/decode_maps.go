package linux

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/stopd/stopd/host"
)

// A mapping is memory of a process that others may share (proc_pid_maps(5)).
type mapping struct {
	area string // START-END, as the file of the mapping is called below map_files
	mode host.Mode
	dev  uint64
	ino  uint64
	path string
}

// What the kernel calls memory that has no file of its own: System V segments, and what is shared with the
// processes that one has forked.
const (
	sysvPath  = "/SYSV"
	zeroPath  = "/dev/zero"
	memfdPath = "/memfd:"
	shmPath   = "/dev/shm/"
)

// parseMaps returns the mappings of a process that are shared and readable or writable. Two of one file
// are one, in both modes.
func parseMaps(b []byte) ([]mapping, error) {
	var ms []mapping
	for line := range bytes.Lines(b) {
		m, ok, err := parseMapping(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return nil, fmt.Errorf("parse maps: %w", err)
		}
		if !ok {
			continue
		}
		known := false
		for i := range ms {
			if ms[i].dev == m.dev && ms[i].ino == m.ino {
				ms[i].mode, known = ms[i].mode.With(m.mode), true
				break
			}
		}
		if !known {
			ms = append(ms, m)
		}
	}
	return ms, nil
}

// parseMapping parses one line: address, permissions, offset, device, inode, path.
func parseMapping(line []byte) (mapping, bool, error) {
	f := bytes.SplitN(line, []byte(" "), 6)
	if len(f) < 5 || len(f[1]) != 4 {
		return mapping{}, false, errSyntax
	}
	m := mapping{area: string(f[0])}
	switch r, w := f[1][0] == 'r', f[1][1] == 'w'; {
	case f[1][3] != 's' || len(f) < 6:
		return mapping{}, false, nil
	case r && w:
		m.mode = host.ReadWrite
	case r:
		m.mode = host.Read
	case w:
		m.mode = host.Write
	default:
		return mapping{}, false, nil
	}
	major, minor, ok := bytes.Cut(f[3], []byte(":"))
	ma, err := strconv.ParseUint(string(major), 16, 32)
	mi, err2 := strconv.ParseUint(string(minor), 16, 32)
	ino, err3 := strconv.ParseUint(string(f[4]), 10, 64)
	if !ok || err != nil || err2 != nil || err3 != nil {
		return mapping{}, false, errSyntax
	}
	// Drivers' memory (a device's, a ring of the kernel's) has no path that begins with a slash, or inode 0.
	path := bytes.TrimLeft(f[5], " ")
	if len(path) == 0 || path[0] != '/' || ino == 0 {
		return mapping{}, false, nil
	}
	m.dev, m.ino, m.path = mkdev(ma, mi), ino, text(path)
	return m, true, nil
}

// mkdev joins the parts of a device number as the C library does, whatever system this is built for.
func mkdev(major, minor uint64) uint64 {
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}
