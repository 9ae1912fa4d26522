package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// progress is how far a log was read, and how far all that came of it is done: after a crash reading begins there.
type progress struct {
	mu   sync.Mutex
	read place
	open []*mark // in the order of their lines
}

// A mark is a line about which questions are open.
type mark struct {
	of     *progress
	before place
	left   int
}

func (p *progress) reached(at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = at
}

// begin marks a line that has that many questions.
func (p *progress) begin(before place, questions int) *mark {
	m := &mark{of: p, before: before, left: questions}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, m)
	return m
}

// done says that a question is: answered and kept, or given up.
func (m *mark) done() {
	if m == nil {
		return
	}
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	m.left--
	for len(m.of.open) > 0 && m.of.open[0].left <= 0 {
		m.of.open = m.of.open[1:]
	}
}

// settled is the place before which everything is done.
func (p *progress) settled() place {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) > 0 {
		return p.open[0].before
	}
	return p.read
}

// positions are what the file of positions holds: a place for each log, by its absolute path.
type positions map[string]place

func readPositions(name string) (positions, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return positions{}, nil
	}
	p := positions{}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("read position: %w", err)
	}
	for path, at := range p {
		if at.Offset < 0 || at.Begins < 0 || at.Begins > headLen {
			return nil, fmt.Errorf("read position: %s is at %d, begins with %d octets", path, at.Offset, at.Begins)
		}
	}
	return p, nil
}

// write replaces the file, so that it is the old one or the new one whatever happens.
func (p positions) write(name string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".watch-")
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write position: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
