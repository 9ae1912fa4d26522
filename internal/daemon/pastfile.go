package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/stopd/stopd/evidence/translog"
)

// A pastFile is where the keeper has what the collector remembers, over a restart: octets that it cannot read.
type pastFile struct {
	dir  string
	most int64 // octets

	mu      sync.Mutex
	writing *os.File // nil where nothing is written
	written int64
}

// pastDir is the directory of that file: beside the store, where its lock and socket are.
func pastDir(store string) string {
	if resolved, err := filepath.EvalSymlinks(store); err == nil {
		store = resolved
	}
	return filepath.Clean(store) + ".past"
}

// pastFileMost is how large the file may become. Sealed, an entry takes less than in memory, but for its path (package recorder).
func pastFileMost(r Recorder) int64 { return 2 * int64(r.Memory) }

func (p *pastFile) path() string { return filepath.Join(p.dir, "history") }

// write does what a callKeepPast says.
func (p *pastFile) write(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) == 0 {
		return errors.New("keep the past: no octets")
	}
	err := p.step(b[0], b[1:])
	if err != nil {
		p.abandon()
		return fmt.Errorf("keep the past: %w", err)
	}
	return nil
}

func (p *pastFile) step(how byte, b []byte) (err error) {
	switch how {
	case pastBegins:
		p.abandon()
		if p.writing, err = os.OpenFile(p.path()+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
		p.written = 0
		return p.more(b)
	case pastGoesOn:
		return p.more(b)
	case pastEnds:
		return p.end()
	case pastRemoved:
		if err := os.Remove(p.path()); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return fmt.Errorf("%d is nothing to do", how)
}

// more writes octets, and waits until they are durable: reports that are written meanwhile wait for no more than these.
func (p *pastFile) more(b []byte) error {
	if p.writing == nil {
		return errors.New("it was not begun")
	}
	if p.written += int64(len(b)); p.written > p.most {
		return fmt.Errorf("bound: more than %d octets", p.most)
	}
	if _, err := p.writing.Write(b); err != nil {
		return err
	}
	return p.writing.Sync()
}

func (p *pastFile) end() error {
	if p.writing == nil {
		return errors.New("it was not begun")
	}
	f := p.writing
	p.writing = nil
	if err := errors.Join(f.Close(), os.Rename(f.Name(), p.path())); err != nil {
		return err
	}
	d, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// abandon removes what was not written to its end, now or by a keeper before.
func (p *pastFile) abandon() {
	if p.writing != nil {
		p.writing.Close()
		p.writing = nil
	}
	os.Remove(p.path() + ".tmp") // where it cannot, it cannot be made anew either
}

// read returns what lies from an offset on, in 8 octets; nothing at the end, and where there is no file.
func (p *pastFile) read(asked []byte) ([]byte, error) {
	if len(asked) != 8 {
		return nil, fmt.Errorf("read the past: an offset of %d octets", len(asked))
	}
	f, err := translog.OpenRegular(p.path(), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the past: %w", err)
	}
	defer f.Close()
	b := make([]byte, pastChunk)
	n, err := f.ReadAt(b, int64(min(binary.BigEndian.Uint64(asked), 1<<62)))
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the past: %w", err)
	}
	return b[:n], nil
}
