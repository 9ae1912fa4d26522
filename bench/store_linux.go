package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	_ "github.com/ncruces/go-sqlite3/driver"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/report"
)

// keepers save at once, as so many requests would.
const keepers = 64

// A shelf is a way to keep sealed reports.
type shelf struct {
	name  string
	count int // reports that are kept
	keep  func(token stop.Token, report []byte) error
	end   func() error
	dir   string
}

// store measures P8: what it takes to keep a report of six processes sealed and durable, and to take one out again.
func (b *bench) store() error {
	sample, err := b.sample()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	reports := 20_000
	if b.quick {
		reports = 2_000
	}
	t := table{head: []string{fmt.Sprintf("a report of %d octets, %d at once", len(sample), keepers), "reports/s", "CPU a report", "octets a report"}}
	for _, open := range []func(dir string, id *age.X25519Identity) (*shelf, error){openStore, openFiles, openSQLite} {
		s, err := open(dir, id)
		if err != nil {
			return err
		}
		s.count = reports
		if s.name != ours {
			s.count = reports / 10
		}
		row, err := b.shelve(s, sample)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		t.add(row...)
	}
	redeem, err := b.redeem(dir, id)
	if err != nil {
		return err
	}
	b.section("P8: keeping and redeeming", t, redeem.markdown()+
		"\nTo reach: at most 1.2 KB a report, and a time to redeem that does not grow. Redeeming includes the record of it and its fdatasync(2), and opening what comes out.")
	return nil
}

// sample is a report of the six processes of P3.
func (b *bench) sample() ([]byte, error) {
	g, err := grow("login", 0)
	if err != nil {
		return nil, err
	}
	defer g.end()
	h, err := linux.Open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	r, err := examiner(h, noKeeper{}).Look(b.ctx, question(stop.SV, asked[0], asked[1]))
	if err != nil {
		return nil, err
	}
	return report.Encode(r), nil
}

// fresh gives the report with another salt, so that no two have a token.
func fresh(sample []byte) []byte {
	r := bytes.Clone(sample)
	var salt [32]byte
	rand.Read(salt[:])
	at := bytes.Index(r, []byte(`"salt":"`)) + len(`"salt":"`)
	hex.Encode(r[at:], salt[:])
	return r
}

// shelve keeps reports and says how fast, at what cost in time and room.
func (b *bench) shelve(s *shelf, sample []byte) ([]string, error) {
	before := cpu()
	began := time.Now()
	if err := fill(s.keep, s.count, sample); err != nil {
		return nil, err
	}
	wall := time.Since(began)
	spent := cpu() - before
	if err := s.end(); err != nil {
		return nil, err
	}
	size, err := sizeOf(s.dir)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(b.out, "BenchmarkP8/by=%s\t%8d\t%12d ns/op\t%d cpu-ns/op\t%d B/report\n", s.name, s.count, wall.Nanoseconds()/int64(s.count), spent.Nanoseconds()/int64(s.count), size/int64(s.count))
	return []string{s.name, fmt.Sprintf("%.0f", float64(s.count)/wall.Seconds()), format(spent / time.Duration(s.count)), fmt.Sprint(size / int64(s.count))}, nil
}

func fill(keep func(stop.Token, []byte) error, n int, sample []byte) error {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	failed := make(chan error, keepers)
	for range keepers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				r := fresh(sample)
				if err := keep(stop.TokenOf(r), r); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for no such who alone
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

var payer = stop.Payer{Source: netip.MustParseAddr("192.0.2.1")}

func openStore(dir string, id *age.X25519Identity) (*shelf, error) {
	dir = filepath.Join(dir, "store")
	s, err := evidence.Open(dir, evidence.Config{Recipients: []age.Recipient{id.Recipient()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &shelf{name: ours, dir: dir, end: s.Close, keep: func(_ stop.Token, r []byte) error {
		_, err := s.Keep(context.Background(), r, payer)
		return err
	}}, nil
}

func sealed(id *age.X25519Identity, r []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, id.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(r); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// openFiles keeps an age file a report, synced.
func openFiles(dir string, id *age.X25519Identity) (*shelf, error) {
	dir = filepath.Join(dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &shelf{name: "an age file a report", dir: dir, end: func() error { return nil }, keep: func(t stop.Token, r []byte) error {
		f, err := os.Create(filepath.Join(dir, t.String()))
		if err != nil {
			return err
		}
		defer f.Close()
		w, err := age.Encrypt(f, id.Recipient())
		if err != nil {
			return err
		}
		if _, err := w.Write(r); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		return f.Sync()
	}}, nil
}

// openSQLite keeps age files in a table of SQLite, as many in a transaction as wait, synced.
func openSQLite(dir string, id *age.X25519Identity) (*shelf, error) {
	dir = filepath.Join(dir, "sqlite")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "reports")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("create table report (token blob primary key, sealed blob) without rowid"); err != nil {
		return nil, err
	}
	type row struct {
		token  stop.Token
		sealed []byte
		done   chan error
	}
	rows := make(chan row, keepers)
	write := func(first row) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		group := []row{first}
		for more := true; more; {
			select {
			case r := <-rows:
				group = append(group, r)
			default:
				more = false
			}
		}
		for _, r := range group {
			if _, err = tx.Exec("insert into report values (?, ?)", r.token[:], r.sealed); err != nil {
				break
			}
		}
		if err == nil {
			err = tx.Commit()
		} else {
			tx.Rollback()
		}
		for _, r := range group {
			r.done <- err
		}
		return err
	}
	go func() {
		for r := range rows {
			if write(r) != nil {
				return
			}
		}
	}()
	end := func() error { close(rows); return db.Close() }
	return &shelf{name: "age files in SQLite", dir: dir, end: end, keep: func(t stop.Token, r []byte) error {
		b, err := sealed(id, r)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		rows <- row{t, b, done}
		return <-done
	}}, nil
}

// redeem measures how long it takes to take one report out of so many.
func (b *bench) redeem(dir string, id *age.X25519Identity) (table, error) {
	t := table{head: []string{"reports in the store", "start", "redeem", "of the first"}}
	sizes := []int{1, 10_000, 1_000_000}
	if b.quick {
		sizes = []int{1, 1_000, 10_000}
	}
	small := fmt.Appendf(nil, `{"version":1,"kind":"none","salt":"%064d","reason":"no user: no such connection"}`, 0)
	dir = filepath.Join(dir, "redeem")
	c := evidence.Config{Recipients: []age.Recipient{id.Recipient()}, Logger: slog.New(slog.DiscardHandler)}
	var first stop.Token
	for i, n := range sizes {
		if i > 0 {
			n -= sizes[i-1]
		}
		s, err := evidence.Open(dir, c)
		if err != nil {
			return t, err
		}
		var mu sync.Mutex
		var some []stop.Token
		err = fill(func(token stop.Token, r []byte) error {
			_, err := s.Keep(context.Background(), r, payer)
			mu.Lock()
			defer mu.Unlock()
			if len(some) < 64 || first == (stop.Token{}) {
				some = append(some, token)
				first = some[0]
			}
			return err
		}, n, small)
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			return t, err
		}
		began := time.Now()
		if s, err = evidence.Open(dir, c); err != nil {
			return t, err
		}
		start := time.Since(began)
		times := map[string]figure{}
		for name, pick := range map[string]func(i int) stop.Token{"any": func(i int) stop.Token { return some[i%len(some)] }, "first": func(int) stop.Token { return first }} {
			var f figure
			for i := range 101 {
				began := time.Now()
				export, err := s.Export(context.Background(), evidence.Redemption{Token: pick(i), By: "bench", Reason: "P8"})
				if err == nil {
					_, err = evidence.Unseal(export, id)
				}
				if err != nil {
					return t, err
				}
				f.times = append(f.times, time.Since(began))
			}
			times[name] = f
		}
		if err := s.Close(); err != nil {
			return t, err
		}
		fmt.Fprintf(b.out, "BenchmarkP8/redeem/stored=%d\t101\t%12d ns/op\n", sizes[i], times["any"].median().Nanoseconds())
		t.add(count(sizes[i]), format(start), format(times["any"].median()), format(times["first"].median()))
	}
	return t, nil
}
