package tokens

import (
	"database/sql"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
)

func openDB(driver, where string) (*sql.DB, error) { return sql.Open(driver, where) }

// both runs a test against SQLite and against PostgreSQL. What it is given is where a store can be made.
func both(t *testing.T, test func(t *testing.T, where string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "tokens.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, newPostgres(t)) })
}

func opened(t *testing.T, where string, seed ...uint16) *Store {
	t.Helper()
	s, err := Open(t.Context(), where, append(seed, 0)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var noon = time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)

// record is one of an hour, in minutes after noon of a day.
func record(source, destination string, days, minutes int) Record {
	seen := noon.AddDate(0, 0, days).Add(time.Duration(minutes) * time.Minute)
	r := Record{Seen: seen, Asked: seen.Add(20 * time.Millisecond), Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination),
		Type: stop.SVRec, SID: 1<<64 - 1, Token: stop.TokenOf([]byte(source)).String(), Input: "eve", Alert: "ET SCAN naïve"}
	r.Host = netip.AddrPortFrom(r.Source.Addr(), 113)
	return r
}

func same(t *testing.T, what string, want, got []Record) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestFind(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		s := opened(t, where)
		// The connection that somebody complains about, its port used again on another day, and the innocent.
		asked := record("192.0.2.7:40022", "198.51.100.1:22", 0, 125)
		again := record("192.0.2.7:40022", "203.0.113.9:443", 1, 125)
		other := record("192.0.2.7:40023", "198.51.100.1:22", 0, 125)
		inbound := record("203.0.113.9:5555", "192.0.2.7:80", 0, 126)
		inbound.Host, inbound.Token, inbound.Error, inbound.Type, inbound.SID = netip.MustParseAddrPort("192.0.2.7:113"), "", "connection refused", stop.ID, 0
		six := record("[2001:db8::7]:40022", "[2001:db8::1]:22", 0, 1)
		// A gateway masked it, and somebody beyond complains about the gateway's address.
		masked := record("10.0.0.7:1024", "198.51.100.9:22", 0, 127)
		masked.FarSource, masked.FarDestination = netip.MustParseAddrPort("203.0.113.1:61000"), masked.Destination
		if err := s.Add(t.Context(), []Record{again, other, masked, inbound, six, asked}); err != nil {
			t.Fatal(err)
		}
		flow := [2]netip.AddrPort{asked.Source, asked.Destination}
		at := asked.Seen
		for _, tt := range []struct {
			what string
			q    Query
			want []Record
		}{
			{"a flow", Query{Flow: flow}, []Record{asked}},
			{"a flow from the other side", Query{Flow: [2]netip.AddrPort{flow[1], flow[0]}}, []Record{asked}},
			{"a Community ID", Query{Community: flows.CommunityID(flows.TCP, six.Source, six.Destination, 0)}, []Record{six}},
			{"who was it at that time", Query{End: asked.Source, From: at.Add(-time.Minute), To: at.Add(time.Minute)}, []Record{asked}},
			{"an end at any time", Query{End: asked.Source}, []Record{asked, again}},
			{"an address", Query{End: netip.AddrPortFrom(asked.Source.Addr(), 0)}, []Record{other, asked, inbound, again}},
			{"an end to which somebody came", Query{End: inbound.Destination}, []Record{inbound}},
			{"a time", Query{From: at.Add(time.Minute), To: at.Add(24 * time.Hour)}, []Record{inbound, masked, again}},
			{"everything", Query{}, []Record{six, other, asked, inbound, masked, again}},
			{"a flow beyond a gateway", Query{Flow: [2]netip.AddrPort{masked.FarSource, masked.FarDestination}}, []Record{masked}},
			{"an end beyond a gateway", Query{End: masked.FarSource, From: at, To: at.Add(time.Hour)}, []Record{masked}},
			{"a flow before a gateway", Query{Flow: [2]netip.AddrPort{masked.Source, masked.Destination}}, []Record{masked}},
			{"an end of both sides", Query{End: masked.Destination}, []Record{masked}},
			{"nothing", Query{End: netip.MustParseAddrPort("192.0.2.8:40022")}, nil},
		} {
			tt.q.Limit = 100
			got, more, err := s.Find(t.Context(), tt.q)
			if err != nil || more {
				t.Errorf("%s: more %v, %v", tt.what, more, err)
			}
			same(t, tt.what, tt.want, got)
		}
		got, more, err := s.Find(t.Context(), Query{Limit: 2})
		if err != nil || !more {
			t.Errorf("more than the limit: %v, %v", more, err)
		}
		same(t, "the first two", []Record{six, other}, got)
		if _, _, err := s.Find(t.Context(), Query{}); err == nil {
			t.Error("no limit is no error")
		}

		// Whoever looks sees the same, and makes nothing.
		looks, err := OpenExisting(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer looks.Close()
		got, _, err = looks.Find(t.Context(), Query{Limit: 100})
		if len(got) != 6 || err != nil {
			t.Errorf("who looks finds %d, %v", len(got), err)
		}
	})
}

// Records of days that are over go, and the others stay.
func TestExpire(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		s := opened(t, where)
		var all []Record
		for d := range 5 {
			all = append(all, record("192.0.2.7:40022", "198.51.100.1:22", d, d))
		}
		if err := s.Add(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ day, dropped int }{{-3, 0}, {2, 2}, {2, 0}, {3, 1}} {
			// Between one noon and another: the day that is under way stays.
			n, err := s.Expire(t.Context(), "gateway", noon.AddDate(0, 0, tt.day).Add(11*time.Hour).Add(time.Hour), time.Hour)
			if n != tt.dropped || err != nil {
				t.Errorf("day %d: %d days are dropped, not %d, %v", tt.day, n, tt.dropped, err)
			}
		}
		got, _, err := s.Find(t.Context(), Query{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "what is left", all[3:], got)
		// A day that was dropped can begin again.
		if err := s.Add(t.Context(), all[:1]); err != nil {
			t.Fatal(err)
		}
		got, _, err = s.Find(t.Context(), Query{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "what is there again", append(all[:1:1], all[3:]...), got)
	})
}

// Of gateways that share a database the one that keeps longest decides, as long as it is there.
func TestExpireShared(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		s := opened(t, where)
		var all []Record
		for d := range 12 {
			all = append(all, record("192.0.2.7:40022", "198.51.100.1:22", d, d))
		}
		if err := s.Add(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		const day = 24 * time.Hour
		for _, tt := range []struct {
			host    string
			day     int
			keep    time.Duration
			dropped int
		}{
			{"long", 4, 4 * day, 0},
			{"short", 5, day, 1},    // what both keep no longer
			{"long", 6, 3 * day, 2}, // it keeps less from now on
			{"short", 9, day, 3},    // it may come back
			{"short", 10, day, 3},   // it has not been heard of for three days
		} {
			n, err := s.Expire(t.Context(), tt.host, noon.AddDate(0, 0, tt.day), tt.keep)
			if n != tt.dropped || err != nil {
				t.Errorf("day %d: %d days are dropped, not %d, %v", tt.day, n, tt.dropped, err)
			}
		}
	})
}

// Several gateways begin a day at once, and nothing is lost.
func TestShared(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		const gateways, each = 4, 25
		var wg sync.WaitGroup
		errs := make(chan error, gateways*each)
		for range gateways {
			wg.Go(func() {
				s, err := Open(t.Context(), where, 0)
				if err != nil {
					errs <- err
					return
				}
				defer s.Close()
				for i := range each {
					if err := s.Add(t.Context(), []Record{record("192.0.2.7:40022", "198.51.100.1:22", i%3, i)}); err != nil {
						errs <- err
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		got, _, err := opened(t, where).Find(t.Context(), Query{Limit: 1000})
		if len(got) != gateways*each || err != nil {
			t.Errorf("%d records, %v", len(got), err)
		}
	})
}

// Gateways that share a database need not have the same seed, nor who looks for a flow any.
func TestSeeds(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		first, second := record("192.0.2.7:40022", "198.51.100.1:22", 0, 1), record("192.0.2.7:40022", "198.51.100.1:22", 0, 2)
		for seed, r := range map[uint16]Record{7: first, 65535: second} {
			opened(t, where, seed)
			if err := opened(t, where, seed).Add(t.Context(), []Record{r}); err != nil {
				t.Fatal(err)
			}
		}
		s, err := OpenExisting(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for what, c := range map[string]struct {
			q    Query
			want []Record
		}{
			"the flow":                   {Query{Flow: [2]netip.AddrPort{first.Destination, first.Source}}, []Record{first, second}},
			"a Community ID of a seed":   {Query{Community: flows.CommunityID(flows.TCP, first.Source, first.Destination, 7)}, []Record{first}},
			"a Community ID of nobody's": {Query{Community: flows.CommunityID(flows.TCP, first.Source, first.Destination, 8)}, nil},
		} {
			c.q.Limit = 10
			got, _, err := s.Find(t.Context(), c.q)
			if err != nil {
				t.Fatal(err)
			}
			same(t, what, c.want, got)
		}
	})
}

// A migration that fails changes nothing; one that works is done once; tables that are newer are left alone.
func TestMigrations(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		s := opened(t, where)
		if err := s.Add(t.Context(), []Record{record("192.0.2.7:40022", "198.51.100.1:22", 0, 0)}); err != nil {
			t.Fatal(err)
		}
		steps := func(statements ...string) [][]string { return append(slices.Clone(s.kind.migrations), statements) }
		if err := migrate(t.Context(), s.db, s.kind, steps("create table more (n integer)", "create table token_day (day bigint)")); err == nil {
			t.Error("a step that fails is no error")
		}
		if _, err := s.db.ExecContext(t.Context(), "select * from more"); err == nil {
			t.Error("half a step is there")
		}
		for range 2 {
			if err := migrate(t.Context(), s.db, s.kind, steps("create table more (n integer)")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(t.Context(), where, 0); !errors.Is(err, ErrVersion) {
			t.Errorf("newer tables are opened: %v", err)
		}
		if _, err := OpenExisting(t.Context(), where); !errors.Is(err, ErrVersion) {
			t.Errorf("newer tables are looked at: %v", err)
		}
		got, _, err := s.Find(t.Context(), Query{Limit: 10})
		if len(got) != 1 || err != nil {
			t.Errorf("%d records are left, %v", len(got), err)
		}
	})
}

// Text that a stranger wrote is kept as far as text goes.
func TestStrangersText(t *testing.T) {
	both(t, func(t *testing.T, where string) {
		s := opened(t, where)
		r := record("192.0.2.7:40022", "198.51.100.1:22", 0, 0)
		r.Alert = "a\x00b'; drop table token; --\xff" + strings.Repeat("é", 1000)
		r.Error = "?1 $1"
		if err := s.Add(t.Context(), []Record{r}); err != nil {
			t.Fatal(err)
		}
		got, _, err := s.Find(t.Context(), Query{Limit: 10})
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		if a := got[0].Alert; !strings.HasPrefix(a, "ab'; drop table token; --é") || len(a) > 1000 || got[0].Error != r.Error {
			t.Errorf("it is kept as %q and %q", a, got[0].Error)
		}
		r.Asked = time.Time{}
		if err := s.Add(t.Context(), []Record{r}); err == nil {
			t.Error("a record of the year 1 is kept")
		}
	})
}

func TestSeed(t *testing.T) {
	where := filepath.Join(t.TempDir(), "tokens.db")
	s, err := Open(t.Context(), where, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := record("192.0.2.7:40022", "198.51.100.1:22", 0, 0)
	if err := s.Add(t.Context(), []Record{r}); err != nil {
		t.Fatal(err)
	}
	for seed, want := range map[uint16]int{7: 1, 0: 0} {
		got, _, err := s.Find(t.Context(), Query{Community: flows.CommunityID(flows.TCP, r.Source, r.Destination, seed), Limit: 10})
		if len(got) != want || err != nil {
			t.Errorf("seed %d: %d records, %v", seed, len(got), err)
		}
	}
}

func TestFile(t *testing.T) {
	where := filepath.Join(t.TempDir(), "tokens.db")
	if _, err := OpenExisting(t.Context(), where); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	opened(t, where)
	for _, name := range []string{where, where + "-wal"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if err := os.WriteFile(where+"x", []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), where+"x", 0); err == nil {
		t.Error("a file that is no database is opened")
	}
	if _, err := Open(t.Context(), where+"?x", 0); err == nil {
		t.Error("a name that SQLite takes for something else is opened")
	}
}
