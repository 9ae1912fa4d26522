package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxExecutable is the largest file that is hashed.
const maxExecutable = 16 << 20

// maxExecutables is how many files' hashes are kept.
const maxExecutables = 4096

// executables remembers the hash and build id of files by what says that they have not changed.
type executables struct {
	mu    sync.Mutex
	known map[fileID]executable
}

type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

type executable struct{ sha256, buildID string }

func newExecutables() *executables { return &executables{known: map[fileID]executable{}} }

var errTooLarge = fmt.Errorf("larger than %d octets", maxExecutable)

// of reads the file that an open descriptor refers to. Reading may block for as long as a file system
// likes that its user wrote, so the caller guards it.
func (e *executables) of(f *os.File) (executable, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return executable{}, fmt.Errorf("stat: %w", err)
	}
	id := fileID{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	e.mu.Lock()
	x, ok := e.known[id]
	e.mu.Unlock()
	if ok {
		return x, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return executable{}, errors.New("not a regular file")
	}
	x.buildID = buildID(f)
	if st.Size > maxExecutable {
		return x, errTooLarge
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, maxExecutable)); err != nil {
		return executable{}, fmt.Errorf("read: %w", err)
	}
	x.sha256 = hex.EncodeToString(h.Sum(nil))
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.known) >= maxExecutables {
		clear(e.known)
	}
	e.known[id] = x
	return x, nil
}
