package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/bench/thesis"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/trace"
)

// Names of the sides.
const (
	ours    = "stopd"
	withBPF = "stopd-bpf"
	base    = "T"
)

// deadline is how long a daemon that was told nothing else lets one trace take. Where whole answers are compared
// there is more time, so that what is measured does not end before it on a busy machine.
const (
	deadline = time.Second
	patience = 20 * time.Second
)

type bench struct {
	ctx   context.Context
	out   io.Writer
	quick bool
	dir   string
	text  strings.Builder // tables
}

// examiner is what answers in the daemon, without the daemon.
func examiner(h *linux.Host, k examine.Keeper) *examine.Examiner {
	return &examine.Examiner{Host: h, Keeper: k, Name: "stopd", Version: "bench", Sources: h.Sources,
		Deadline: patience, Trace: trace.Defaults, Save: examine.AllGroups, UserName: h.UserName}
}

// hosts opens this machine twice: as it is read by /proc alone, and by BPF. The second is nil where the kernel
// does not let it.
func (b *bench) hosts() (proc, bpf *linux.Host, err error) {
	if proc, err = linux.Open(); err != nil {
		return nil, nil, err
	}
	if bpf, err = linux.Open(); err != nil {
		proc.Close()
		return nil, nil, err
	}
	if err := bpf.Accelerate(); err != nil {
		fmt.Fprintln(b.out, "# BPF is not measured:", err)
		bpf.Close()
		bpf = nil
	}
	return proc, bpf, nil
}

func closeHosts(hs ...*linux.Host) {
	for _, h := range hs {
		if h != nil {
			h.Close()
		}
	}
}

// noKeeper makes the token and keeps nothing.
type noKeeper struct{}

func (noKeeper) Keep(_ context.Context, report []byte, _ stop.Payer) (stop.Token, error) {
	return stop.TokenOf(report), nil
}

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

// emptyStore opens an empty store in a new directory, which the caller removes.
func (b *bench) emptyStore() (dir string, _ *evidence.Store, err error) {
	if dir, err = os.MkdirTemp(b.dir, ".bench-"); err != nil {
		return "", nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	store, err := evidence.Open(filepath.Join(dir, "store"), evidence.Config{Recipients: []age.Recipient{id.Recipient()}})
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, store, nil
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

// fitting returns how many of so many small processes the machine has room for.
func fitting(n int) int {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return n
	}
	const each = 200 << 10 // octets: stack, page tables and what the fork copied
	return min(n, int(s.Freeram*uint64(s.Unit)/2/each))
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
