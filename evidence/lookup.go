package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

// A source is a segment that is read from.
type source struct {
	path  string
	file  *os.File
	batch func(number uint64) (int64, bool, error)
}

// A gathering is the records of a token, as they are found.
type gathering struct {
	store    *Store
	token    stop.Token
	prover   *translog.Prover  // nil where the log is left alone
	batches  []record          // that seal the records
	records  []record          // in the order of numbers
	proofs   map[uint64][]byte // of records, by their numbers
	damage   error             // what may hide more; it wraps [ErrAltered]
	reports  int
	answered int // trace-backs, those that are not sound among them
}

// collect gathers all records of t. Where damage may hide some the error wraps [ErrAltered], beside those that are sound.
// A token without a report is [ErrNotFound].
func (s *Store) collect(t stop.Token) (*gathering, error) {
	g := &gathering{store: s, token: t, proofs: map[uint64][]byte{}, damage: s.damage}
	if err := g.gather(func(uint64) bool { return true }); err != nil {
		return &gathering{}, err
	}
	switch {
	case g.reports > 0:
		return g, g.damage
	case g.damage != nil:
		return &gathering{}, g.damage
	case g.answered > 0:
		return &gathering{}, fmt.Errorf("%w: a trace-back without its report", ErrAltered)
	}
	return &gathering{}, ErrNotFound
}

// note keeps damage, and gives back any other error.
func (g *gathering) note(err error) error {
	if err == nil || !errors.Is(err, ErrAltered) {
		return err
	}
	if g.damage == nil {
		g.damage = err
	}
	return nil
}

// gather adds the records with numbers that are wanted, and proves what is not proven. Records that are not sound are left out, and noted.
func (g *gathering) gather(wanted func(number uint64) bool) error {
	if g.store.log != nil {
		var err error
		if g.prover, err = g.store.log.Prover(); err != nil {
			g.note(fmt.Errorf("%w: %w", ErrAltered, err))
		}
	}
	sources, offsets, err := g.store.find(locate(reportLabel, g.token), locate(tracebackLabel, g.token))
	defer func() {
		for _, in := range sources {
			in.file.Close()
		}
	}()
	if err := g.note(err); err != nil {
		return err
	}
	for i, in := range sources {
		for _, off := range offsets[i] {
			r, err := in.at(off)
			if err == nil && !wanted(r.number) {
				continue
			}
			if err == nil {
				err = g.add(in, off, r)
			}
			if err := g.note(err); err != nil {
				return err
			}
		}
	}
	byNumber := func(a, b record) int { return cmp.Compare(a.number, b.number) }
	slices.SortFunc(g.batches, byNumber)
	slices.SortFunc(g.records, byNumber)
	g.batches = slices.CompactFunc(g.batches, func(a, b record) bool { return a.number == b.number })
	for _, r := range g.records {
		if g.proofs[r.number] == nil {
			if err := g.prove(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds a record that was read at off, and says why it is not one of the token.
func (g *gathering) add(in *source, off int64, r record) error {
	if r.kind == typeTraceback {
		g.answered++
	}
	b, err := in.batchOf(r)
	if err != nil {
		return err
	}
	if !r.kind.located() || r.locator != r.kind.locatorOf(g.token) {
		return altered(in.path, off)
	}
	if err := g.prove(r); err != nil {
		return err
	}
	if r.kind == typeReport {
		g.reports++
	}
	g.batches, g.records = append(g.batches, b), append(g.records, r)
	return nil
}

// prove holds a record against the log: one that the log does not have is [ErrAltered]. Where the log itself is damaged that is
// noted, and the record may be sound. What no checkpoint covers yet has no proof.
func (g *gathering) prove(r record) error {
	if g.prover == nil {
		return nil
	}
	proof, err := g.prover.Prove(int64(r.number), r.leaf())
	switch {
	case errors.Is(err, translog.ErrUnproven):
		return g.note(fmt.Errorf("%w: %w", ErrAltered, err))
	case errors.Is(err, translog.ErrAltered):
		return fmt.Errorf("%w: record %d is not the one that the log has", ErrAltered, r.number)
	case err != nil:
		return err
	}
	if proof != nil {
		g.proofs[r.number] = proof
	}
	return nil
}

// append appends what was gathered, as an export has it.
func (g *gathering) append(b []byte) []byte {
	for _, r := range g.batches {
		b = appendRecord(b, r)
	}
	for _, r := range g.records {
		b = appendRecord(b, r)
	}
	for _, r := range g.records {
		if proof := g.proofs[r.number]; proof != nil {
			b = appendRecord(b, record{kind: typeProof, number: r.number, payload: proof})
		}
	}
	return b
}

// find gives the segments that hold records of the locators, and their offsets. An error beside what is found is of
// damage, which may hide more.
func (s *Store) find(wants ...locator) (sources []*source, offsets [][]int64, damage error) {
	s.mu.RLock()
	old := s.old
	var inOpen []int64
	for _, want := range wants {
		inOpen = append(inOpen, s.open.index[want]...)
	}
	open := s.open
	s.mu.RUnlock()
	note := func(err error) {
		if err != nil && damage == nil {
			damage = err
		}
	}
	for _, c := range old {
		var here []int64
		for _, want := range wants {
			offs, err := c.contents.find(c.table, want)
			if errors.Is(err, os.ErrClosed) {
				break // it expired just now
			}
			note(err)
			here = append(here, offs...)
		}
		if len(here) == 0 {
			continue
		}
		f, err := openRegular(c.path, os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			continue // it expired just now
		}
		if err != nil {
			note(err)
			continue
		}
		sources = append(sources, &source{c.path, f, func(n uint64) (int64, bool, error) { return c.contents.batch(c.table, n) }})
		offsets = append(offsets, here)
	}
	if len(inOpen) > 0 {
		f, err := openRegular(open.path, os.O_RDONLY)
		if err != nil {
			note(err)
			return sources, offsets, damage
		}
		sources = append(sources, &source{open.path, f, func(n uint64) (int64, bool, error) {
			s.mu.RLock()
			defer s.mu.RUnlock()
			off, ok := open.batches[n]
			return off, ok, nil
		}})
		offsets = append(offsets, inOpen)
	}
	return sources, offsets, damage
}

// batchOf gives the record of a record's batch.
func (in *source) batchOf(r record) (record, error) {
	off, ok, err := in.batch(r.batch)
	if err != nil {
		return record{}, err
	}
	if !ok {
		return record{}, fmt.Errorf("read %q: %w: batch %d is missing", in.path, ErrAltered, r.batch)
	}
	b, err := in.at(off)
	if err == nil && (b.kind != typeBatch || b.number != r.batch) {
		err = altered(in.path, off)
	}
	return b, err
}

// at reads the record at off anew: what is remembered is where it is, not that it is still whole.
func (in *source) at(off int64) (record, error) {
	b := make([]byte, recordHeader)
	_, err := in.file.ReadAt(b, off)
	if err == nil {
		var n int
		if n, err = payloadLength(b); err == nil {
			b = make([]byte, recordHeader+n)
			_, err = in.file.ReadAt(b, off)
		}
	}
	var r record
	if err == nil {
		r, err = decodeRecord(b)
	}
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return record{}, err // the disk's failure says nothing of the evidence
	}
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", altered(in.path, off), err)
	}
	return r, nil
}
