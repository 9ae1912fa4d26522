package linux

import (
	"bytes"
	"strconv"
	"strings"
)

// A fixedFile is a file in the table of an io_uring instance (io_uring_register(2)).
type fixedFile struct {
	slot int
	// target is what /proc/PID/fd would show of it. Kernels before 6.14 say less: of a socket its protocol.
	target string
}

// untold reports whether the kernel says of the file neither which object nor which path it is.
func (f fixedFile) untold() bool {
	return parseTarget(f.target).class == 0 && !strings.HasPrefix(f.target, "/") && !strings.Contains(f.target, ":")
}

// maxFixed bounds how many files of one table are taken.
const maxFixed = 4096

// parseRing reads the files in the table of an io_uring instance from /proc/PID/fdinfo/N (io_uring/fdinfo.c).
// It returns false where the kernel did not show them: it shows nothing of an instance that is just being used.
func parseRing(b []byte) ([]fixedFile, bool) {
	var files []fixedFile
	count, shown := 0, 0
	told, within := false, false
	for line := range bytes.Lines(b) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		if string(key) == "UserFiles" {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || n < 0 {
				return nil, false
			}
			count, within, told = n, true, true
			continue
		}
		slot, err := strconv.Atoi(string(bytes.TrimSpace(key)))
		if !within || err != nil {
			within = false
			continue
		}
		shown++
		target := text(bytes.TrimSpace(value))
		if target != "<none>" && slot >= 0 && len(files) < maxFixed {
			files = append(files, fixedFile{slot, target})
		}
	}
	return files, told && (count == 0 || shown > 0)
}

// parseTarget reads the object that a link of /proc/PID/fd names; class 0 where only the file itself tells.
func parseTarget(target string) object {
	for _, class := range []byte{socketObject, pipeObject} {
		rest, ok := strings.CutPrefix(target, classNames[class]+":[")
		if rest, ok2 := strings.CutSuffix(rest, "]"); ok && ok2 {
			if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
				return object{class, 0, n}
			}
		}
	}
	return object{}
}

// parseTerminals reads /proc/tty/drivers: driver, default node, major, minors ("64" or "64-95"), type. The node
// may be missing.
func parseTerminals(b []byte) []terminals {
	var ts []terminals
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		for i, c := range f {
			// The major number is the first field that is one; nodes and drivers have other names.
			major, err := strconv.ParseUint(string(c), 10, 32)
			if err != nil || i == 0 || i+1 >= len(f) {
				continue
			}
			first, last, several := bytes.Cut(f[i+1], []byte("-"))
			from, err := strconv.ParseUint(string(first), 10, 32)
			to := from
			if several && err == nil {
				to, err = strconv.ParseUint(string(last), 10, 32)
			}
			if err == nil {
				ts = append(ts, terminals{uint32(major), uint32(from), uint32(to)})
			}
			break
		}
	}
	return ts
}

// terminals are the device numbers of one terminal driver.
type terminals struct{ major, from, to uint32 }
