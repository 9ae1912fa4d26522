package linux

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A procDir is /proc/PID, opened once: what is read through it is always of the same process, whoever
// gets its pid later.
type procDir struct {
	fd  int
	pid int
}

func openProc(root, pid int) (procDir, error) {
	fd, err := unix.Openat(root, strconv.Itoa(pid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return procDir{}, host.ErrNotFound
	}
	if err != nil {
		return procDir{}, fmt.Errorf("open process %d: %w", pid, err)
	}
	return procDir{fd, pid}, nil
}

func (d procDir) close() { unix.Close(d.fd) }

// maxProcFile bounds what is read of a file of a process; arguments and environment may be larger than any
// report should be.
const maxProcFile = 1 << 20

// read reads a file of the process, whole. It has to be one that the kernel writes at once (seq_file(9) with
// one record, as most): when it gives less than was asked for, that was all.
func (d procDir) read(name string) ([]byte, error) { return d.readFile(name, maxProcFile, true) }

// readAtMost reads a file of which the kernel may give parts.
func (d procDir) readAtMost(name string, limit int) ([]byte, error) {
	return d.readFile(name, limit, false)
}

func (d procDir) readFile(name string, limit int, once bool) ([]byte, error) {
	// Without an os.File, which would ask the poller first: a trace reads many such files.
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 2048)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return b, nil
		case len(b)+n > limit:
			return nil, fmt.Errorf("%s is larger than %d octets", name, limit)
		case once && n < cap(b)-len(b):
			return b[:len(b)+n], nil
		default:
			b = slices.Grow(b[:len(b)+n], 1)
		}
	}
}

func (d procDir) open(name string) (*os.File, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d procDir) link(name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, b)
	if err != nil {
		return "", &os.PathError{Op: "read link", Path: name, Err: err}
	}
	return text(b[:n]), nil
}

// area reads a part of the process's memory, at most so much. Where the process does not let it be read, the
// kernel shows less of it, or nothing, without an error.
func (d procDir) area(name string, a area, limit int) ([]byte, error) {
	b, err := d.readAtMost(name, maxProcFile)
	if err == nil && len(b) < a.size() {
		return b, fmt.Errorf("%d of %d octets can be read: the process hides or changes them", len(b), a.size())
	}
	if len(b) > limit {
		return b[:limit], fmt.Errorf("bound: the first %d of %d octets", limit, len(b))
	}
	return b, err
}

func (d procDir) stat() (stat, error) {
	b, err := d.read("stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}
