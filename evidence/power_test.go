package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
)

// soak has the loops run as often as is claimed (make soak), not a tenth of that.
var soak = os.Getenv("STOPD_SOAK") != ""

// An op is one thing that was done to the disk, or an answer that was given.
type op struct {
	kind   string // create, write, truncate, sync, rename, remove, syncdir, answer
	path   string // of the file as it was called then
	to     string
	off    int64
	data   []byte
	answer stop.Token
}

// A tape records what is done to a disk, in order.
type tape struct {
	mu    sync.Mutex
	ops   []op
	paths map[*os.File]string // of files that were made, by the names that they have now
}

func (p *tape) add(o op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ops = append(p.ops, o)
}

func (p *tape) path(f *os.File) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if path, ok := p.paths[f]; ok {
		return path
	}
	return f.Name()
}

// disk is the system's, on tape.
func (p *tape) disk() *disk {
	d := systemDisk
	d.create = func(path string) (*os.File, error) {
		p.add(op{kind: "create", path: path})
		f, err := systemDisk.create(path)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.paths[f] = path
		return f, err
	}
	d.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		p.add(op{kind: "write", path: p.path(f), off: off, data: bytes.Clone(b)})
		return systemDisk.writeAt(f, b, off)
	}
	d.sync = func(f *os.File) error {
		p.add(op{kind: "sync", path: p.path(f)})
		return systemDisk.sync(f)
	}
	d.truncate = func(f *os.File, size int64) error {
		p.add(op{kind: "truncate", path: p.path(f), off: size})
		return systemDisk.truncate(f, size)
	}
	d.rename = func(from, to string) error {
		p.add(op{kind: "rename", path: from, to: to})
		p.mu.Lock()
		for f, path := range p.paths {
			if path == from {
				p.paths[f] = to
			}
		}
		p.mu.Unlock()
		return systemDisk.rename(from, to)
	}
	d.remove = func(path string) error {
		p.add(op{kind: "remove", path: path})
		return systemDisk.remove(path)
	}
	d.syncDir = func(dir string) error {
		p.add(op{kind: "syncdir", path: dir})
		return systemDisk.syncDir(dir)
	}
	return &d
}

// An image is files as they may be after the power went.
type image map[string][]byte

func (m image) write(path string, off int64, b []byte) {
	f := m[path]
	if need := int(off) + len(b); len(f) < need {
		f = append(f, make([]byte, need-len(f))...)
	}
	copy(f[off:], b)
	m[path] = f
}

// A loss is what the power takes with it besides what comes later.
type loss struct {
	name string
	// unsynced: what was written to a file since its last sync is lost; zeros: it is there as zeros instead.
	unsynced, zeros bool
	// names: what was made, renamed and removed since the directory's last sync is lost.
	names bool
}

// after gives the disk after the first n ops, and cut bytes of the next write, and the tokens that had been answered.
func after(start image, ops []op, n, cut int, l loss) (image, []stop.Token) {
	now, synced := image{}, map[string][]byte{}
	for path, b := range start {
		now[path], synced[path] = bytes.Clone(b), bytes.Clone(b)
	}
	listed := map[string]bool{} // names that are durable
	for path := range start {
		listed[path] = true
	}
	gone := map[string][]byte{}
	renamed := map[string]string{}
	var answered []stop.Token
	for i, o := range ops[:min(n+1, len(ops))] {
		if i == n {
			if o.kind == "write" {
				now.write(o.path, o.off, o.data[:min(cut, len(o.data))])
			}
			break
		}
		switch o.kind {
		case "create":
			now[o.path], synced[o.path] = nil, nil
		case "write":
			now.write(o.path, o.off, o.data)
		case "truncate":
			now[o.path] = now[o.path][:o.off]
		case "sync":
			synced[o.path] = bytes.Clone(now[o.path])
		case "rename":
			now[o.to], synced[o.to] = now[o.path], synced[o.path]
			delete(now, o.path)
			delete(synced, o.path)
			renamed[o.to] = o.path
		case "remove":
			gone[o.path] = now[o.path]
			delete(now, o.path)
			delete(synced, o.path)
		case "syncdir":
			listed = map[string]bool{}
			for path := range now {
				listed[path] = true
			}
			clear(gone)
			clear(renamed)
		case "answer":
			answered = append(answered, o.answer)
		}
	}
	if l.unsynced {
		for path := range now {
			b := bytes.Clone(synced[path])
			if l.zeros && len(now[path]) > len(b) {
				b = append(b, make([]byte, len(now[path])-len(b))...)
			}
			now[path] = b
		}
	}
	if l.names {
		for path := range now {
			if !listed[path] {
				if from, ok := renamed[path]; ok {
					now[from] = now[path]
				}
				delete(now, path)
			}
		}
		for path, b := range gone {
			if listed[path] {
				now[path] = b
			}
		}
	}
	return now, answered
}

// The power goes at any point of what is written: between two operations or within a write, with what was not synced
// there, lost, or zeros, and names of files there or not. Every time the store opens, nobody's token is lost, and
// nothing is taken for damage.
func TestPowerLoss(t *testing.T) {
	id := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "store")
	began := time.Now()
	passed := time.Duration(0)
	c := configFor(Config{SegmentBytes: 6 << 10, Retention: time.Hour, Now: func() time.Time { return began.Add(passed) }}, id)
	s, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	start := snapshot(t, dir)

	p := &tape{paths: map[*os.File]string{}}
	c.disk = p.disk()
	if s, err = Open(dir, c); err != nil {
		t.Fatal(err)
	}
	kept := func(report string) stop.Token {
		token := keep(t, s, report)
		p.add(op{kind: "answer", answer: token})
		return token
	}
	expired := map[stop.Token]bool{}
	for s.current().number < 3 {
		expired[kept(fmt.Sprintf("early report %d", len(p.ops)))] = true
	}
	passed = 2 * time.Hour
	s.expireNow(t.Context())
	first := s.current().number
	for s.current().number < first+2 {
		token := kept(fmt.Sprintf("report %d", len(p.ops)))
		keepTraceback(t, s, token, "asked")
	}
	closeStore(t, s)

	losses := []loss{{name: "nothing"}, {name: "unsynced", unsynced: true}, {name: "zeros", unsynced: true, zeros: true},
		{name: "names", names: true}, {name: "both", unsynced: true, names: true}}
	c.disk = quick()
	points, stride := 0, 401
	if soak {
		stride = 13
	}
	for n := range len(p.ops) + 1 {
		cuts := []int{0}
		if n < len(p.ops) && p.ops[n].kind == "write" {
			for cut := 1; cut < len(p.ops[n].data); cut += stride {
				cuts = append(cuts, cut)
			}
		}
		for _, cut := range cuts {
			for _, l := range losses {
				if cut > 0 && l.unsynced {
					continue // the write that was under way is lost: as before it
				}
				points++
				now, answered := after(start, p.ops, n, cut, l)
				if err := recovers(t, now, dir, c, answered, expired, id); err != nil {
					t.Fatalf("op %d (%s), %d bytes of it, %s lost: %v", n, describe(p.ops, n), cut, l.name, err)
				}
			}
		}
	}
	t.Logf("%d operations, %d points", len(p.ops), points)
}

// quick is a disk that syncs nothing, for tests that open stores again and again and ask another question.
func quick() *disk {
	d := systemDisk
	d.sync, d.syncDir = func(*os.File) error { return nil }, func(string) error { return nil }
	return &d
}

func describe(ops []op, n int) string {
	if n == len(ops) {
		return "the end"
	}
	return ops[n].kind + " " + filepath.Base(ops[n].path)
}

func snapshot(t *testing.T, dir string) image {
	t.Helper()
	m := image{}
	paths, err := filepath.Glob(filepath.Join(dir, "0*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if m[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// recovers opens a store from an image, and looks for every token in it.
func recovers(t *testing.T, m image, was string, c Config, answered []stop.Token, expired map[stop.Token]bool, id age.Identity) error {
	t.Helper()
	parent := "/dev/shm" // where nothing waits for a disk
	if _, err := os.Stat(parent); err != nil {
		parent = filepath.Dir(was)
	}
	dir, err := os.MkdirTemp(parent, "stopd-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(m)) {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), m[path], 0o600); err != nil {
			return err
		}
	}
	s, err := Open(dir, c)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, token := range answered {
		records, err := s.collect(token)
		if errors.Is(err, ErrNotFound) && expired[token] {
			continue
		}
		if err != nil {
			return fmt.Errorf("token %s: %w", token, err)
		}
		ds, err := Disclose(records.append(appendExportHeader(nil)), id)
		if err != nil {
			return err
		}
		for _, d := range ds {
			if c, err := d.Open(); err != nil {
				return err
			} else if c.Type == "report" && stop.TokenOf(c.Plaintext) != token {
				return fmt.Errorf("token %s: another report", token)
			}
		}
	}
	return List(dir, func(Entry) error { return nil })
}
