package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/stopd/stopd/internal/daemon"
)

// idle measures P9 and P10: what the daemon holds while it has nothing to do and while clients say nothing, and its start.
func (b *bench) idle() error {
	const silent = 1000
	t := table{head: []string{"", "memory (PSS)", "open files", fmt.Sprintf("%d silent clients: memory", silent), "open files", "an answer beside them", "start to first answer", "program"}}
	for _, side := range []struct {
		name  string
		start func(port uint16) (*identd, error)
	}{
		{ours, func(port uint16) (*identd, error) { return b.startStopd(port, daemon.Defaults(), -1) }},
		{oidentd, func(port uint16) (*identd, error) { return b.startOidentd(port, "-l", "10") }}, // as Debian starts it
	} {
		var starts []time.Duration
		for i := range 10 {
			d, err := side.start(uint16(1171 + i))
			if err != nil {
				fmt.Fprintln(b.out, "# not measured:", err)
				break
			}
			starts = append(starts, d.first.Sub(d.began))
			fmt.Fprintf(b.out, "BenchmarkP10/by=%s\t1\t%d ns/op\n", side.name, d.first.Sub(d.began).Nanoseconds())
			d.end()
		}
		if len(starts) == 0 {
			continue
		}
		slices.Sort(starts)
		d, err := side.start(1181)
		if err != nil {
			return err
		}
		program, err := os.Stat(d.cmd.Path)
		if err != nil {
			d.end()
			return err
		}
		row, err := d.silence(b, silent)
		d.end()
		if err != nil {
			return err
		}
		t.add(append(append([]string{side.name}, row...), format(starts[len(starts)/2]), fmt.Sprintf("%.1f MB", float64(program.Size())/1e6))...)
	}
	b.section("P9 and P10: at rest, and the start", t, "All processes of the daemon. The silent clients come from eight addresses, since by default no address may have more than 128 connections. "+
		"To reach: under 60 MB, and an answer in time beside the silent; 100 ms and 20 MB.")
	return nil
}

// silence is what a daemon holds at rest and beside clients who say nothing, and how long another waits for an answer then.
func (d *identd) silence(b *bench, clients int) ([]string, error) {
	time.Sleep(2 * time.Second) // what it does beside the start
	rest, files, err := d.held()
	if err != nil {
		return nil, err
	}
	row := []string{fmt.Sprintf("%.1f MB", float64(rest)/1e6), fmt.Sprint(files)}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := range clients {
		c, err := d.dial(b.ctx, netip.AddrFrom4([4]byte{127, 0, 2, byte(1 + i%8)}))
		if err != nil {
			break // it takes no more
		}
		open = append(open, c)
	}
	time.Sleep(time.Second)
	held, files, err := d.held()
	if err != nil {
		return nil, err
	}
	began, answer := time.Now(), ""
	if _, err := d.ask("1 , 1"); err != nil {
		answer = "none"
	} else {
		answer = format(time.Since(began))
	}
	return append(row, fmt.Sprintf("%.1f MB", float64(held)/1e6), fmt.Sprint(files), answer), nil
}
