package linux

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
)

// A mapping is memory of a process that others may share (proc_pid_maps(5)).
type mapping struct {
	area string // START-END, as the file of the mapping is called below map_files
	mode host.Mode
	dev  uint64
	ino  uint64
	path string
	// private is true where what the process writes is not seen by others. It sees what they write all the same, in what
	// it has not written to.
	private bool
}

// What the kernel calls memory that has no file of its own: System V segments, and what is shared with the
// processes that one has forked.
const (
	sysvPath  = "/SYSV"
	zeroPath  = "/dev/zero"
	memfdPath = "/memfd:"
	shmPath   = "/dev/shm/"
	// Not memory, but what is held by being mapped.
	ringPath   = "anon_inode:[io_uring]"
	socketPath = "socket:["
)

// maxMaps bounds the list of a process's mappings; a browser's takes a megabyte.
const maxMaps = 16 << 20

// parseMaps returns the mappings of a process that are shared, and the private ones of memory that has no file of its own.
// One that can be neither read nor written now may be made so at any time: its mode is unknown. Two of one file are one, in
// both modes.
func parseMaps(b []byte) ([]mapping, error) {
	var ms []mapping
	type file struct {
		dev, ino uint64
		sysv     bool // a segment has its id where a file has its inode
	}
	known := map[file]int{}
	for line := range bytes.Lines(b) {
		m, ok, err := parseMapping(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return nil, fmt.Errorf("parse maps: %w", err)
		}
		if !ok {
			continue
		}
		f := file{m.dev, m.ino, strings.HasPrefix(m.path, sysvPath)}
		if i, ok := known[f]; ok {
			if ms[i].mode = ms[i].mode.With(m.mode); ms[i].private {
				ms[i].area, ms[i].private = m.area, m.private
			}
			continue
		}
		known[f] = len(ms)
		ms = append(ms, m)
	}
	return ms, nil
}

// parseMapping parses one line: address, permissions, offset, device, inode, path.
func parseMapping(line []byte) (mapping, bool, error) {
	area, rest, ok := bytes.Cut(line, []byte(" "))
	perms, rest, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(perms) != 4 {
		return mapping{}, false, errSyntax
	}
	m := mapping{private: perms[3] != 's'}
	if m.private && !bytes.Contains(rest, []byte(memfdPath)) && !bytes.Contains(rest, []byte(shmPath)) { // most
		return mapping{}, false, nil
	}
	f := bytes.SplitN(rest, []byte(" "), 4)
	if len(f) < 3 {
		return mapping{}, false, errSyntax
	}
	switch r, w := perms[0] == 'r', perms[1] == 'w'; {
	case len(f) < 4:
		return mapping{}, false, nil
	case m.private:
		m.mode = host.Read
	case r && w:
		m.mode = host.ReadWrite
	case r:
		m.mode = host.Read
	case w:
		m.mode = host.Write
	}
	major, minor, ok := bytes.Cut(f[1], []byte(":"))
	ma, err := strconv.ParseUint(string(major), 16, 32)
	mi, err2 := strconv.ParseUint(string(minor), 16, 32)
	ino, err3 := strconv.ParseUint(string(f[2]), 10, 64)
	start, end, ok2 := bytes.Cut(area, []byte("-"))
	from, err4 := strconv.ParseUint(string(start), 16, 64)
	to, err5 := strconv.ParseUint(string(end), 16, 64)
	if !ok || !ok2 || errors.Join(err, err2, err3, err4, err5) != nil {
		return mapping{}, false, errSyntax
	}
	// What else the kernel maps has no path that begins with a slash, or inode 0, which is also the id of the first segment
	// of an IPC namespace.
	path := bytes.TrimLeft(f[3], " ")
	if !m.held(string(path)) || ino == 0 && !bytes.HasPrefix(path, []byte(sysvPath)) {
		return mapping{}, false, nil
	}
	m.dev, m.ino, m.path = mkdev(ma, mi), ino, text(path)
	m.area = fmt.Sprintf("%x-%x", from, to) // maps pads with zeros, map_files does not
	return m, true, nil
}

// held reports whether what is mapped is something that others may hold.
func (m mapping) held(path string) bool {
	if m.private {
		return strings.HasPrefix(path, memfdPath) || strings.HasPrefix(path, shmPath)
	}
	return strings.HasPrefix(path, "/") || path == ringPath || strings.HasPrefix(path, socketPath)
}

// mkdev joins the parts of a device number as the C library does, whatever system this is built for.
func mkdev(major, minor uint64) uint64 {
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}
