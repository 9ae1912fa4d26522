package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
)

// queueLength bounds the records that wait for the writer; who comes later waits to enter.
const queueLength = 256

// Store is an open store. All methods may be called at once.
type Store struct {
	recipients []age.Recipient
	maxBytes   int64
	logger     *slog.Logger
	now        func() time.Time

	path   string // of the segment
	file   *os.File
	lock   *os.File
	disk   disk
	damage error // of the segment as it was opened; only [Export] opens a damaged one

	closing sync.RWMutex // held by who enters the queue; written to close it
	closed  bool
	queue   chan *entering
	drained chan struct{}

	// The writer's own, no lock.
	size      int64
	buffer    []byte
	fullKnown bool

	mu     sync.RWMutex
	failed error
	index  map[locator][]int64 // offsets of reports and trace-backs, in order
}

// disk is what the writer does to the segment. Tests replace its functions.
type disk struct {
	writeAt  func(b []byte, off int64) (int, error)
	sync     func() error
	truncate func(size int64) error
}

// entering is a record on its way to the disk. The writer answers once on done, which has room.
type entering struct {
	record record
	done   chan error
}

// Create makes the directory dir, for its owner alone, with an empty store in it. A dir that exists
// with content is an error, which wraps [os.ErrExist] where it is a store.
func Create(dir string) error {
	err := func() error {
		dir, err := resolve(dir)
		if err != nil {
			return err
		}
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		lock, err := takeLock(dir)
		if err != nil {
			return err
		}
		defer lock.Close()
		path, err := segmentPath(dir)
		if err == nil && path != "" {
			err = fmt.Errorf("%q: %w", path, os.ErrExist)
		}
		if err != nil {
			return err
		}
		return createSegment(dir)
	}()
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	return nil
}

// Open opens the store in dir, and makes it where dir is missing or empty. It holds the lock
// DIR.lock until [Store.Close], reads the whole store, cuts the torn tail that a crash left and
// records the start and the cut. Its errors wrap [ErrLocked], [ErrVersion] or [ErrAltered], the
// last where there is damage that no crash explains; the store is then left as it is.
func Open(dir string, c Config) (*Store, error) {
	s, err := openStore(context.Background(), dir, c, true)
	if err == nil && s.damage != nil {
		err = s.damage
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// Check reports what [Open] would refuse by its configuration or by what is in dir, and makes nothing. A store
// that another program has open, or that is damaged, is not found out.
func Check(dir string, c Config) error {
	dir, err := check(dir, c)
	if err == nil {
		_, err = segmentPath(dir)
	}
	if err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

// check returns the path of a store that may be opened with a configuration, as [resolve] gives it.
func check(dir string, c Config) (string, error) {
	// That the recipients cannot be sealed to is to be known now, not at the first report.
	if _, err := seal(c.Recipients); err != nil {
		return "", err
	}
	dir, err := resolve(dir)
	if err != nil {
		return "", err
	}
	if !c.AllowVolatile {
		if err := refuseVolatile(dir); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// openStore opens a store for appending. With create unset it makes nothing, and opens a damaged
// store too, with [Store.damage] set. With create set a damaged store is the error.
func openStore(ctx context.Context, dir string, c Config, create bool) (s *Store, err error) {
	if dir, err = check(dir, c); err != nil {
		return nil, err
	}
	if create {
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	} else if _, err := existingSegment(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	defer closeOnError(&err, lock)
	path, err := segmentPath(dir)
	if err != nil {
		return nil, err
	}
	if path == "" {
		if err := createSegment(dir); err != nil {
			return nil, err
		}
		path = filepath.Join(dir, segmentName)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer closeOnError(&err, file)
	s = &Store{
		recipients: c.Recipients,
		maxBytes:   c.MaxBytes,
		logger:     c.Logger,
		now:        c.Now,
		path:       path,
		file:       file,
		lock:       lock,
		disk: disk{
			writeAt:  file.WriteAt,
			sync:     func() error { return syncData(file) },
			truncate: file.Truncate,
		},
		queue:   make(chan *entering, queueLength),
		drained: make(chan struct{}),
		index:   map[locator][]int64{},
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.start(ctx, create); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// start reads the segment, closes its tail and records that.
func (s *Store) start(ctx context.Context, strict bool) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	l, err := walk(ctx, s.file, info.Size(), func(at int64, r record) error {
		s.admit(at, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %q: %w", s.path, err)
	}
	if s.damage = l.err(s.path); s.damage != nil && strict {
		return s.damage
	}
	s.size = l.end
	cut := l.size - l.end
	if cut > 0 {
		s.logger.Warn("closed a torn tail of the store", "segment", s.path, "offset", l.end, "bytes", cut)
		if err := s.disk.truncate(l.end); err != nil {
			return fmt.Errorf("cut torn tail: %w", err)
		}
		if err := s.disk.sync(); err != nil {
			return fmt.Errorf("cut torn tail: %w", err)
		}
	}
	payload, err := json.Marshal(startPayload{Cut: cut})
	if err != nil {
		return err
	}
	e := &entering{record: record{kind: typeStart, payload: payload}, done: make(chan error, 1)}
	s.commit([]*entering{e})
	return <-e.done
}

// startPayload is the payload of a start record, which is not sealed: [List] shows it, and it says
// nothing of a report.
type startPayload struct {
	Cut int64 `json:"cut"` // bytes of torn tail removed
}

// Keep seals report to the recipients and keeps it. It returns the report's token once the record
// is durable, so a token that somebody holds has a record, whatever crashes. Where ctx ends first
// the record may become durable all the same, with no one told its token. Errors wrap [ErrFull],
// [ErrStore], [os.ErrClosed] or ctx's error.
func (s *Store) Keep(ctx context.Context, report []byte) (stop.Token, error) {
	payload, err := seal(s.recipients, report)
	if err != nil {
		return stop.Token{}, fmt.Errorf("keep report: %w", err)
	}
	t := stop.TokenOf(report)
	err = s.append(ctx, record{kind: typeReport, locator: locate(reportLabel, t), payload: payload})
	if err != nil {
		return stop.Token{}, fmt.Errorf("keep report: %w", err)
	}
	return t, nil
}

// KeepTraceback keeps what a trace-back brought under t, as [Store.Keep] does a report. A token may
// have several. That t names a report is not checked.
func (s *Store) KeepTraceback(ctx context.Context, t stop.Token, traceback []byte) error {
	payload, err := seal(s.recipients, t[:], traceback)
	if err != nil {
		return fmt.Errorf("keep trace-back: %w", err)
	}
	err = s.append(ctx, record{kind: typeTraceback, locator: locate(tracebackLabel, t), payload: payload})
	if err != nil {
		return fmt.Errorf("keep trace-back: %w", err)
	}
	return nil
}

// Close waits for what was handed in to become durable, and gives up the lock.
func (s *Store) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return fmt.Errorf("close store: %w", os.ErrClosed)
	}
	s.closed = true
	close(s.queue)
	s.closing.Unlock()
	<-s.drained
	if err := errors.Join(s.file.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// resolve gives the path of dir that the lock and the socket are named after: the same one by
// whatever symbolic links dir is reached.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real, nil
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		return filepath.Join(parent, filepath.Base(dir)), nil
	}
	return dir, nil
}

// takeLock locks DIR.lock, which stays when the lock is given up: removing it would let two
// programs hold two files of that name.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return f, nil
}

// refuseVolatile refuses a store that would not survive a reboot. Where dir is missing, its nearest
// parent tells.
func refuseVolatile(dir string) error {
	for {
		fs, err := volatileFileSystem(dir)
		if errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("check file system of %q: %w", dir, err)
		}
		if fs != "" {
			return fmt.Errorf("check file system of %q: %s does not survive a reboot", dir, fs)
		}
		return nil
	}
}

func closeOnError(err *error, f *os.File) {
	if *err != nil {
		f.Close()
	}
}
