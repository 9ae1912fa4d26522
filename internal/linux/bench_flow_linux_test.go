package linux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/linux/bpf"
)

// proxyTurn is how long a turn of BenchmarkProxy takes: shorter than a process is watched for a question.
const proxyTurn = 250 * time.Millisecond

// BenchmarkProxy is what watching costs a proxy: its requests and octets in a second while it is watched, while another process is, and
// while none is, in turns, one after the other and in changing order. It reports medians: of turns without, and of the rate that is left, by
// the clock and by the proxy's processor time.
func BenchmarkProxy(b *testing.B) {
	for _, relay := range []string{"loop", "goroutines", "splice"} {
		for _, load := range []struct {
			name string
			do   func([][2]*net.TCPConn, time.Duration) (n float64, took time.Duration)
		}{{"requests", requests}, {"octets", octets}} {
			b.Run(relay+"/"+load.name, func(b *testing.B) {
				outer, pid := startRelay(b, relay, 8)
				watched := map[string]int{"this": pid, "another": os.Getpid()}
				var rates []float64
				byClock, byProcessor := map[string][]float64{}, map[string][]float64{}
				order := []string{"", "this", "another"}
				load.do(outer, proxyTurn)
				for range b.N {
					rate, cost := map[string]float64{}, map[string]float64{}
					for _, who := range order {
						var w *bpf.Watch
						if of, ok := watched[who]; ok {
							var err error
							if w, err = bpf.OpenWatch(of); err != nil {
								b.Skip(err)
							}
						}
						before := ran(b, pid)
						n, took := load.do(outer, proxyTurn)
						rate[who], cost[who] = n/took.Seconds(), float64(ran(b, pid)-before)/n
						if w != nil {
							w.Close()
						}
					}
					rates = append(rates, rate[""])
					for who := range watched {
						byClock[who] = append(byClock[who], rate[who]/rate[""])
						byProcessor[who] = append(byProcessor[who], cost[""]/cost[who])
					}
					order = append(order[1:], order[0])
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(rates), load.name+"/s")
				for who := range watched {
					b.ReportMetric(median(byClock[who]), who+"-clock")
					b.ReportMetric(median(byProcessor[who]), who+"-cpu")
				}
			})
		}
	}
}

// ran is the processor time of a process's threads (schedstat of proc(5)).
func ran(b *testing.B, pid int) (sum time.Duration) {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(names) == 0 {
		b.Fatal(names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func median(fs []float64) float64 {
	slices.Sort(fs)
	return fs[len(fs)/2]
}

// startRelay starts a process that relays between so many pairs of connections, and returns their other ends.
func startRelay(t testing.TB, relay string, pairs int) (outer [][2]*net.TCPConn, pid int) {
	l := loopback(t)
	var given []*os.File
	for range pairs {
		client, in := connection(t, l)
		out, server := connection(t, l)
		outer = append(outer, [2]*net.TCPConn{client, server})
		for _, c := range []*net.TCPConn{in, out} {
			f, err := c.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			given = append(given, f)
		}
	}
	c := start(t, "relay", given, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "STOPD_TEST_RELAY="+relay, "STOPD_TEST_PAIRS="+strconv.Itoa(pairs))
	})
	return outer, c.pid
}

// requests has each client send 100 octets and wait for as many, again and again; it returns how many, and how long that took.
func requests(outer [][2]*net.TCPConn, turn time.Duration) (float64, time.Duration) {
	return during(outer, turn, func(client, server *net.TCPConn, b []byte) (float64, error) {
		for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
			if _, err := way[0].Write(b[:100]); err != nil {
				return 0, err
			}
			if _, err := io.ReadFull(way[1], b[:100]); err != nil {
				return 0, err
			}
		}
		return 1, nil
	})
}

// octets has each client send 256 KiB at once, again and again; it returns how many octets, and how long that took.
func octets(outer [][2]*net.TCPConn, turn time.Duration) (float64, time.Duration) {
	return during(outer, turn, func(client, server *net.TCPConn, b []byte) (float64, error) {
		sent := make(chan error, 1)
		go func() {
			_, err := client.Write(b)
			sent <- err
		}()
		_, err := io.ReadFull(server, make([]byte, len(b)))
		return float64(len(b)), errors.Join(err, <-sent)
	})
}

// during has each client do something again and again for a while, and returns how much of it, and how long that took.
func during(outer [][2]*net.TCPConn, turn time.Duration, once func(client, server *net.TCPConn, b []byte) (float64, error)) (n float64, took time.Duration) {
	var done atomic.Uint64
	var all sync.WaitGroup
	begun := time.Now()
	for _, pair := range outer {
		all.Go(func() {
			b := make([]byte, 256<<10)
			for time.Since(begun) < turn {
				n, err := once(pair[0], pair[1], b)
				if err != nil {
					panic(fmt.Sprintf("relay: %v", err))
				}
				done.Add(uint64(n))
			}
		})
	}
	all.Wait()
	return float64(done.Load()), time.Since(begun)
}
