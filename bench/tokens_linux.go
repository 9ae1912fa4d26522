package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/tokens"
)

// batch is how many answers stopctl watch keeps in one transaction when there are many.
const batch = 1024

// keptTokens measures the tokens of a border: how many are kept a second, and how long it takes to find some.
func (b *bench) keptTokens() error {
	const days = 30
	n := 10_000_000
	if b.quick {
		n = 300_000
	}
	dir, err := os.MkdirTemp(b.dir, ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tokens.db")
	s, err := tokens.Open(b.ctx, path, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	began := time.Now()
	slowest := began.Sub(began)
	first := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var some []tokens.Record
	for i := 0; i < n; i += batch {
		records := make([]tokens.Record, min(batch, n-i))
		for j := range records {
			records[j] = borderRecord(first.Add(time.Duration(float64(i+j) / float64(n) * float64(days*24*time.Hour))))
		}
		at := time.Now()
		if err := s.Add(b.ctx, records); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(at))
		if rand.IntN(n/batch) < 200 {
			some = append(some, records[rand.IntN(len(records))])
		}
	}
	wall := time.Since(began)
	size, err := sizeOf(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "BenchmarkTokens/insert\t%8d\t%12d ns/op\t%d B/record\n", n, wall.Nanoseconds()/int64(n), size/int64(n))
	t := table{head: []string{fmt.Sprintf("%s tokens of %d days, SQLite", count(n), days), "median", "slowest"}}
	t.add("kept a second, synced by "+fmt.Sprint(batch), fmt.Sprintf("%.0f", float64(n)/wall.Seconds()), format(slowest)+" a transaction")
	t.add("octets a token", fmt.Sprint(size/int64(n)), "")
	for _, look := range []struct {
		name string
		of   func(tokens.Record) tokens.Query
	}{
		{"by connection, or by Community ID", func(r tokens.Record) tokens.Query {
			return tokens.Query{Flow: [2]netip.AddrPort{r.Destination, r.Source}}
		}},
		{"by one end, within an hour", func(r tokens.Record) tokens.Query {
			return tokens.Query{End: r.Source, From: r.Seen.Add(-time.Hour), To: r.Seen.Add(time.Hour)}
		}},
		{"by one end, at any time", func(r tokens.Record) tokens.Query { return tokens.Query{End: r.Source} }},
		{"100 of a second", func(r tokens.Record) tokens.Query {
			return tokens.Query{From: r.Seen, To: r.Seen.Add(time.Second)}
		}},
	} {
		var f figure
		for _, r := range some {
			q := look.of(r)
			q.Limit = 100
			at := time.Now()
			found, _, err := s.Find(b.ctx, q)
			if err == nil && len(found) == 0 {
				err = fmt.Errorf("%v is not found %s", r, look.name)
			}
			if err != nil {
				return err
			}
			f.times = append(f.times, time.Since(at))
		}
		var worst time.Duration
		for _, d := range f.times {
			worst = max(worst, d)
		}
		fmt.Fprintf(b.out, "BenchmarkTokens/find=%q\t%8d\t%12d ns/op\n", look.name, len(f.times), f.median().Nanoseconds())
		t.add("find "+look.name, format(f.median()), format(worst))
	}
	b.section("Tokens kept by stopctl watch", t, "\nTo reach: 10,000 kept a second, and milliseconds to find one.")
	return nil
}

// borderRecord is a connection out of a network of 4,096 hosts, to any address.
func borderRecord(at time.Time) tokens.Record {
	var to [4]byte
	binary.BigEndian.PutUint32(to[:], rand.Uint32())
	from := netip.AddrFrom4([4]byte{192, 168, byte(rand.IntN(16)), byte(rand.IntN(256))})
	return tokens.Record{Seen: at, Asked: at.Add(20 * time.Millisecond), Source: netip.AddrPortFrom(from, uint16(1024+rand.IntN(60000))),
		Destination: netip.AddrPortFrom(netip.AddrFrom4(to), 443), Host: netip.AddrPortFrom(from, 113), Type: stop.SVRec, SID: uint64(rand.Uint32()),
		Token: stop.TokenOf(binary.BigEndian.AppendUint64(nil, rand.Uint64())).String(), Input: "conntrack"}
}
