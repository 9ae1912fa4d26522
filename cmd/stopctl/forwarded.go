package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/daemon"
)

// forwardedBatch is how many lines of a log server are held against the log at once: neighbours are in the same files.
const forwardedBatch = 4096

// maxForwarded bounds the findings of an audit with a log server's file.
const maxForwarded = 1000

// A forwarded is a log server's file, as long as it was when it was opened.
type forwarded struct {
	*os.File
	text io.Reader
}

// openForwarded opens a file before the store is audited: what the server is told meanwhile the audit need not know. Without a
// name there is nothing.
func openForwarded(file string) (f forwarded, err error) {
	if file == "" {
		return f, nil
	}
	if f.File, err = os.Open(file); err != nil {
		return f, fmt.Errorf("read what was forwarded: %w", err)
	}
	f.text = f.File
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		f.text = io.LimitReader(f.File, info.Size())
	}
	return f, nil
}

// auditForwarded holds what a log server was told against the log of an audited store: lines of its files, of which those
// of other logs, and of others than stopd, are passed over. What it finds it adds to the audit.
func auditForwarded(ctx context.Context, f forwarded, dir string, a *evidence.Audited, w io.Writer) error {
	head := a.Log.Head
	if head.Origin == "" {
		return nil // no checkpoint is of use, and that was found
	}
	h := holding{Audited: a, file: f.Name(), log: filepath.Join(dir, "log")}
	lines := bufio.NewScanner(f.text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		h.line++
		l, ok := daemon.ParseForwarded(lines.Bytes())
		if !ok || l.Origin != head.Origin {
			continue
		}
		if h.add(l); len(h.batch) == forwardedBatch {
			h.hold()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read what was forwarded: %w", err)
	}
	h.hold()
	if h.told == 0 {
		return fmt.Errorf("%s says nothing of the log %s", f.Name(), head.Origin)
	}
	fmt.Fprintf(w, "forwarded: %s and %s, the newest over %d leaves; agree: %d\n", count(h.told-h.checkpoints, "record"), count(h.checkpoints, "checkpoint"), h.newest, h.agree)
	if h.later > 0 {
		fmt.Fprintf(w, "forwarded, and not under a checkpoint yet: %d\n", h.later)
	}
	return nil
}

// A holding is the state of holding lines against a log.
type holding struct {
	*evidence.Audited
	file, log                       string
	line                            int
	batch                           []told
	told, checkpoints, agree, later int
	newest                          int64
}

type told struct {
	daemon.Forwarded
	line int
}

// add takes what one line says.
func (h *holding) add(l daemon.Forwarded) {
	h.told++
	leaves := l.N + 1 // that the log has to have
	if l.Checkpoint {
		h.checkpoints++
		h.newest = max(h.newest, l.N)
		leaves = l.N
	}
	switch {
	case leaves <= h.Log.Head.N:
		h.batch = append(h.batch, told{l, h.line})
	case !l.Checkpoint && h.Writing && leaves <= int64(h.Next):
		h.later++
	default:
		h.find(evidence.Cut, "line %d of %s has %d leaves, and the log has %d", h.line, h.file, leaves, h.Log.Head.N)
	}
}

// hold compares what was added.
func (h *holding) hold() {
	var leaves []int64
	for _, l := range h.batch {
		if !l.Checkpoint {
			leaves = append(leaves, l.N)
		}
	}
	hashes, err := translog.LeafHashes(h.log, h.Log.Head.Tree, leaves)
	if err != nil {
		h.find(translog.Altered, "cannot be held against %s: %v", h.file, err)
	}
	for _, l := range h.batch {
		var is tlog.Hash
		what := fmt.Sprintf("leaf %d", l.N)
		if l.Checkpoint {
			what = fmt.Sprintf("the tree of the first %d leaves", l.N)
			tree, e := translog.TreeAt(h.log, h.Log.Head.Tree, l.N)
			is = tree.Hash
			if e != nil {
				h.find(translog.Altered, "cannot be held against %s: %v", h.file, e)
				continue
			}
		} else if err != nil {
			continue
		} else {
			is, hashes = hashes[0], hashes[1:]
		}
		if is != l.Hash {
			h.find(translog.Altered, "%s is not what line %d of %s has", what, l.line, h.file)
			continue
		}
		h.agree++
	}
	h.batch = h.batch[:0]
}

func (h *holding) find(v translog.Verdict, format string, args ...any) {
	if len(h.Findings) >= maxForwarded {
		h.More++
		return
	}
	h.Findings = append(h.Findings, translog.Finding{Verdict: v, Path: "log", Detail: fmt.Sprintf(format, args...)})
}
