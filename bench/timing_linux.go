package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/server"
)

// timing measures what a requester can tell by the time of one reply: whether it stands for a report. It may ask on
// behalf of others, so that all replies are tokens.
func (b *bench) timing() error {
	samples := 600
	if b.quick {
		samples = 200
	}
	g, err := grow("login", 0)
	if err != nil {
		return err
	}
	defer g.end()
	h, err := linux.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	dir, store, err := b.emptyStore()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer store.Close()
	x := examiner(h, store)
	t := table{head: []string{"told from a report", "type", "without a grid", "with it"}}
	type row struct{ typ, kind string }
	told := map[row][2]float64{}
	var order []row
	for i, slots := range []server.Slots{{}, {ID: 5 * time.Millisecond, IDRec: 20 * time.Millisecond, SV: 20 * time.Millisecond, SVRec: 20 * time.Millisecond}} {
		for _, typ := range []string{"ID", "SV", "SV_REC"} {
			times, err := b.replyTimes(x, store, slots, typ, samples)
			if err != nil {
				return err
			}
			for _, kind := range []string{"no such connection", "a stranger's decoy", "a duplicate", "another report"} {
				if times[kind] == nil {
					continue
				}
				k := row{typ, kind}
				v := told[k]
				v[i] = toldApart(times["a report"], times[kind])
				if told[k] = v; i == 0 {
					order = append(order, k)
				}
				fmt.Fprintf(b.out, "# timing/slots=%s/type=%s/kind=%s: told %.1f%%, medians %s and %s\n", slots.SV, typ, strings.ReplaceAll(kind, " ", "-"),
					100*v[i], format(middle(times["a report"])), format(middle(times[kind])))
			}
		}
	}
	for _, k := range order {
		t.add(k.kind, k.typ, fmt.Sprintf("%.0f%%", 100*told[k][0]), fmt.Sprintf("%.0f%%", 100*told[k][1]))
	}
	b.section("What the time of a reply tells", t, fmt.Sprintf("How often one reply is told apart by the best threshold, found on one half of %d replies of each kind and tried on the other; "+
		"50%% is chance, and the last rows say how far chance goes. The host is otherwise idle. To reach: at most 55%% with the grid.", samples))
	return nil
}

// replyTimes asks for each kind of reply so often, all kinds mixed, one after the other, and returns how long each took.
func (b *bench) replyTimes(x *examine.Examiner, store *evidence.Store, slots server.Slots, typ string, samples int) (map[string][]time.Duration, error) {
	everybody := []netip.Prefix{netip.PrefixFrom(loopback, 32)}
	cfg := &server.Config{
		Errors: server.ErrorsStandard, OnBehalf: everybody, Slots: slots, Logger: slog.New(slog.DiscardHandler),
		Limits: server.Limits{Connections: 64, ConnectionsPerSource: 64, RequestsPerConn: 1 << 30, Idle: time.Minute, Lookups: 64,
			PerSourcePerSecond: 1e9, Burst: 1e9, PerUserPerSecond: 1e9, UserBurst: 1e9, AskersPerSID: 64, Table: 1 << 20, Over: server.OverDecoy},
		Traceback: server.TracebackConfig{Port: 1, Window: 2 * time.Minute, MaxPrevious: 8, Timeout: time.Second, Parallel: 64},
	}
	tracebacks := server.NewTracebacks(func(ctx context.Context, t stop.Token, records []stop.Traceback) error {
		return store.KeepTraceback(ctx, t, report.EncodeTraceback(records))
	}, cfg)
	x.Tracer = tracebacks
	s := server.New(x, tracebacks, cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		<-done
		s.Wait(context.Background())
		tracebacks.Wait(context.Background())
	}()
	dial := func(from netip.Addr, port int) (*bufio.ReadWriter, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice(), Port: port}}
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
	}
	var trusted *bufio.ReadWriter
	err = syscall.EADDRINUSE
	for port := 1023; errors.Is(err, syscall.EADDRINUSE) && port > 0; port-- { // on behalf of others is asked from below 1024
		trusted, err = dial(loopback, port)
	}
	if err != nil {
		return nil, err
	}
	stranger, err := dial(netip.MustParseAddr("127.0.0.2"), 0)
	if err != nil {
		return nil, err
	}
	kinds := []string{"a report", "no such connection", "a stranger's decoy", "another report"}
	recursive := strings.HasSuffix(typ, "_REC")
	if recursive {
		kinds = append(kinds, "a duplicate")
	}
	var turns []string
	for _, k := range kinds {
		turns = append(turns, slices.Repeat([]string{k}, samples)...)
	}
	rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	times := map[string][]time.Duration{}
	for i, kind := range turns {
		local, on, sid := asked[0].Port(), trusted, fmt.Sprintf(" : %d", 1000+i)
		switch kind {
		case "no such connection":
			local = 1
		case "a stranger's decoy":
			on = stranger
		case "a duplicate":
			sid = " : 7"
		}
		if !recursive {
			sid = ""
		}
		began := time.Now()
		fmt.Fprintf(on, "%d , %d : %s%s : %s\r\n", local, asked[1].Port(), typ, sid, asked[1].Addr())
		err := on.Flush()
		line, err2 := on.ReadString('\n')
		took := time.Since(began)
		if err := cmp.Or(err, err2); err != nil {
			return nil, err
		}
		if !strings.Contains(line, "USERID") {
			return nil, fmt.Errorf("a %s is answered %q", kind, line)
		}
		if kind != "a duplicate" || len(times[kind]) > 0 || i > samples { // the first with that number is none
			times[kind] = append(times[kind], took)
		}
	}
	if want := uint64(samples); s.Counters.Decoys.Load() < 2*want || s.Counters.OverBound.Load() > 0 {
		return nil, fmt.Errorf("replies are not what they should be: %d decoys, %d over a bound", s.Counters.Decoys.Load(), s.Counters.OverBound.Load())
	}
	return times, nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// toldApart finds the threshold that tells two samples best on every second value, and returns how often it does on
// the others.
func toldApart(a, b []time.Duration) float64 {
	half := func(ds []time.Duration, odd int) (out []time.Duration) {
		for i, d := range ds {
			if i%2 == odd {
				out = append(out, d)
			}
		}
		return out
	}
	right := func(a, b []time.Duration, at time.Duration) float64 {
		below := func(ds []time.Duration) float64 {
			n := 0
			for _, d := range ds {
				if d <= at {
					n++
				}
			}
			return float64(n) / float64(len(ds))
		}
		return (below(b) + 1 - below(a)) / 2
	}
	a0, b0 := half(a, 0), half(b, 0)
	all := slices.Concat(a0, b0)
	best, at, swap := 0.0, time.Duration(0), false
	for _, d := range all {
		v := right(a0, b0, d)
		if v > best {
			best, at, swap = v, d, false
		}
		if 1-v > best {
			best, at, swap = 1-v, d, true
		}
	}
	v := right(half(a, 1), half(b, 1), at)
	if swap {
		v = 1 - v
	}
	return v
}

func middle(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}
