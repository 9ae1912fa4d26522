package watch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxLine bounds a line of a log. Records of Suricata that hold packets are long.
	maxLine = 1 << 20
	// headLen and tailLen are how much of the beginning of a file, and of what stands before a place, tell one file from another.
	headLen = 256
	tailLen = 64
	// pollTime is how often a log is looked at.
	pollTime = 200 * time.Millisecond
	// maxSiblings bounds how many rotated files are looked through for where reading stopped.
	maxSiblings = 64
)

// A place is one between two lines of a log. Which file it is in shows in how that begins, with the time of its first record, and in
// what stands before the place: a file that is renamed stays itself, one that is cut and written anew does not.
type place struct {
	Offset int64  `json:"offset"`
	Tail   string `json:"tail"` // SHA-256 of the up to 64 octets before it, cut
	// Begins is how many octets of the file's beginning Head is of: up to 256, and less where the file had no more when it was read.
	Begins int    `json:"begins"`
	Head   string `json:"head"`
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// A follower reads a log that another program writes, through rotation and truncation.
type follower struct {
	path     string
	progress *progress
	// line is handed each line without its ending, and where it begins; begin is handed the first lines of a file that is not read
	// from its beginning, as far as they begin with #.
	line  func(line []byte, before place)
	begin func(header []byte)
	say   func(what string)
	count *Counts

	file    *os.File
	head    []byte // how it begins
	at      int64  // of what is pending
	recent  []byte // before it
	pending []byte // a line that has no end yet
	skip    bool   // the rest of a line that was too long
	buffer  []byte
	later   []string // files that were rotated away meanwhile, to be read before path
}

// run follows the log until the context ends. Where nothing is known of an earlier time it begins at the end of the file.
func (f *follower) run(ctx context.Context, from place, known bool) error {
	f.buffer = make([]byte, 256<<10)
	defer func() {
		if f.file != nil {
			f.file.Close()
		}
	}()
	if err := f.start(from, known); err != nil {
		return fmt.Errorf("follow %s: %w", f.path, err)
	}
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		more, err := f.poll(ctx)
		if err != nil {
			return fmt.Errorf("follow %s: %w", f.path, err)
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// start opens the file in which reading is to go on.
func (f *follower) start(from place, known bool) error {
	if !known {
		file, err := os.Open(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is read from its beginning, once it is there
		}
		if err != nil {
			return err
		}
		end, err := lastLine(file)
		if err != nil {
			file.Close()
			return err
		}
		return f.goOn(file, end)
	}
	if from.Offset == 0 && from.Begins == 0 {
		return nil // it was empty: no file can be told by that
	}
	names, err := f.siblings()
	if err != nil {
		return err
	}
	for i, name := range slices.Backward(names) { // a copy that somebody made of it is older
		file, err := os.Open(name)
		if err != nil {
			continue
		}
		if has(file, from) {
			f.later = names[i+1:]
			return f.goOn(file, from.Offset)
		}
		file.Close()
	}
	f.say("the file in which reading stopped is gone or was cut: what it had more is not read")
	f.count.Lost.Add(1)
	return nil
}

// siblings are the log and what it was rotated to (eve.json.1, eve.json-20261103), the oldest first and the log itself last.
// Compressed ones are left out: they are rotated once more, as a rule a day later.
func (f *follower) siblings() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	type sibling struct {
		name string
		at   time.Time
	}
	var found []sibling
	base := filepath.Base(f.path)
	for _, e := range entries {
		rest, is := strings.CutPrefix(e.Name(), base)
		if !is || rest == "" || rest[0] != '.' && rest[0] != '-' || slices.Contains([]string{".gz", ".xz", ".zst", ".bz2"}, filepath.Ext(rest)) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			found = append(found, sibling{filepath.Join(filepath.Dir(f.path), e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b sibling) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(b.name, a.name)) })
	if len(found) > maxSiblings {
		found = found[len(found)-maxSiblings:]
	}
	var names []string
	for _, s := range found {
		names = append(names, s.name)
	}
	return append(names, f.path), nil
}

// has reports whether a place is in a file.
func has(file *os.File, p place) bool {
	reads := func(n int, at int64, hash string) bool {
		b := make([]byte, n)
		_, err := file.ReadAt(b, at)
		return err == nil && hashOf(b) == hash
	}
	tail := min(p.Offset, tailLen)
	return reads(p.Begins, 0, p.Head) && reads(int(tail), p.Offset-tail, p.Tail)
}

// lastLine is where the line begins that has no end yet.
func lastLine(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for end := size; end > 0; {
		b := make([]byte, min(end, 4096))
		if _, err := file.ReadAt(b, end-int64(len(b))); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return end - int64(len(b)) + int64(i) + 1, nil
		}
		end -= int64(len(b))
	}
	return 0, nil
}

// goOn reads a file from an offset.
func (f *follower) goOn(file *os.File, at int64) error {
	if f.file != nil {
		f.file.Close()
	}
	before := make([]byte, min(at, tailLen))
	if _, err := file.ReadAt(before, at-int64(len(before))); err != nil && err != io.EOF {
		file.Close()
		return err
	}
	head := make([]byte, headLen)
	n, err := file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		file.Close()
		return err
	}
	if at > 0 && f.begin != nil {
		header := make([]byte, min(at, maxLine))
		if _, err := file.ReadAt(header, 0); err != nil {
			file.Close()
			return err
		}
		for line := range bytes.Lines(header) {
			if line[0] != '#' {
				break
			}
			f.begin(line)
		}
	}
	f.file, f.head, f.at, f.recent, f.pending, f.skip = file, head[:n], at, before, nil, false
	f.progress.reached(f.place())
	return nil
}

func (f *follower) place() place { return place{f.at, hashOf(f.recent), len(f.head), hashOf(f.head)} }

// poll reads what there is, at most a buffer full, and reports whether there may be more at once.
func (f *follower) poll(ctx context.Context) (more bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	if f.file == nil {
		return f.next()
	}
	info, err := f.file.Stat()
	if err != nil {
		return false, err
	}
	read := f.at + int64(len(f.pending))
	if info.Size() < read || !has(f.file, f.place()) {
		f.say("the file was cut: what was written since it was last looked at is not read")
		f.count.Lost.Add(1)
		return true, f.goOn(f.file2(), 0)
	}
	n, err := f.file.ReadAt(f.buffer, read)
	if err != nil && err != io.EOF {
		return false, err
	}
	if n == 0 {
		return f.next()
	}
	f.take(f.buffer[:n])
	return true, nil
}

// file2 gives the open file to [follower.goOn], which would close it.
func (f *follower) file2() *os.File {
	file := f.file
	f.file = nil
	return file
}

// take cuts what was read into lines.
func (f *follower) take(b []byte) {
	if from := f.at + int64(len(f.pending)); from < headLen {
		f.head = append(f.head[:min(int64(len(f.head)), from)], b[:min(int64(len(b)), headLen-from)]...)
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			f.pending = append(f.pending, b...)
			if len(f.pending) > maxLine {
				f.skip = true
				f.pass()
			}
			break
		}
		f.pending = append(f.pending, b[:i+1]...)
		b = b[i+1:]
		if f.skip {
			f.skip = false
			f.count.Lines.Add(1)
			f.count.Unreadable.Add(1)
		} else {
			f.count.Lines.Add(1)
			f.line(bytes.TrimRight(f.pending, "\r\n"), f.place())
		}
		f.pass()
	}
	f.progress.reached(f.place())
}

// pass leaves what is pending behind.
func (f *follower) pass() {
	f.at += int64(len(f.pending))
	f.recent = append(f.recent, f.pending[max(0, len(f.pending)-tailLen):]...)
	f.recent = bytes.Clone(f.recent[max(0, len(f.recent)-tailLen):])
	f.pending = f.pending[:0]
}

// next goes on to the file after this one, where there is one and this one is at its end. A writer that has the log rotated writes
// into the old file until it opens the new one; while that is empty it may not have.
func (f *follower) next() (more bool, err error) {
	name := f.path
	if len(f.later) > 0 {
		name = f.later[0]
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f.skipLater(), nil
	}
	if err != nil {
		return false, err
	}
	if f.file != nil {
		old, err := f.file.Stat()
		info, err2 := file.Stat()
		switch {
		case err != nil || err2 != nil:
			return false, errors.Join(err, err2, file.Close())
		case old.Size() != f.at+int64(len(f.pending)):
			return true, file.Close()
		case os.SameFile(old, info), info.Size() == 0:
			return f.skipLater(), file.Close()
		}
	}
	f.skipLater()
	if len(f.pending) > 0 || f.skip {
		f.count.Lines.Add(1)
		f.count.Unreadable.Add(1) // it will have no end
	}
	return true, f.goOn(file, 0)
}

// skipLater goes on to the file after the next one, and reports whether there was a next one but for the log itself.
func (f *follower) skipLater() bool {
	if len(f.later) == 0 {
		return false
	}
	f.later = f.later[1:]
	return true
}
