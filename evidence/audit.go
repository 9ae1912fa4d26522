package evidence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/stopd/stopd/evidence/translog"
)

// Cut is a store's own verdict beside those of its log: records are gone from an end.
const Cut translog.Verdict = "cut"

// An Audited is what a store was found to be.
type Audited struct {
	Findings []translog.Finding     // of the store and of its log; their paths are below the store
	More     int                    // findings that are left out
	Log      *translog.Verification // its own findings are among those
	Writing  bool                   // a program has the store open to write
	Records  uint64                 // that are there
	Expired  uint64                 // that are not, by right
	Next     uint64                 // number behind the last one
	Segments int
}

// Audit reads every file of the store in dir, and holds the records against the store's log and the log against a
// policy. Programs may go on writing. It needs no key of an administrator, and changes nothing. It fails only
// where it cannot read.
func Audit(ctx context.Context, dir string, p translog.Policy) (*Audited, error) {
	dir, err := RealPath(dir)
	if err != nil {
		return nil, fmt.Errorf("audit store: %w", err)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("audit store: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("audit store: %q is no directory", dir)
	}
	for {
		writing, err := inUse(dir)
		if err != nil {
			return nil, fmt.Errorf("audit store: %w", err)
		}
		a := &auditor{Audited: &Audited{Writing: writing}, ctx: ctx, dir: dir}
		if err := a.run(p); err != nil {
			return nil, fmt.Errorf("audit store: %w", err)
		}
		// Somebody who began to write meanwhile leaves what looks like a crash to who did not know.
		if again, err := inUse(dir); writing || err == nil && !again {
			return a.Audited, nil
		} else if err != nil {
			return nil, fmt.Errorf("audit store: %w", err)
		}
	}
}

// inUse tells whether a program has the store open to write. A copy of a store has no lock.
func inUse(dir string) (bool, error) {
	f, err := os.OpenFile(dir+".lock", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = lockFile(f)
	if errors.Is(err, ErrLocked) {
		return true, nil
	}
	return false, err
}

type auditor struct {
	*Audited
	ctx   context.Context
	dir   string
	files storeFiles
	err   error // of reading the records

	state   state // of the newest record that has one
	last    string
	read    uint64 // number of the segment read last
	useless bool   // its header is
	tail    int64  // octets behind the last record of the last segment
	from    int64  // where they begin
	gaps    []gap
	lacks   []lack
}

// A gap is records that are missing before others.
type gap struct {
	span
	verdict translog.Verdict
	path    string
	where   string
	between bool // segments: they may have expired
}

// unexpired gives the parts of a span that are not gone by right.
func (s state) unexpired(of span) (parts []span) {
	for _, e := range s.Expired { // in order, none touches another
		if e.Next <= of.First || e.First >= of.Next {
			continue
		}
		if of.First < e.First {
			parts = append(parts, span{of.First, e.First})
		}
		of.First = e.Next
	}
	if of.First < of.Next {
		parts = append(parts, of)
	}
	return parts
}

// A lack is a segment without a table.
type lack struct {
	name string
	next uint64 // number of the record behind its last one
}

// maxFindings bounds what is said of a store that is not one.
const maxFindings = 1000

func (a *auditor) find(v translog.Verdict, path, format string, args ...any) {
	if len(a.Findings) == maxFindings {
		a.More++
		return
	}
	a.Findings = append(a.Findings, translog.Finding{Verdict: v, Path: path, Detail: fmt.Sprintf(format, args...)})
}

// run reads the log first: what it covers has then been written.
func (a *auditor) run(p translog.Policy) error {
	next, stop := iter.Pull(a.records)
	defer stop()
	r, ok := foundRecord{}, true
	log, err := translog.Verify(filepath.Join(a.dir, logName), p, a.Writing, func(n int64, leaf translog.Leaf) {
		for ok && (r.path == "" || r.number < uint64(n)) {
			r, ok = next()
		}
		if ok && r.number == uint64(n) && r.leaf != leaf {
			a.find(translog.Altered, r.path, "record %d, at offset %d, is not the one that the log has", n, r.at)
		}
	})
	if err != nil {
		return err
	}
	for ok {
		_, ok = next()
	}
	if a.err != nil {
		return a.err
	}
	a.Log = log
	if err := a.judge(); err != nil {
		return err
	}
	for _, f := range log.Findings {
		if f.Path != "" {
			f.Path = logName + "/" + f.Path
		}
		a.Findings = append(a.Findings, f)
	}
	return nil
}

// judge says what of the records the log covers, and what of those that are missing is missing by right.
func (a *auditor) judge() error {
	if a.Writing && len(a.gaps) > 0 { // segments may have expired while they were read
		if err := a.newestState(); err != nil {
			return err
		}
	}
	for _, g := range a.gaps {
		if !g.between {
			a.find(g.verdict, g.path, "records %d to %d are gone %s", g.First, g.Next-1, g.where)
			continue
		}
		a.Expired += g.Next - g.First
		for _, s := range a.state.unexpired(g.span) {
			a.Expired -= s.Next - s.First
			a.find(g.verdict, g.path, "records %d to %d are gone %s", s.First, s.Next-1, g.where)
		}
	}
	if a.Log.Head.Origin == "" {
		return nil // there is nothing to say what is covered
	}
	head := uint64(a.Log.Head.N)
	for _, l := range a.lacks {
		switch {
		case l.next < head:
			a.find(translog.Removed, l.name, "a segment that was closed has a table")
		case !a.Writing:
			a.find(translog.Uncovered, l.name, "it was about to be written: %s", translog.CrashOrCut)
		}
	}
	switch {
	case a.Next < head && a.useless: // that was found
	case a.Next < head && a.tail > 0:
		a.find(translog.Altered, a.last, "%d octets at offset %d are no record; the log has records %d to %d there", a.tail, a.from, a.Next, head-1)
	case a.Next < head:
		a.find(Cut, a.last, "records %d to %d, which the log has, are gone from the end", a.Next, head-1)
	case a.Writing:
	case a.tail > 0:
		a.find(translog.Uncovered, a.last, "%d octets at offset %d are a part of a record: %s", a.tail, a.from, translog.CrashOrCut)
	case a.Next > head:
		a.find(translog.Uncovered, a.last, "records %d to %d are under no checkpoint: %s", head, a.Next-1, translog.CrashOrCut)
	}
	return nil
}
