// Package tokens keeps what other hosts answered, for whoever comes with a connection and a time: in a file of SQLite, or in a
// database of PostgreSQL that several gateways share. Both have the same tables but for one thing: a day's records are a partition
// of one table in PostgreSQL, and a table of their own in SQLite.
package tokens

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
)

// A Record is one question to a host, and what came of it. Only connections of TCP are asked about.
type Record struct {
	// Seen is when the connection was, as who reported it says, and Asked when the answer was there. Both are kept to the
	// microsecond.
	Seen, Asked time.Time
	// Source and Destination are the connection's ends, as it was reported. One of them is the asked host's.
	Source, Destination netip.AddrPort
	// FarSource and FarDestination are the ends beyond a gateway that translates addresses; else not valid.
	FarSource, FarDestination netip.AddrPort
	Host                      netip.AddrPort
	Type                      stop.Type
	SID                       uint64
	// Token is what the host answered: a token, or "name:" and a name where it knows RFC 1413 alone. Where there is none Error says why.
	Token, Error string
	// Input is what reported the connection ("eve", "zeek", ...) and Alert what it had against it, if anything.
	Input, Alert string
}

// A Store is open for any number of goroutines at once.
type Store struct {
	db   *sql.DB
	kind *kind
	seed uint16

	mu   sync.Mutex
	days map[int64]bool // that are known to have a table
}

// ErrVersion stands for tables of another version of this program.
var ErrVersion = errors.New("tables of another version")

// Open opens a store and makes its tables where it has none, or older ones: where is a file, or an address such as
// postgres://user@host/database. The seed is that of the Community IDs of what is added. The error wraps [ErrVersion] where the tables are newer than
// this program.
func Open(ctx context.Context, where string, seed uint16) (*Store, error) {
	return open(ctx, where, seed, true)
}

// OpenExisting opens a store that has tables of this version, to find records. The error wraps [fs.ErrNotExist] where there is no such file, and
// [ErrVersion] where its tables are others.
func OpenExisting(ctx context.Context, where string) (*Store, error) {
	return open(ctx, where, 0, false)
}

func open(ctx context.Context, where string, seed uint16, create bool) (*Store, error) {
	s := &Store{seed: seed, days: map[int64]bool{}}
	var err error
	if isPostgres(where) {
		s.kind = postgres
		s.db, err = sql.Open("pgx", where)
	} else {
		s.kind = sqlite
		s.db, err = openSQLite(where, create)
	}
	if err != nil {
		return nil, fmt.Errorf("open tokens: %w", err)
	}
	s.db.SetMaxIdleConns(4)
	if create {
		if err = migrate(ctx, s.db, s.kind, s.kind.migrations); err == nil {
			_, err = s.db.ExecContext(ctx, s.kind.text("insert into token_seed (seed) values (?1) on conflict do nothing"), int32(seed))
		}
	} else {
		err = current(ctx, s.db, len(s.kind.migrations))
	}
	if err != nil {
		s.db.Close()
		return nil, fmt.Errorf("open tokens: %w", err)
	}
	return s, nil
}

func isPostgres(where string) bool {
	return strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://")
}

// openSQLite opens a file that only its owner reads.
func openSQLite(path string, create bool) (*sql.DB, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "?#%") {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("SQLite takes no ?, # or % in a name")}
	}
	// The log is carried over each 64 MB, not each 4: what many answers write at random is then written once.
	return sql.Open("sqlite3", "file:"+path+"?mode=rw&modeof="+path+"&_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(16384)")
}

// Close closes the store.
func (s *Store) Close() error { return s.db.Close() }

const day = 24 * time.Hour

// dayOf is the day on which something was asked, counted from 1970. Records go by this host's clock, not by what logs say: a day
// that some log invents would be a table more.
func dayOf(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }

// readDays returns the days that have a table.
func readDays(ctx context.Context, q querier) (map[int64]bool, error) {
	rows, err := q.QueryContext(ctx, "select day from token_day")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[int64]bool{}
	for rows.Next() {
		var d int64
		if err := rows.Scan(&d); err != nil {
			return nil, err
		}
		found[d] = true
	}
	return found, rows.Err()
}

// readSeeds returns the seeds of the Community IDs that are kept.
func readSeeds(ctx context.Context, q querier) (seeds []uint16, err error) {
	rows, err := q.QueryContext(ctx, "select seed from token_seed order by seed")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var seed uint16
		if err := rows.Scan(&seed); err != nil {
			return nil, err
		}
		seeds = append(seeds, seed)
	}
	return seeds, rows.Err()
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Add keeps records, all of them or none. They are on the disk when it returns.
func (s *Store) Add(ctx context.Context, records []Record) error {
	byDay := map[int64][]Record{}
	for _, r := range records {
		if r.Asked.Before(time.Unix(0, 0)) {
			return fmt.Errorf("keep tokens: asked at %s", r.Asked)
		}
		d := dayOf(r.Asked)
		byDay[d] = append(byDay[d], r)
	}
	days := slices.Sorted(maps.Keys(byDay))
	if err := s.addDays(ctx, days); err != nil {
		return fmt.Errorf("keep tokens: %w", err)
	}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		for _, d := range days {
			if err := s.kind.insert(ctx, tx, d, rowsOf(byDay[d], s.seed)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep tokens: %w", err)
	}
	return nil
}

// transaction runs what has to be done whole or not at all.
func (s *Store) transaction(ctx context.Context, do func(tx *sql.Tx) error) error {
	return transaction(ctx, s.db, do)
}

func transaction(ctx context.Context, db *sql.DB, do func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

// ignoreDone leaves out that a transaction has ended with its context.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// addDays makes the tables of days that have none. Another gateway may be at it.
func (s *Store) addDays(ctx context.Context, days []int64) error {
	for _, d := range days {
		s.mu.Lock()
		has := s.days[d]
		s.mu.Unlock()
		if has {
			continue
		}
		err := s.transaction(ctx, func(tx *sql.Tx) error {
			if err := s.kind.locked(ctx, tx); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRowContext(ctx, s.kind.text("select count(*) from token_day where day = ?1"), d).Scan(&n); err != nil || n > 0 {
				return err
			}
			for _, statement := range s.kind.createDay(d) {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			_, err := tx.ExecContext(ctx, s.kind.text("insert into token_day (day) values (?1)"), d)
			return err
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.days[d] = true
		s.mu.Unlock()
	}
	return nil
}

// Expire drops the records of days that were over before a host keeps any, and returns how many days these were. Of hosts that share the store the one that
// keeps them longest decides, until it has not been heard of for as long.
func (s *Store) Expire(ctx context.Context, host string, now time.Time, keep time.Duration) (dropped int, err error) {
	err = s.transaction(ctx, func(tx *sql.Tx) error {
		if err := s.kind.locked(ctx, tx); err != nil {
			return err
		}
		longest, err := s.longest(ctx, tx, host, now, keep)
		if err != nil {
			return err
		}
		before := now.Add(-longest)
		days, err := readDays(ctx, tx)
		if err != nil {
			return err
		}
		for d := range days {
			if d >= dayOf(before) {
				continue
			}
			if _, err := tx.ExecContext(ctx, "drop table "+tableOf(d)); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, s.kind.text("delete from token_day where day = ?1"), d); err != nil {
				return err
			}
			dropped++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("expire tokens: %w", err)
	}
	s.mu.Lock()
	clear(s.days)
	s.mu.Unlock()
	return dropped, nil
}

// longest says that a host keeps records for a time, and returns the longest for which one does.
func (s *Store) longest(ctx context.Context, tx *sql.Tx, host string, now time.Time, keep time.Duration) (time.Duration, error) {
	said := s.kind.text("insert into token_keeper (host, keep, at) values (?1, ?2, ?3) on conflict (host) do update set keep = excluded.keep, at = excluded.at")
	if _, err := tx.ExecContext(ctx, said, host, keep.Microseconds(), now.UnixMicro()); err != nil {
		return 0, err
	}
	var most int64
	err := tx.QueryRowContext(ctx, s.kind.text("select max(keep) from token_keeper where at + keep >= ?1"), now.UnixMicro()).Scan(&most)
	return time.Duration(most) * time.Microsecond, err
}

// A row is a record as it is kept: times in microseconds since 1970, addresses and the type as text, and empty text where there are
// no ends beyond a gateway.
type row struct {
	seen, asked            int64
	near, far              ends
	host                   string
	hostPort               int32
	kind, sid, token, fail string
	input, alert           string
}

type ends struct {
	community            string
	source, destination  string
	sourcePort, destPort int32
}

func endsOf(source, destination netip.AddrPort, seed uint16) ends {
	if !source.IsValid() {
		return ends{}
	}
	return ends{flows.CommunityID(flows.TCP, source, destination, seed), source.Addr().String(), destination.Addr().String(), int32(source.Port()), int32(destination.Port())}
}

func rowsOf(records []Record, seed uint16) []row {
	rows := make([]row, len(records))
	for i, r := range records {
		rows[i] = row{r.Seen.UnixMicro(), r.Asked.UnixMicro(), endsOf(r.Source, r.Destination, seed), endsOf(r.FarSource, r.FarDestination, seed),
			r.Host.Addr().String(), int32(r.Host.Port()), r.Type.String(), fmt.Sprint(r.SID), r.Token, storable(r.Error), r.Input, storable(r.Alert)}
	}
	return rows
}

// storable bounds text, and leaves out what PostgreSQL takes for no text.
func storable(s string) string {
	const most = 1000
	return strings.ToValidUTF8(strings.ReplaceAll(s[:min(len(s), most)], "\x00", ""), "")
}
