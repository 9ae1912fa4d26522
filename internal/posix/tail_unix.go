//go:build unix

package posix

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Tail reads the end of a file, at most so many octets, beginning with a whole record; what a record is told by
// its size. Cut is whether the file has more before it.
func Tail(path string, limit, record int) (b []byte, cut bool, err error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	from := max(0, (st.Size()-int64(limit)+int64(record)-1)/int64(record)*int64(record))
	b, err = io.ReadAll(io.NewSectionReader(f, from, int64(limit)))
	return b, from > 0, err
}

// OpenRegular opens a file that is one: a FIFO in its place would block.
func OpenRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("read %s: not a regular file", path))
	}
	return f, nil
}
