package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/bench/thesis"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// Names of the sides.
const (
	ours = "stopd"
	base = "T"
)

// deadline is how long a daemon that was told nothing else lets one trace take.
const deadline = time.Second

type bench struct {
	ctx   context.Context
	out   io.Writer
	quick bool
	dir   string
	text  strings.Builder // tables
}

// examiner is what answers in the daemon, without the daemon.
func examiner(h *linux.Host, k examine.Keeper) *examine.Examiner {
	return &examine.Examiner{Host: h, Keeper: k, Name: "stopd", Version: "bench", Sources: []string{"netlink", "proc"},
		Deadline: deadline, Trace: trace.Defaults, Save: examine.AllGroups, UserName: h.UserName}
}

// noKeeper makes the token and keeps nothing.
type noKeeper struct{}

func (noKeeper) Keep(_ context.Context, report []byte, _ stop.Payer) (stop.Token, error) {
	return stop.TokenOf(report), nil
}

func (noKeeper) KeepTraceback(context.Context, stop.Token, []byte) error { return nil }

func question(typ stop.Type, local, remote netip.AddrPort) stop.Question {
	r := stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: typ}
	return r.About(remote.Addr(), local.Addr(), time.Now())
}

// lookUp measures P1, the look-up of the user of a connection, among so many other sockets.
func (b *bench) lookUp() error {
	const flows = 16 // the thesis finds one early in /proc/net/tcp and another late
	h, err := linux.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	// Each flow has a listener of its own, since those of one stand beside each other in the kernel's table.
	var fs []host.Flow
	for range flows {
		l, remote, err := listen(netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			return err
		}
		defer unix.Close(l)
		out, in, err := connect(l, netip.AddrPort{}, remote)
		if err != nil {
			return err
		}
		defer unix.Close(out)
		defer unix.Close(in)
		sa, err := unix.Getsockname(out)
		if err != nil {
			return err
		}
		local := netip.AddrPortFrom(remote.Addr(), uint16(sa.(*unix.SockaddrInet4).Port))
		fs = append(fs, host.Flow{Protocol: host.TCP, Local: local, Remote: remote})
	}
	look, exam := thesis.New(), examiner(h, noKeeper{})
	var turns [3]int
	next := func(i int) host.Flow { turns[i]++; return fs[turns[i]%flows] }
	sides := []side{
		{name: ours, run: func() error {
			f := next(0)
			_, err := exam.Examine(b.ctx, question(stop.ID, f.Local, f.Remote))
			return err
		}},
		{name: "stopd-find", run: func() error {
			_, err := h.Find(b.ctx, next(1))
			return err
		}},
		{name: base, least: flows, run: func() error {
			f := next(2)
			_, err := look.ID(f.Local, f.Remote)
			return err
		}},
	}
	for _, f := range fs {
		s, err := h.Find(b.ctx, f)
		uid, err2 := look.ID(f.Local, f.Remote)
		if err := errors.Join(err, err2); err != nil || s.UID != uid {
			return fmt.Errorf("both must find the same user: %d, %d: %w", s.UID, uid, err)
		}
	}
	t := table{head: []string{"other sockets", "stopd, whole ID request", "stopd, look-up alone", "T", "T / request", "T / look-up"}}
	var first, last map[string]figure
	var at10000 string
	for _, n := range []int{10, 100, 1000, 10000, 100000} {
		if b.quick && n > 10000 {
			break
		}
		g, err := b.sockets(n)
		if err != nil {
			fmt.Fprintln(b.out, "# not measured:", err)
			t.add(count(n), "not measured", "", "", "", "")
			continue
		}
		f, err := measure(b.out, fmt.Sprintf("P1/sockets=%d", n), sides...)
		end(g)
		if err != nil {
			return err
		}
		if first == nil {
			first = f
		}
		last = f
		o, find, thesis := f[ours].median(), f["stopd-find"].median(), f[base].median()
		t.add(count(n), format(o), format(find), format(thesis), times(thesis, o), times(thesis, find))
		if n == 10000 {
			at10000 = times(thesis, o)
		}
	}
	b.section("P1: look-up of a connection's user", t,
		fmt.Sprintf("From the fewest to the most sockets stopd takes %s as long for a request, %s for the look-up alone, T %s. To reach: at most 1.5×; and at 10,000 sockets T / request 100× (here %s).",
			times(last[ours].median(), first[ours].median()), times(last["stopd-find"].median(), first["stopd-find"].median()),
			times(last[base].median(), first[base].median()), at10000))
	return nil
}

// sockets has processes hold so many sockets, as many each as a process may.
func (b *bench) sockets(n int) ([]*garden, error) {
	var gs []*garden
	for left := n; left > 0; {
		part := min(left, maxFiles-1000)
		g, err := grow("connections", part)
		if err != nil {
			end(gs)
			return nil, err
		}
		gs = append(gs, g)
		left -= part
	}
	return gs, nil
}

func end(gs []*garden) {
	for _, g := range gs {
		g.end()
	}
}

// simple measures P3, the six processes of the thesis's Table 4.12.
func (b *bench) simple() error {
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
	n, _, err := b.same(h)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, ".bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	store, err := evidence.Open(filepath.Join(dir, "store"), evidence.Config{Recipients: []age.Recipient{id.Recipient()}})
	if err != nil {
		return err
	}
	defer store.Close()
	f, err := os.Create(filepath.Join(dir, "text"))
	if err != nil {
		return err
	}
	defer f.Close()
	look, once := thesis.New(), thesis.New()
	once.Once = true
	with, err := measure(b.out, "P3", b.sv(ours, examiner(h, store)), b.sv("stopd-unsaved", examiner(h, noKeeper{})),
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
		}})
	if err != nil {
		return err
	}
	t := table{head: []string{fmt.Sprintf("SV, %d processes", n), "stopd", "T", "T / stopd", "T once", "T once / stopd"}}
	o, o2 := with["stopd-unsaved"].median(), with[ours].median()
	thesis, thesis2, better := with["T-unsaved"].median(), with[base].median(), with["T-once-unsaved"].median()
	t.add("nothing saved", format(o), format(thesis), times(thesis, o), format(better), times(better, o))
	t.add("saved: stopd sealed and durable, T as text that nobody synced", format(o2), format(thesis2), times(thesis2, o2), "", "")
	b.section("P3: a simple process tree (thesis Table 4.12)", t,
		fmt.Sprintf("Saving adds %s to stopd; to write 4 KB and fsync(2) them takes %s here. To reach: 2×, and less than one fsync.",
			format(o2-o), format(with["fsync"].median())))
	return nil
}

// sv is stopd answering an SV request about the asked connection.
func (b *bench) sv(name string, x *examine.Examiner) side {
	return side{name: name, run: func() error {
		_, err := x.Examine(b.ctx, question(stop.SV, asked[0], asked[1]))
		return err
	}}
}

// same checks that both sides find the same processes, and returns how many, and channels.
func (b *bench) same(h *linux.Host) (processes, channels int, err error) {
	r, err := examiner(h, noKeeper{}).Look(b.ctx, question(stop.SV, asked[0], asked[1]))
	if err != nil {
		return 0, 0, err
	}
	ps, err := thesis.New().SV(asked[0], asked[1])
	if err != nil {
		return 0, 0, err
	}
	var a, t []int
	for _, p := range r.Processes {
		a = append(a, p.PID)
	}
	for _, p := range ps {
		t = append(t, p.PID)
	}
	slices.Sort(a)
	slices.Sort(t)
	if !slices.Equal(a, t) {
		return 0, 0, fmt.Errorf("both must find the same processes: %d, %d; gaps %v", a, t, r.Gaps)
	}
	return len(a), len(r.Channels), nil
}

// complex measures P4, the 14 processes of the thesis's Table 4.13, among so many others.
func (b *bench) complex() error {
	g, err := grow("complex", 0)
	if err != nil {
		return err
	}
	defer g.end()
	h, err := linux.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	look, x := thesis.New(), examiner(h, noKeeper{})
	var t table
	medians := map[int][2]time.Duration{}
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
		processes, channels, err := b.same(h)
		var f map[string]figure
		if err == nil {
			t.head = []string{fmt.Sprintf("SV, %d processes, %d channels; others", processes, channels), "stopd", "T", "T / stopd"}
			f, err = measure(b.out, fmt.Sprintf("P4/others=%d", n), b.sv(ours, x),
				side{name: base, run: func() error { _, err := look.SV(asked[0], asked[1]); return err }})
		}
		others.end()
		if err != nil {
			return err
		}
		o, thesis := f[ours].median(), f[base].median()
		medians[n], most = [2]time.Duration{o, thesis}, n
		t.add(count(n), format(o), format(thesis), times(thesis, o))
	}
	few, many := medians[100], medians[most]
	b.section("P4: a complex process structure (thesis Table 4.13)", t,
		fmt.Sprintf("From 100 to %s others stopd takes %s longer, T %s: %s. To reach: 5× at 100, and 10× in growth.", count(most),
			format(many[0]-few[0]), format(many[1]-few[1]), times(many[1]-few[1], many[0]-few[0])))
	return nil
}

// fitting returns how many of so many small processes the machine has room for.
func fitting(n int) int {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return n
	}
	const each = 200 << 10 // octets: stack, page tables and what the fork copied
	return min(n, int(s.Freeram*uint64(s.Unit)/2/each))
}

// worst measures P11: processes of the user who is asked about, full of duplicated descriptors.
func (b *bench) worst() error {
	t := table{head: []string{"full processes", "descriptors", "stopd", "found", "gaps", "report", "T", "found"}}
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
	h, err := linux.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	r, err := examiner(h, noKeeper{}).Look(b.ctx, question(stop.SV, asked[0], asked[1]))
	if err != nil {
		return err
	}
	look := thesis.New()
	var ps []thesis.Process
	name := fmt.Sprintf("P11/tree=%s/full=%d", tree, processes)
	f, err := measure(b.out, name, b.sv(ours, examiner(h, noKeeper{})))
	if err != nil {
		return err
	}
	start := time.Now() // T takes far longer than what noise adds, so once is enough
	if ps, err = look.SV(asked[0], asked[1]); err != nil {
		return err
	}
	slow := time.Since(start)
	fmt.Fprintf(b.out, "Benchmark%s/by=%s-%d\t1\t%d ns/op\n", name, base, runtime.GOMAXPROCS(0), slow.Nanoseconds())
	for _, g := range r.Gaps {
		fmt.Fprintf(b.out, "# gap: %d %s: %s\n", g.PID, g.What, g.Why)
	}
	t.add(what, count(processes*maxFiles), format(f[ours].median()), fmt.Sprint(len(r.Processes)), fmt.Sprint(len(r.Gaps)),
		fmt.Sprintf("%d KB", len(report.Encode(r))/1000), format(slow), fmt.Sprint(len(ps)))
	return nil
}

// section adds a table to the text.
func (b *bench) section(title string, t table, below string) {
	fmt.Fprintf(&b.text, "### %s\n\n%s\n%s\n\n", title, t.markdown(), below)
}

// count writes a number with separators.
func count(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
	}
	return fmt.Sprint(n)
}
