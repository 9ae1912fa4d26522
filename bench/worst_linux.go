package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/bench/thesis"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/report"
)

// worst measures P11: processes of the user who is asked about, full of duplicated descriptors.
func (b *bench) worst() error {
	t := table{head: []string{"full processes", "descriptors", "stopd with BPF", "found", "gaps", "report", "stopd", "found", "gaps", "report", "T", "found"}}
	for _, c := range []struct {
		what, tree, more string
		processes        int
	}{
		{"25, which hold /dev/null", "complex", "many", 25},
		{"25, which hold a pipe to the asked process", "joined", "", 25},
		{"12, which hold a pipe to the asked process", "joined", "", 12},
	} {
		if err := b.full(&t, c.what, c.tree, c.more, c.processes); err != nil {
			return err
		}
	}
	b.section("P11: the worst that an ordinary user can do", t, "To reach: a bounded, partial, honest answer within the deadline of 1 s.")
	return nil
}

func (b *bench) full(t *table, what, tree, more string, processes int) error {
	g, err := grow(tree, processes)
	if err != nil {
		return err
	}
	defer g.end()
	if more != "" {
		m, err := grow(more, processes)
		if err != nil {
			return err
		}
		defer m.end()
	}
	h, bpf, err := b.hosts()
	if err != nil {
		return err
	}
	defer closeHosts(h, bpf)
	name := fmt.Sprintf("P11/tree=%s/full=%d", tree, processes)
	row := []string{what, count(processes * maxFiles)}
	for _, s := range []struct {
		name string
		host *linux.Host
	}{{withBPF, bpf}, {ours, h}} {
		if s.host == nil {
			row = append(row, "not measured", "", "", "")
			continue
		}
		x := examiner(s.host, noKeeper{})
		x.Deadline = deadline
		r, err := x.Look(b.ctx, question(stop.SV, asked[0], asked[1]))
		if err != nil {
			return err
		}
		f, err := measure(b.out, name, b.sv(s.name, x))
		if err != nil {
			return err
		}
		for _, g := range r.Gaps {
			fmt.Fprintf(b.out, "# gap by %s: %d %s: %s\n", s.name, g.PID, g.What, g.Why)
		}
		row = append(row, format(f[s.name].median()), fmt.Sprint(len(r.Processes)), fmt.Sprint(len(r.Gaps)), fmt.Sprintf("%d KB", len(report.Encode(r))/1000))
	}
	start := time.Now() // T takes far longer than what noise adds, so once is enough
	ps, err := thesis.New().SV(asked[0], asked[1])
	if err != nil {
		return err
	}
	slow := time.Since(start)
	fmt.Fprintf(b.out, "Benchmark%s/by=%s-%d\t1\t%d ns/op\n", name, base, runtime.GOMAXPROCS(0), slow.Nanoseconds())
	t.add(append(row, format(slow), fmt.Sprint(len(ps)))...)
	return nil
}
