package evidence

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// disk is everything that the writer does to files. Tests replace its functions.
type disk struct {
	create   func(path string) (*os.File, error)
	writeAt  func(f *os.File, b []byte, off int64) (int, error)
	sync     func(f *os.File) error
	truncate func(f *os.File, size int64) error
	rename   func(from, to string) error
	remove   func(path string) error
	syncDir  func(dir string) error
	makeDir  func(dir string) error
	left     func(dir string) (int64, error) // bytes that may still be written
}

var systemDisk = disk{
	create: func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	},
	writeAt:  func(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) },
	sync:     syncData,
	truncate: func(f *os.File, size int64) error { return f.Truncate(size) },
	rename:   os.Rename,
	remove:   os.Remove,
	syncDir:  syncDir,
	makeDir:  makeDir,
	left: func(dir string) (int64, error) {
		fs, err := fileSystemOf(dir)
		return fs.left, err
	},
}

// tempSuffix is that of files whose making did not end. They mean nothing.
const tempSuffix = ".tmp"

// newFile makes a file with what it holds, durably: a crash leaves all of it or none. It is open for reading
// and writing. What it could not make it takes away, as far as it can.
func (d disk) newFile(path string, b []byte) (*os.File, error) {
	f, err := d.create(path + tempSuffix)
	if err != nil {
		return nil, err
	}
	n, err := d.writeAt(f, b, 0)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = d.sync(f)
	}
	if err == nil {
		err = d.rename(path+tempSuffix, path)
	}
	if err != nil {
		f.Close()
		d.remove(path + tempSuffix) // else the next of that name replaces it
		return nil, err
	}
	if err := d.syncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// append writes b at off, the end of what is durable in f, and syncs it. A failure is [ErrFull] where there
// was no room and f is as it was before. After any other failure nobody can tell what f holds.
func (d disk) append(f *os.File, b []byte, off int64) error {
	n, err := d.writeAt(f, b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		// Nobody was told of any record in it. Where this fails too, the next start cuts the tail.
		cut := d.truncate(f, off)
		if cut == nil {
			cut = d.sync(f)
		}
		switch {
		case cut != nil:
			return fmt.Errorf("write segment: %w; cut it back: %w", err, cut)
		case noRoom(err):
			return fmt.Errorf("write segment: %w: %w", ErrFull, err)
		}
		return fmt.Errorf("write segment: %w", err)
	}
	if err := d.sync(f); err != nil {
		return fmt.Errorf("sync segment: %w", err)
	}
	return nil
}

// noRoom tells whether a write failed for want of room on the disk.
func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// makeParent makes what a store's directory lies in. Where the store is there nothing is tried: who is confined to it (unveil(2)) is told that its parent is
// not there, up to the root.
func (d disk) makeParent(dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	return d.makeDir(filepath.Dir(dir))
}

// makeDir makes dir and the parents it lacks, each for its owner alone, durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	parent := filepath.Dir(dir)
	if errors.Is(err, os.ErrNotExist) && parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}
