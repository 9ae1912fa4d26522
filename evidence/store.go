package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

const (
	// queueLength bounds the records that wait for the writer; who comes later waits to enter.
	queueLength = 256
	// defaultSegment is the size from which a segment is closed.
	defaultSegment = 64 << 20
)

// housekeeping is how often the writer looks for what has expired. Tests look more often.
var housekeeping = time.Minute

// Store is an open store. All methods may be called at once.
type Store struct {
	recipients []age.Recipient
	retention  time.Duration
	full       int64 // size from which a segment is closed
	most       int64 // bytes that the store may have; 0 is no bound
	logger     *slog.Logger
	now        func() time.Time
	dir        string
	lock       *os.File
	disk       disk
	log        *translog.Log // nil where it is left alone
	damage     error         // as it was opened; only [Export] opens a damaged one

	closing sync.RWMutex // held by who enters the queue; written to close it
	closed  bool
	queue   chan *entering
	drained chan struct{}
	house   chan func() // what the writer does in between

	// The writer's own, no lock.
	batch    *batch
	swapped  sync.Once   // that keys may be
	expiry   *time.Timer // of the batch
	unswept  int         // batches that closed since the last sweep
	sweeping *time.Timer // of what is left of their keys
	buffer   []byte
	room     *room
	alarms   alarms
	state    state

	mu     sync.RWMutex
	failed error
	open   *openSegment
	old    []*closedSegment // in order
}

// An openSegment is the one that is written. The writer changes it, under the store's lock where others read.
type openSegment struct {
	segment
	path    string
	file    *os.File
	size    int64
	next    uint64 // number of the next record
	last    int64  // time of the last one
	index   map[locator][]int64
	batches map[uint64]int64
}

func (o *openSegment) admit(at int64, r record) {
	switch {
	case r.kind.located():
		o.index[r.locator] = append(o.index[r.locator], at)
	case r.kind == typeBatch:
		o.batches[r.number] = at
	}
	o.next, o.last = r.number+1, r.time
}

// A closedSegment is found through its table.
type closedSegment struct {
	segment
	contents
	path  string
	table *os.File
}

// entering is a record on its way to the disk. The writer answers once on done, which has room.
type entering struct {
	kind    recordType
	locator locator
	// content is the payload; of a type that is sealed, packed and not sealed yet.
	content []byte
	payer   *stop.Payer        // nil: whatever room there is
	promise bool               // it was promised, and its room kept free
	change  func(*state) error // of the store's state, recorded behind it
	done    chan error
	number  uint64 // of its record, once done says that it is kept
}

// Create makes the directory dir, for its owner alone, with an empty store in it and a log that key signs. A dir that
// exists with content is an error, which wraps [os.ErrExist] where it is a store.
func Create(dir string, key translog.Key) error {
	err := func() error {
		dir, err := RealPath(dir)
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
		numbers, err := segments(dir)
		if err == nil && len(numbers) > 0 {
			err = fmt.Errorf("%q: %w", dir, os.ErrExist)
		}
		if err != nil {
			return err
		}
		if err := makeDir(dir); err != nil {
			return err
		}
		o, first, err := newSegment(systemDisk, dir, segment{number: 1, made: time.Now().UnixNano()}, state{})
		if err != nil {
			return err
		}
		return errors.Join(o.file.Close(), createLog(dir, key, first))
	}()
	if err != nil {
		return fmt.Errorf("create store: %w", err)
	}
	return nil
}

// Open opens the store in dir, and makes it where dir is missing or empty. It holds the lock
// DIR.lock until [Store.Close], reads the segment that was written last, cuts the torn tail that a crash left and
// records the start and the cut. Its errors wrap [ErrLocked], [ErrVersion] or [ErrAltered], the
// last where there is damage that no crash explains; the store is then left as it is, but for tables that were missing.
func Open(dir string, c Config) (*Store, error) {
	s, err := openStore(context.Background(), dir, c, true)
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
		_, err = segments(dir)
	}
	if err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

// check returns the path of a store that may be opened with a configuration, as [RealPath] gives it.
func check(dir string, c Config) (string, error) {
	// That the recipients cannot be sealed to is to be known now, not at the first report.
	b, _, err := newBatch(1, time.Time{}, c.Recipients)
	if err == nil {
		err = b.close()
	}
	if err != nil {
		return "", err
	}
	dir, err = RealPath(dir)
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
func openStore(ctx context.Context, dir string, c Config, create bool) (_ *Store, err error) {
	if dir, err = check(dir, c); err != nil {
		return nil, err
	}
	writes := systemDisk
	if c.disk != nil {
		writes = *c.disk
	}
	if create {
		if err := writes.makeParent(dir); err != nil {
			return nil, err
		}
	} else if _, err := existingSegments(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		recipients: c.Recipients,
		retention:  c.Retention,
		full:       c.SegmentBytes,
		most:       c.MaxBytes,
		logger:     c.Logger,
		now:        c.Now,
		dir:        dir,
		lock:       lock,
		disk:       writes,
		queue:      make(chan *entering, queueLength),
		drained:    make(chan struct{}),
		house:      make(chan func()),
		room:       newRoom(c.MaxBytes, c.Retention),
		expiry:     time.NewTimer(time.Hour),
		sweeping:   time.NewTimer(time.Hour),
	}
	if s.full == 0 {
		s.full = defaultSegment
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.alarms.logger = s.logger
	if c.LogKey == nil {
		s.logger.Warn("the key of the store's log is missing: records are neither held against the log nor entered", "store", dir)
	}
	defer func() {
		if err != nil {
			s.closeFiles()
		}
	}()
	torn, err := s.read(ctx, create)
	if err == nil && c.LogKey != nil {
		if err = s.openLog(ctx, *c.LogKey); errors.Is(err, ErrAltered) {
			err = s.damaged(err, create)
		}
	}
	if err == nil {
		err = s.tidy(torn)
	}
	if err != nil {
		return nil, err
	}
	if err := s.recordStart(torn); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// Keep seals report to the recipients and keeps it, charged to p. It returns the report's token once the record
// is durable, so a token that somebody holds has a record, whatever crashes. Where ctx ends first
// the record may become durable all the same, with no one told its token. Errors wrap [ErrFull], [ErrShare],
// [ErrStore], [os.ErrClosed] or ctx's error.
func (s *Store) Keep(ctx context.Context, report []byte, p stop.Payer) (stop.Token, error) {
	packed, err := pack(report, step)
	if err != nil {
		return stop.Token{}, fmt.Errorf("keep report: %w", err)
	}
	t := stop.TokenOf(report)
	err = s.append(ctx, &entering{kind: typeReport, locator: locate(reportLabel, t), content: packed, payer: &p})
	if err != nil {
		return stop.Token{}, fmt.Errorf("keep report: %w", err)
	}
	return t, nil
}

// KeepTraceback keeps what a trace-back brought under t, as [Store.Keep] does a report. That t names a report,
// kept with [stop.Payer.Traceback] set, is not checked.
func (s *Store) KeepTraceback(ctx context.Context, t stop.Token, traceback []byte) error {
	packed, err := pack(append(t[:], traceback...), tracebackStep)
	if err != nil {
		return fmt.Errorf("keep trace-back: %w", err)
	}
	err = s.append(ctx, &entering{kind: typeTraceback, locator: locate(tracebackLabel, t), content: packed, promise: true})
	if err != nil {
		return fmt.Errorf("keep trace-back: %w", err)
	}
	return nil
}

// RecordConfig records that the configuration is now the one with this hash.
func (s *Store) RecordConfig(ctx context.Context, sum [32]byte) error {
	err := s.append(ctx, &entering{kind: typeConfig, locator: typeLocator(typeConfig), content: fmt.Appendf(nil, `{"sha256":"%x"}`, sum)})
	if err != nil {
		return fmt.Errorf("record configuration: %w", err)
	}
	return nil
}

// Close waits for what was handed in to become durable, erases the batch's key, signs the log and gives up the lock.
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
	var err error
	if s.log != nil && s.failure() == nil {
		err = s.log.Checkpoint()
	}
	if err = errors.Join(err, s.closeFiles()); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

func (s *Store) closeFiles() error {
	var errs []error
	s.endBatch()
	s.sweep()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.old {
		errs = append(errs, c.table.Close())
	}
	if s.open != nil {
		errs = append(errs, s.open.file.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// LogKeyPath gives where the key is that signs the log of the store in dir: beside it, as the lock and the socket are,
// and not in it.
func LogKeyPath(dir string) (string, error) {
	dir, err := RealPath(dir)
	return filepath.Join(filepath.Dir(dir), "log.key"), err
}

// RealPath gives the path of dir that lies beside its lock, its socket and its log's key: the same one by whatever
// symbolic links dir is reached.
func RealPath(dir string) (string, error) {
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
