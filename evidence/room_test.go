package evidence

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

func from(a string) stop.Payer { return stop.Payer{Source: netip.MustParseAddr(a)} }

// spend keeps reports for a payer until that is refused, and gives how many bytes it came to.
func spend(r *room, p stop.Payer, now time.Time) (bytes int64, err error) {
	const size = 2000
	before := r.used + r.promised
	for err == nil {
		err = r.admit(p, size, now)
	}
	return r.used + r.promised - before, err
}

// However many fill the store, each gets less than the one before, the bound holds, and a fresh requester is served.
func TestNobodyFillsTheStore(t *testing.T) {
	const bound = 1 << 30
	now := time.Now()
	for name, c := range map[string]struct {
		most  int64 // that all may have
		payer func(i int) stop.Payer
	}{
		"an address":      {bound / 64, func(int) stop.Payer { return from("192.0.2.1") }},
		"a network":       {bound / 32, func(i int) stop.Payer { return from(fmt.Sprintf("192.0.2.%d", i%256)) }},
		"an IPv6 network": {bound / 32, func(i int) stop.Payer { return from(fmt.Sprintf("2001:db8:0:%x::%x", i, i)) }},
		"many networks":   {bound / 16, func(i int) stop.Payer { return from(fmt.Sprintf("10.%d.%d.1", i/256, i%256)) }},
		"with trace-backs": {bound / 16, func(i int) stop.Payer {
			p := from(fmt.Sprintf("10.%d.%d.1", i/256, i%256))
			p.Traceback = true
			return p
		}},
		"many regions": {bound - bound/reserve, func(i int) stop.Payer { return from(fmt.Sprintf("10.%d.0.%d", i/4, i%4)) }},
		// A sixteenth of what is free, and then a 1024th for each.
		"about one user":         {bound/16 + 200*bound/1024, func(i int) stop.Payer { p := from(fmt.Sprintf("10.%d.0.1", i)); p.UID, p.Owned = 1001, true; return p }},
		"a user, in one network": {bound / 64, func(i int) stop.Payer { p := from("192.0.2.1"); p.UID, p.Owned = uint32(i), true; return p }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(bound, time.Hour)
			var total int64
			for i := range 200 {
				n, err := spend(r, c.payer(i), now)
				if !errors.Is(err, stop.ErrNoRoom) {
					t.Fatal(err)
				}
				if n > bound/sourceShare {
					t.Fatalf("the %dth got %d bytes", i, n)
				}
				total += n
			}
			if total > c.most {
				t.Errorf("%d bytes of %d, more than %d", total, bound, c.most)
			}
			t.Logf("%.1f%% of the store", 100*float64(total)/bound)
			// Whom he would hide from: a fresh requester, who asks about him too.
			fresh := from("203.0.113.9")
			fresh.UID, fresh.Owned = 1001, true
			if n, _ := spend(r, fresh, now); n < 20_000 {
				t.Errorf("a fresh requester gets %d bytes", n)
			}
		})
	}
}

// What is refunded is as if it had not been, and what is long ago weighs less.
func TestRoomIsGivenBack(t *testing.T) {
	now := time.Now()
	r := newRoom(1<<24, time.Hour)
	p := stop.Payer{Source: netip.MustParseAddr("192.0.2.1"), UID: 7, Owned: true, Traceback: true}
	if err := r.admit(p, 1000, now); err != nil {
		t.Fatal(err)
	}
	r.charge(p, -1000-tracebackRoom, now)
	source, network, region := prefixes(p.Source)
	if r.used != 0 || r.promised != 0 || r.sources.bytes(source, now) != 0 || r.networks.bytes(network, now) != 0 || r.regions.bytes(region, now) != 0 || r.users.bytes(7, now) != 0 {
		t.Errorf("left over: %d, %d", r.used, r.promised)
	}
	if _, err := spend(r, p, now); !errors.Is(err, ErrShare) {
		t.Errorf("got %v", err)
	}
	r.used, r.promised = 0, 0 // it has expired
	if n, _ := spend(r, p, now.Add(10*time.Hour)); n < 1<<24/sourceShare/2 {
		t.Errorf("after ten times the retention there is room for %d", n)
	}
}

// A table of holders that is full forgets those who hold little.
func TestLedgerForgetsTheLeast(t *testing.T) {
	now := time.Now()
	l := ledger[int]{time.Hour, map[int]holding{}}
	for i := range ledgerLimit / 2 {
		l.add(-1-i, 1<<20, now)
	}
	for i := range 2 * ledgerLimit {
		l.add(i, 10, now)
	}
	if len(l.held) > ledgerLimit {
		t.Errorf("%d are remembered", len(l.held))
	}
	kept := 0
	for i := range ledgerLimit / 2 {
		if l.bytes(-1-i, now) > 0 {
			kept++
		}
	}
	if kept < ledgerLimit/2*99/100 {
		t.Errorf("of %d who hold much, %d are remembered", ledgerLimit/2, kept)
	}
}

// The attack of the thesis's section 4.1.1: somebody has reports made until the disk is full. Evidence from before is
// all there, who asks for the first time is served, the bytes are bounded, and it is said once.
func TestFillingTheDisk(t *testing.T) {
	const bound = 4 << 20
	id := newIdentity(t)
	var log strings.Builder
	s := openTest(t, Config{MaxBytes: bound, SegmentBytes: 64 << 10, Retention: time.Hour,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}, id)
	before := fill(t, s, 2)
	refused := 0
	for i := range 1000 {
		noise := make([]byte, 3000) // as large as what he can have in his processes' arguments
		for j := range noise {
			noise[j] = byte(rand.Uint32())
		}
		p := from(fmt.Sprintf("198.51.%d.%d", 100+i%4, i%200))
		p.UID, p.Owned = 1001, true
		if _, err := s.Keep(t.Context(), noise, p); errors.Is(err, stop.ErrNoRoom) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused < 500 {
		t.Errorf("%d of 1000 are refused", refused)
	}
	fresh := from("203.0.113.9")
	fresh.UID, fresh.Owned = 1001, true
	token, err := s.Keep(t.Context(), []byte("a fresh requester's report about him"), fresh)
	if err != nil {
		t.Errorf("a fresh requester: %v", err)
	}
	if e, err := Unseal(export(t, s, token), id); err != nil || e.Token != token {
		t.Errorf("a fresh requester's report: %v", err)
	}
	found(t, s, before, id)
	if n := s.bytes(); n > bound {
		t.Errorf("%d bytes, of %d", n, bound)
	}
	closeStore(t, s)
	if n := strings.Count(log.String(), "has his share"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, log.String())
	}
}

// fillStore keeps reports of one network after the other until the store is full. It returns their tokens, and the error that said
// so, nil if none did.
func fillStore(t *testing.T, s *Store) (kept []stop.Token, full error) {
	t.Helper()
	for i := range 10_000 {
		token, err := s.Keep(t.Context(), fmt.Appendf(nil, "report %d", i), from(fmt.Sprintf("%d.%d.0.1", 10+i/256, i%256)))
		if errors.Is(err, ErrFull) {
			return kept, err
		}
		if err == nil {
			kept = append(kept, token)
		}
	}
	return kept, nil
}

// A full store says so once, takes nothing more but what administrators do, and takes evidence again when there is room.
func TestFullStore(t *testing.T) {
	id := newIdentity(t)
	var log strings.Builder
	var passed atomic.Int64
	began := time.Now()
	s := openTest(t, Config{MaxBytes: 256 << 10, SegmentBytes: 16 << 10, Retention: time.Hour, Now: func() time.Time { return began.Add(time.Duration(passed.Load())) },
		Logger: slog.New(slog.NewTextHandler(&log, nil))}, id)
	kept, last := fillStore(t, s)
	if !errors.Is(last, ErrFull) {
		t.Fatalf("after %d reports: %v", len(kept), last)
	}
	for range 3 {
		if _, err := s.Keep(t.Context(), []byte("one more"), from("192.0.2.1")); !errors.Is(err, ErrFull) {
			t.Errorf("one more: %v", err)
		}
	}
	for _, token := range kept[:5] { // which takes records of its own
		if e, err := Unseal(export(t, s, token), id); err != nil || e.Token != token {
			t.Errorf("redeem from a full store: %v", err)
		}
	}
	if n := strings.Count(log.String(), "the store is full"); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, log.String())
	}
	passed.Store(int64(2 * time.Hour))
	s.expireNow(t.Context())
	keep(t, s, "after")
	if n := strings.Count(log.String(), "takes evidence again"); n != 1 {
		t.Errorf("that there is room is said %d times", n)
	}
}

// Where the file system has less room than the store may have, that is the bound: evidence leaves enough of it that what is
// there can be redeemed.
func TestRoomOfTheFileSystem(t *testing.T) {
	const size = 1 << 20
	id := newIdentity(t)
	d := *quick()
	var others atomic.Int64 // what other programs have on it
	d.left = func(dir string) (int64, error) {
		left := size - others.Load()
		paths, err := filepath.Glob(filepath.Join(dir, "0*"))
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			left -= info.Size()
		}
		return left, err
	}
	s := openTest(t, Config{MaxBytes: 1 << 30, SegmentBytes: 64 << 10, disk: &d}, id)
	kept, last := fillStore(t, s)
	if n := s.bytes(); !errors.Is(last, ErrFull) || n > size-size/reserve || n < size/2 {
		t.Errorf("%d reports, %d bytes of %d, %v", len(kept), n, size, last)
	}
	for _, token := range kept[:5] {
		if e, err := Unseal(export(t, s, token), id); err != nil || e.Token != token {
			t.Errorf("redeem from a full disk: %v", err)
		}
	}
	others.Store(size / 2)
	if _, err := s.Keep(t.Context(), []byte("one more"), from("192.0.2.1")); !errors.Is(err, ErrFull) {
		t.Errorf("where others fill the disk: %v", err)
	}
}
