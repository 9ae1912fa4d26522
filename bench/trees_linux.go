package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/bench/thesis"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/internal/linux"
)

// simple measures P3, the six processes of the thesis's Table 4.12.
func (b *bench) simple() error {
	g, err := grow("login", 0)
	if err != nil {
		return err
	}
	defer g.end()
	h, bpf, err := b.hosts()
	if err != nil {
		return err
	}
	defer closeHosts(h, bpf)
	n, _, err := b.same(h, bpf)
	if err != nil {
		return err
	}
	dir, store, err := b.emptyStore()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer store.Close()
	f, err := os.Create(filepath.Join(dir, "text"))
	if err != nil {
		return err
	}
	defer f.Close()
	look, once := thesis.New(), thesis.New()
	once.Once = true
	sides := []side{b.sv(ours, examiner(h, store)), b.sv("stopd-unsaved", examiner(h, noKeeper{}))}
	if bpf != nil {
		sides = append(sides, b.sv(withBPF, examiner(bpf, store)), b.sv("stopd-bpf-unsaved", examiner(bpf, noKeeper{})))
	}
	with, err := measure(b.out, "P3", append(sides,
		side{name: base, run: func() error {
			ps, err := look.SV(asked[0], asked[1])
			if err != nil {
				return err
			}
			return thesis.Text(f, ps)
		}},
		side{name: "T-unsaved", run: func() error { _, err := look.SV(asked[0], asked[1]); return err }},
		side{name: "T-once-unsaved", run: func() error { _, err := once.SV(asked[0], asked[1]); return err }},
		side{name: "fsync", run: func() error {
			if _, err := f.Write(make([]byte, 4096)); err != nil {
				return err
			}
			return f.Sync()
		}})...)
	if err != nil {
		return err
	}
	t := table{head: []string{fmt.Sprintf("SV, %d processes", n), "stopd with BPF", "stopd", "T", "T / with BPF", "T / stopd", "T once", "T once / stopd"}}
	m := func(name string) time.Duration { return with[name].median() }
	t.add("nothing saved", format(m("stopd-bpf-unsaved")), format(m("stopd-unsaved")), format(m("T-unsaved")), times(m("T-unsaved"), m("stopd-bpf-unsaved")),
		times(m("T-unsaved"), m("stopd-unsaved")), format(m("T-once-unsaved")), times(m("T-once-unsaved"), m("stopd-unsaved")))
	t.add("saved: stopd sealed and durable, T as text that nobody synced", format(m(withBPF)), format(m(ours)), format(m(base)),
		times(m(base), m(withBPF)), times(m(base), m(ours)), "", "")
	b.section("P3: a simple process tree (thesis Table 4.12)", t,
		fmt.Sprintf("Saving adds %s to stopd, %s with BPF; to write 4 KB and fsync(2) them takes %s here. To reach: 5× with BPF, 2× without, and less than one fsync.",
			format(m(ours)-m("stopd-unsaved")), format(m(withBPF)-m("stopd-bpf-unsaved")), format(m("fsync"))))
	return nil
}

// sv is stopd answering an SV request about the asked connection.
func (b *bench) sv(name string, x *examine.Examiner) side {
	return side{name: name, run: func() error {
		_, err := x.Examine(b.ctx, question(stop.SV, asked[0], asked[1]))
		return err
	}}
}

// same checks that all sides find the same processes, and returns how many, and channels.
func (b *bench) same(hs ...*linux.Host) (processes, channels int, err error) {
	ps, err := thesis.New().SV(asked[0], asked[1])
	if err != nil {
		return 0, 0, err
	}
	var t []int
	for _, p := range ps {
		t = append(t, p.PID)
	}
	slices.Sort(t)
	for _, h := range hs {
		if h == nil {
			continue
		}
		r, err := examiner(h, noKeeper{}).Look(b.ctx, question(stop.SV, asked[0], asked[1]))
		if err != nil {
			return 0, 0, err
		}
		var a []int
		for _, p := range r.Processes {
			a = append(a, p.PID)
		}
		slices.Sort(a)
		if !slices.Equal(a, t) {
			return 0, 0, fmt.Errorf("all must find the same processes: %d, %d; gaps %v", a, t, r.Gaps)
		}
		channels = len(r.Channels)
	}
	return len(t), channels, nil
}

// complex measures P4, the 14 processes of the thesis's Table 4.13, among so many others.
func (b *bench) complex() error {
	g, err := grow("complex", 0)
	if err != nil {
		return err
	}
	defer g.end()
	h, bpf, err := b.hosts()
	if err != nil {
		return err
	}
	defer closeHosts(h, bpf)
	look := thesis.New()
	sides := []side{b.sv(ours, examiner(h, noKeeper{})), {name: base, run: func() error { _, err := look.SV(asked[0], asked[1]); return err }}}
	if bpf != nil {
		sides = append(sides, b.sv(withBPF, examiner(bpf, noKeeper{})))
	}
	sides = append(sides, b.tools()...)
	var t table
	medians := map[int]map[string]time.Duration{}
	var most int
	for _, n := range []int{0, 100, 1000, 10000} {
		if b.quick && n > 1000 {
			break
		}
		n = fitting(n)
		others, err := grow("others", n)
		if err != nil {
			return err
		}
		processes, channels, err := b.same(h, bpf)
		var f map[string]figure
		if err == nil {
			t.head = []string{fmt.Sprintf("SV, %d processes, %d channels; others", processes, channels), "stopd with BPF", "stopd", "T",
				"T / with BPF", "T / stopd", "lsof", "ss"}
			f, err = measure(b.out, fmt.Sprintf("P4/others=%d", n), sides...)
		}
		others.end()
		if err != nil {
			return err
		}
		m := map[string]time.Duration{}
		for name, f := range f {
			m[name] = f.median()
		}
		medians[n], most = m, n
		t.add(count(n), format(m[withBPF]), format(m[ours]), format(m[base]), times(m[base], m[withBPF]), times(m[base], m[ours]),
			format(m["lsof"]), format(m["ss"]))
	}
	growth := func(name string) time.Duration { return medians[most][name] - medians[100][name] }
	b.section("P4: a complex process structure (thesis Table 4.13)", t,
		fmt.Sprintf("lsof and ss tell the owner of the asked connection and nothing else. From 100 to %s others stopd takes %s longer with BPF, %s without, T %s: %s and %s. "+
			"To reach: at 100 10× with BPF and 5× without, and 10× in growth.", count(most), format(growth(withBPF)), format(growth(ours)), format(growth(base)),
			times(growth(base), growth(withBPF)), times(growth(base), growth(ours))))
	return nil
}
