package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loadTime is how long one load of a round lasts, and loadRounds how many rounds there are.
const (
	loadTime   = 500 * time.Millisecond
	loadRounds = 7
)

// A load is what was measured under one kind of load: a figure for each round.
type load struct {
	perSecond, cpu []float64 // requests; microseconds a request
	late           []time.Duration
}

// middleOf is the median of figures.
func middleOf(fs []float64) float64 {
	fs = slices.Sorted(slices.Values(fs))
	if len(fs) == 0 {
		return 0
	}
	return (fs[(len(fs)-1)/2] + fs[len(fs)/2]) / 2
}

// The sides of P2, and the kinds of requests.
const gridded = "stopd, grid"

var (
	idents    = []string{ours, gridded, oidentd}
	identAsks = []string{"hit", "miss", "decoy"}
)

// requests measures P2: ID requests over TCP, a connection each, as clients of ident daemons ask.
func (b *bench) requests() error {
	others := 10000
	if b.quick {
		others = 1000
	}
	g, err := b.sockets(others)
	if err != nil {
		return err
	}
	defer end(g)
	local, remote, close, err := loopbackConnection()
	if err != nil {
		return err
	}
	defer close()
	daemons := map[string]*identd{} // by side and kind
	defer func() {
		for _, d := range daemons {
			d.end()
		}
	}()
	if err := b.startIdents(daemons); err != nil {
		return err
	}
	lines := map[string]string{
		"hit":   fmt.Sprintf("%d , %d", local.Port(), remote.Port()),
		"miss":  fmt.Sprintf("1 , %d", remote.Port()),
		"decoy": fmt.Sprintf("1 , %d : ID : %s", remote.Port(), far),
	}
	figures := map[string]*load{}
	for round := range loadRounds {
		sides := slices.Clone(idents)
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			for _, kind := range identAsks {
				if d := daemons[side+"/"+kind]; d != nil {
					if err := b.loads(d, side, kind, lines[kind], figures); err != nil {
						return err
					}
				}
			}
		}
	}
	b.section("P2: ID requests over TCP", loadTable(figures), fmt.Sprintf("A new connection for each, among %s other sockets; CPU of all processes of the daemon, at 16 clients. stopd's hits and decoys are durable, sealed and "+
		"in its log before they are answered; oidentd keeps nothing. oidentd runs with room for 100 clients instead of its 10. To reach, without the grid: 1.5× the requests/s, a third of the CPU, and a miss that costs what a hit costs.", count(others)))
	return nil
}

// startIdents starts the daemons that are asked, and adds them by side and kind. What is not examined waits for as long as the last
// examinations took, so each kind has a daemon of its own.
func (b *bench) startIdents(daemons map[string]*identd) error {
	fast := unbounded()
	fast.Reply.Slots = noGrid
	for i, kind := range identAsks {
		d, err := b.startStopd(uint16(1131+i), fast, -1)
		if err != nil {
			return err
		}
		daemons[ours+"/"+kind] = d
		if d, err = b.startStopd(uint16(1141+i), unbounded(), -1); err != nil {
			return err
		}
		daemons[gridded+"/"+kind] = d
		if kind == "decoy" {
			break // oidentd has none
		}
		d, err = b.startOidentd(uint16(1151+i), "-l", "100")
		if err != nil {
			fmt.Fprintln(b.out, "# not measured:", err)
			continue
		}
		daemons[oidentd+"/"+kind] = d
	}
	return nil
}

// loads asks one daemon by one client and by 16, and adds what that took.
func (b *bench) loads(d *identd, side, kind, line string, figures map[string]*load) error {
	for _, clients := range []int{1, 16} {
		key := fmt.Sprintf("%s/%d/%s", side, clients, kind)
		if figures[key] == nil {
			figures[key] = &load{}
		}
		f := figures[key]
		if err := b.askAll(d, line, kind == "miss", clients, f); err != nil {
			return err
		}
		n := len(f.perSecond) - 1
		fmt.Fprintf(b.out, "BenchmarkP2/kind=%s/clients=%d/by=%s-%d\t1\t%.0f ns/op\t%.2f cpu-µs/op\n", kind, clients, strings.ReplaceAll(side, ", ", "-"),
			runtime.GOMAXPROCS(0), 1e9/f.perSecond[n], f.cpu[n])
	}
	return nil
}

func loadTable(figures map[string]*load) table {
	t := table{head: []string{"ID requests", "requests/s, 1 client", "p99", "requests/s, 16 clients", "p99", "CPU a request", "requests/s / oidentd's", "CPU: oidentd's /"}}
	for _, side := range idents {
		for _, kind := range identAsks {
			one, many, base := figures[side+"/1/"+kind], figures[side+"/16/"+kind], figures[oidentd+"/16/"+kind]
			if one == nil {
				continue
			}
			faster, less := "", ""
			if base != nil && side != oidentd {
				faster, less = ratio(middleOf(many.perSecond), middleOf(base.perSecond)), ratio(middleOf(base.cpu), middleOf(many.cpu))
			}
			t.add(side+", "+kind, fmt.Sprintf("%.0f", middleOf(one.perSecond)), format(percentile99(one.late)),
				fmt.Sprintf("%.0f", middleOf(many.perSecond)), format(percentile99(many.late)), fmt.Sprintf("%.0f µs", middleOf(many.cpu)), faster, less)
		}
	}
	return t
}

func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return times(time.Duration(1e6*a), time.Duration(1e6*b))
}

func percentile99(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(ds))[len(ds)*99/100]
}

// askAll asks the same for a while, on so many connections at once.
func (b *bench) askAll(d *identd, line string, isError bool, clients int, f *load) error {
	want := "USERID"
	if isError {
		want = "ERROR"
	}
	var wg sync.WaitGroup
	var answered atomic.Int64
	errs := make([]error, clients)
	late := make([][]time.Duration, clients)
	used, began := d.cpu(), time.Now()
	for i := range clients {
		wg.Go(func() {
			for time.Since(began) < loadTime && b.ctx.Err() == nil {
				asked := time.Now()
				got, err := d.ask(line)
				if err == nil && !strings.Contains(got, want) {
					err = errors.New(got)
				}
				if err != nil {
					errs[i] = fmt.Errorf("ask %s %q: %w", d.name, line, err)
					return
				}
				late[i] = append(late[i], time.Since(asked))
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; it said %s", err, d.log)
	}
	n := float64(answered.Load())
	f.perSecond = append(f.perSecond, n/took.Seconds())
	f.cpu = append(f.cpu, float64((d.cpu()-used).Microseconds())/n)
	f.late = append(f.late, slices.Concat(late...)...)
	return nil
}

// loopbackConnection makes a connection within the host, and returns the ends of who opened it.
func loopbackConnection() (local, remote netip.AddrPort, close func(), err error) {
	l, remote, err := listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		return local, remote, nil, err
	}
	defer unix.Close(l)
	out, in, err := connect(l, netip.AddrPort{}, remote)
	if err != nil {
		return local, remote, nil, err
	}
	sa, err := unix.Getsockname(out)
	if err != nil {
		return local, remote, nil, err
	}
	return netip.AddrPortFrom(loopback, uint16(sa.(*unix.SockaddrInet4).Port)), remote, func() { unix.Close(out); unix.Close(in) }, nil
}
