package watch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/settings"
	"github.com/stopd/stopd/internal/tokens"
)

// A fakeHost answers a token for each request but those from port 9, for which it has nobody.
type fakeHost struct {
	at netip.AddrPort
	mu sync.Mutex
	// lines are those that came, without what is chosen at random.
	lines []string
	held  chan struct{} // is closed once it may answer; nil is at once
	name  string        // is answered in place of a token, as ident daemons do; "" is a token
	l     net.Listener
}

func newFakeHost(t *testing.T, at string) *fakeHost {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{at: netip.MustParseAddrPort(l.Addr().String()), l: l}
	var open sync.WaitGroup
	t.Cleanup(func() { l.Close(); open.Wait() })
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer c.Close()
				h.answer(c)
			})
		}
	})
	return h
}

func (h *fakeHost) answer(c net.Conn) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	r, err := stop.ParseRequest([]byte(strings.TrimSpace(line)))
	if err != nil {
		return
	}
	h.mu.Lock()
	r.SID = 0
	h.lines = append(h.lines, r.String())
	held, name := h.held, h.name
	h.mu.Unlock()
	if held != nil {
		<-held
	}
	reply := stop.TokenOf([]byte(line)).String()
	if name != "" {
		reply = name
	}
	if r.Local == 9 {
		fmt.Fprintf(c, "%d , %d : ERROR : NO-USER\r\n", r.Local, r.Remote)
		return
	}
	fmt.Fprintf(c, "%d , %d : USERID : OTHER : %s\r\n", r.Local, r.Remote, reply)
}

func (h *fakeHost) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// A fixture is a watcher of a test's own directory that asks a port of this host.
type fixture struct {
	t     *testing.T
	cfg   Config
	store *tokens.Store
	w     *Watcher
	mu    sync.Mutex
	kept  []tokens.Record
}

func newFixture(t *testing.T, port uint16, change func(*Config)) *fixture {
	t.Helper()
	dir := t.TempDir()
	c := Defaults()
	c.Tokens, c.Position, c.Port = filepath.Join(dir, "tokens.db"), filepath.Join(dir, "position"), port
	c.Hosts = []settings.Network{{Prefix: netip.MustParsePrefix("127.0.0.1/32")}}
	c.Rules = []Rule{{Ask: AskSource, Type: "SV_REC"}}
	c.Limits.HostPerSecond, c.Limits.NetworkPerSecond = 1e6, 1e6
	c.Limits.RetryAfter.Duration, c.Limits.Age.Duration = time.Millisecond, math.MaxInt64
	if change != nil {
		change(&c)
	}
	f := &fixture{t: t, cfg: c}
	var err error
	if f.store, err = tokens.Open(t.Context(), c.Tokens, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.store.Close() })
	f.again()
	return f
}

// again makes the watcher of the next start.
func (f *fixture) again() {
	f.t.Helper()
	f.w = New(f.cfg, f.store, slog.New(slog.DiscardHandler), func(r tokens.Record) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.kept = append(f.kept, r)
	})
}

// run runs it until the inputs end.
func (f *fixture) run(inputs ...Input) {
	f.t.Helper()
	if err := f.w.Run(f.t.Context(), inputs...); err != nil {
		f.t.Fatal(err)
	}
}

// background runs it until it is stopped.
func (f *fixture) background(inputs ...Input) (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan error, 1)
	go func() { done <- f.w.Run(ctx, inputs...) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				f.t.Error(err)
			}
		})
	}
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) counts(want map[string]int64) {
	f.t.Helper()
	got := map[string]int64{}
	for _, n := range f.w.Counts.List() {
		if n.N != 0 {
			got[n.Name] = n.N
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		f.t.Errorf("counts (-want +got):\n%s", d)
	}
}

func (f *fixture) waits(what string, state func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	if err := netlab.WaitFor(ctx, func() (bool, error) { return state(), nil }); err != nil {
		f.t.Fatalf("it never came: %s: %v", what, err)
	}
}

// line is a connection from this host to another address of it, so that it is asked for from that address.
func line(port int) string { return fmt.Sprintf("127.0.0.1:%d -> 127.0.0.1:22", port) }

func TestWatch(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), nil)
	f.run(Lines(strings.NewReader(line(40022) + "\n" + "nonsense\n\n" + line(9) + "\n" + line(40022) + "\nudp 0 0 127.0.0.1:1 127.0.0.1:53\n192.0.2.1:1 -> 192.0.2.2:2\n" + line(40023))))
	asked := h.asked()
	slices.Sort(asked)
	if d := cmp.Diff([]string{"40022 , 22 : SV_REC : 0", "40023 , 22 : SV_REC : 0", "9 , 22 : SV_REC : 0"}, asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	f.counts(map[string]int64{"lines": 8, "unreadable": 1, "no_flow": 1, "matched": 5, "repeated": 1, "asked": 3, "tokens": 2, "errors": 1, "kept": 3})
	found, _, err := f.store.Find(t.Context(), tokens.Query{End: netip.MustParseAddrPort("127.0.0.1:40022"), Limit: 10})
	if err != nil || len(found) != 1 || found[0].Token == "" || found[0].Type != stop.SVRec || found[0].SID == 0 || found[0].Host != h.at || found[0].Input != InputStdin {
		t.Errorf("%+v, %v", found, err)
	}
	found, _, err = f.store.Find(t.Context(), tokens.Query{End: netip.MustParseAddrPort("127.0.0.1:9"), Limit: 10})
	if err != nil || len(found) != 1 || found[0].Token != "" || found[0].Error != "NO-USER" {
		t.Errorf("%+v, %v", found, err)
	}
	if len(f.kept) != 3 {
		t.Errorf("%d are shown", len(f.kept))
	}
}

// Prometheus reads what was counted, for as long as it runs.
// An ident daemon leaves out for whom it is asked: its name is of a connection to the watcher, if that has one with these ports.
func TestIdentOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("on behalf of others is asked from a port below 1024")
	}
	h := newFakeHost(t, "127.0.0.1:0")
	h.name = "carol ET SCAN"
	f := newFixture(t, h.at.Port(), nil)
	f.run(Lines(strings.NewReader(line(1) + "\n127.0.0.1:2 -> 192.0.2.1:22\n")))
	got := map[uint16]string{}
	for _, r := range f.kept {
		got[r.Source.Port()] = r.Token + "|" + r.Error
	}
	if d := cmp.Diff(map[uint16]string{1: "name:carol ET SCAN|", 2: "|" + errNotOnBehalf + "carol ET SCAN"}, got); d != "" {
		t.Error(d)
	}
	f.counts(map[string]int64{"lines": 2, "matched": 2, "asked": 2, "tokens": 1, "errors": 1, "kept": 2})
}

func TestMetrics(t *testing.T) {
	at, free, err := netlab.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(free)
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), func(c *Config) { c.Metrics = at.String() })
	r, w := io.Pipe()
	stop := f.background(Lines(r))
	fmt.Fprintln(w, line(40022))
	f.waits("one is counted", func() bool {
		page, err := http.Get("http://" + at.String() + "/metrics")
		if err != nil {
			return false
		}
		defer page.Body.Close()
		text, err := io.ReadAll(page.Body)
		return err == nil && strings.Contains(string(text), "\nstopctl_watch_kept_total 1\n") && strings.Contains(string(text), "\nstopctl_watch_dropped_total 0\n")
	})
	http.DefaultClient.CloseIdleConnections()
	stop()
	if c, err := net.Dial("tcp", at.String()); err == nil {
		c.Close()
		t.Error("it is served after the end")
	}
}

// What is more than a bound is dropped and counted, and the rest is asked.
func TestBursts(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	h.held = make(chan struct{})
	const lines = 100
	var text strings.Builder
	for i := range lines {
		fmt.Fprintln(&text, line(40000+i))
	}
	f := newFixture(t, h.at.Port(), func(c *Config) { c.Limits.AtOnce, c.Limits.Queue = 2*oneHost, 20 }) // two of one host, ten of one host
	r, w := io.Pipe()
	f.background(Lines(r))
	fmt.Fprintln(w, line(50001))
	fmt.Fprintln(w, line(50002))
	f.waits("both are under way", func() bool { return len(h.asked()) == 2 })
	io.WriteString(w, text.String())
	f.waits("all are read", func() bool { return f.w.Counts.Matched.Load() == lines+2 })
	if n := f.w.Counts.Dropped.Load(); n != lines-10 {
		t.Errorf("%d are dropped", n)
	}
	close(h.held)
	// What was dropped is asked when it is reported again.
	f.waits("those that waited are kept", func() bool { return f.w.Counts.Kept.Load() == 12 })
	fmt.Fprintln(w, line(40000+lines-1))
	f.waits("it is kept", func() bool { return f.w.Counts.Kept.Load() == 13 })
	w.Close()

	f = newFixture(t, h.at.Port(), func(c *Config) { c.Limits.HostPerSecond, c.Limits.Burst = 1e-6, 5e6 })
	f.run(Lines(strings.NewReader(text.String())))
	f.counts(map[string]int64{"lines": lines, "matched": lines, "over_budget": lines - 5, "asked": 5, "tokens": 5, "kept": 5})
	f = newFixture(t, h.at.Port(), func(c *Config) { c.Limits.NetworkPerSecond, c.Limits.Burst = 1e-6, 7e6 })
	f.run(Lines(strings.NewReader(text.String())))
	f.counts(map[string]int64{"lines": lines, "matched": lines, "over_budget": lines - 7, "asked": 7, "tokens": 7, "kept": 7})
}

// What a budget refused is asked when it is reported again and there is room.
func TestRefused(t *testing.T) {
	f := newFixture(t, 113, func(c *Config) { c.Limits.HostPerSecond, c.Limits.Burst = 1, 1 })
	about := func(port uint16) []question {
		qs, _ := f.cfg.choose(InputStdin, flows.Flow{Source: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), Destination: netip.MustParseAddrPort("127.0.0.1:22")})
		return qs
	}
	for i, step := range []struct {
		port   uint16
		second int64
		want   int
	}{{1, 0, 1}, {2, 0, 0}, {1, 1, 0}, {2, 1, 1}, {2, 2, 0}} {
		if got := len(f.w.admit(about(step.port), newTime(step.second))); got != step.want {
			t.Errorf("step %d: %d are asked", i, got)
		}
	}
	f.counts(map[string]int64{"over_budget": 1, "repeated": 2})
}

// A host that cannot be reached is asked again, so often and no more.
func TestRetries(t *testing.T) {
	at, free, err := netlab.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(free)
	f := newFixture(t, at.Port(), func(c *Config) { c.Limits.Retries = 3 })
	f.run(Lines(strings.NewReader(line(40022))))
	f.counts(map[string]int64{"lines": 1, "matched": 1, "asked": 4, "retried": 3, "rested": 1, "failed": 1, "kept": 1})
	if len(f.kept) != 1 || !strings.Contains(f.kept[0].Error, "refused") {
		t.Errorf("it is kept as %+v", f.kept)
	}
	// It comes back meanwhile.
	f = newFixture(t, at.Port(), func(c *Config) { c.Limits.Retries = 1 << 30 })
	f.background(Lines(strings.NewReader(line(40022))))
	f.waits("it is asked again", func() bool { return f.w.Counts.Retried.Load() > 0 })
	newFakeHost(t, at.String())
	f.waits("its token is kept", func() bool { return f.w.Counts.Tokens.Load() == 1 })
}

// A log is read on after a restart, and what was not done before is done then.
func TestRestarted(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), func(c *Config) { c.Limits.AtOnce, c.Limits.Retries = 1, 0 })
	path := filepath.Join(t.TempDir(), "eve.json")
	add := func(port int) {
		t.Helper()
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err == nil {
			_, err = fmt.Fprintf(file, `{"timestamp":"2026-11-03T14:05:00.000000+0000","event_type":"alert","src_ip":"127.0.0.1","src_port":%d,"dest_ip":"127.0.0.1","dest_port":22,"proto":"TCP"}`+"\n", port)
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add(1) // before the first start: old news
	stop := f.background(EVE(path))
	position := func() string { b, _ := os.ReadFile(f.cfg.Position); return string(b) }
	f.waits("it has a position", func() bool { return position() != "" })
	add(2)
	f.waits("2 is kept", func() bool { return f.w.Counts.Kept.Load() == 1 })
	stop()
	if d := cmp.Diff([]string{"2 , 22 : SV_REC : 0"}, h.asked()); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}

	// One is under way and one waits when it is stopped: the one is finished, the other asked after the next start.
	add(3)
	h.mu.Lock()
	h.held = make(chan struct{})
	h.mu.Unlock()
	f.again()
	stop = f.background(EVE(path))
	f.waits("3 is under way", func() bool { return len(h.asked()) == 2 })
	add(4)
	f.waits("4 waits", func() bool { return f.w.Counts.Matched.Load() == 2 })
	go func() {
		// It is answered once the watcher has been told to end.
		<-f.w.end.Done()
		close(h.held)
	}()
	stop()
	f.counts(map[string]int64{"lines": 2, "matched": 2, "asked": 1, "tokens": 1, "kept": 1, "left": 1})
	add(5)
	f.again()
	stop = f.background(EVE(path))
	f.waits("4 and 5 are kept", func() bool { return f.w.Counts.Kept.Load() == 2 })
	stop()
	var ports []string
	for _, l := range h.asked() {
		ports = append(ports, strings.Fields(l)[0])
	}
	if d := cmp.Diff([]string{"2", "3", "4", "5"}, ports); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
}

// Who has the ports of a connection of long ago is somebody else by now: nobody is asked about it, whether it is told late or waited long.
func TestLate(t *testing.T) {
	c := Defaults()
	c.Limits.Age.Duration = time.Minute
	for i, tt := range []struct {
		f    flows.Flow
		want time.Time
	}{
		{flows.Flow{}, newTime(160)},
		{flows.Flow{Time: newTime(90)}, newTime(150)},
		{flows.Flow{Time: newTime(110)}, newTime(160)}, // by a clock that is fast
		{flows.Flow{Time: newTime(-9000), Lasted: 9050 * time.Second}, newTime(110)},
		{flows.Flow{Time: newTime(0), Lasted: 500 * time.Second}, newTime(160)},
	} {
		if got := c.lateAt(tt.f, newTime(100)); !got.Equal(tt.want) {
			t.Errorf("%d: %v, not %v", i, got, tt.want)
		}
	}
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), func(c *Config) { c.Limits.Age.Duration = 24 * time.Hour })
	record := func(at time.Time) string {
		return fmt.Sprintf(`{"timestamp":%q,"src_ip":"127.0.0.1","src_port":7,"dest_ip":"127.0.0.1","dest_port":22,"proto":"TCP"}`+"\n", at.Format(time.RFC3339Nano))
	}
	f.run(Lines(strings.NewReader(record(time.Now().Add(-72*time.Hour)) + record(time.Now()))))
	f.counts(map[string]int64{"lines": 2, "matched": 2, "late": 1, "asked": 1, "tokens": 1, "kept": 1})

	f.again()
	qs, _ := f.cfg.choose(InputStdin, flows.Flow{Source: netip.MustParseAddrPort("127.0.0.1:7"), Destination: netip.MustParseAddrPort("127.0.0.1:22")})
	f.w.open.Add(1)
	qs[0].until = time.Now()
	f.w.turns.put(qs[0])
	f.run(Lines(strings.NewReader("")))
	f.counts(map[string]int64{"late": 1})
}

// Two watchers that follow logs do not share a file of positions; one that follows none needs none.
func TestTwoWatchers(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), nil)
	dir := t.TempDir()
	add := func(name string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	one, other := add("one.json"), add("other.json")
	stop := f.background(EVE(one))
	position := func() string { b, _ := os.ReadFile(f.cfg.Position); return string(b) }
	f.waits("it has a position", func() bool { return position() != "" })
	before := position()
	f.again()
	if err := f.w.Run(t.Context(), EVE(other)); err == nil || !strings.Contains(err.Error(), "another watcher") {
		t.Errorf("the second ends with %v", err)
	}
	if d := cmp.Diff(before, position()); d != "" {
		t.Errorf("the second left (-want +got):\n%s", d)
	}
	f.again()
	f.run(Lines(strings.NewReader(line(40022))))
	f.counts(map[string]int64{"lines": 1, "matched": 1, "asked": 1, "tokens": 1, "kept": 1})
	stop()
	f.again()
	stop = f.background(EVE(other))
	f.waits("the next has a position", func() bool { return strings.Contains(position(), "other.json") })
	stop()
	if !strings.Contains(position(), "one.json") {
		t.Errorf("the first one's position is gone: %s", position())
	}
}

// Suricata writes to sockets as well.
func TestSockets(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), nil)
	dir := t.TempDir()
	for _, name := range []string{"stream", "gram"} { // of an earlier time
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	stop := f.background(EVE("unix:"+filepath.Join(dir, "stream")), EVE("unixgram:"+filepath.Join(dir, "gram")))
	for port, network := range map[int]string{7: "unix", 8: "unixgram"} {
		name := map[string]string{"unix": "stream", "unixgram": "gram"}[network]
		f.waits(network, func() bool {
			c, err := net.Dial(network, filepath.Join(dir, name))
			if err != nil {
				return false
			}
			defer c.Close()
			_, err = fmt.Fprintf(c, `{"src_ip":"127.0.0.1","src_port":%d,"dest_ip":"127.0.0.1","dest_port":22,"proto":"TCP"}`+"\n", port)
			return err == nil
		})
	}
	f.waits("both are kept", func() bool { return f.w.Counts.Kept.Load() == 2 })
	stop()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("sockets are left: %v, %v", entries, err)
	}
}

func TestStream(t *testing.T) {
	h := newFakeHost(t, "127.0.0.1:0")
	f := newFixture(t, h.at.Port(), nil)
	f.run(Lines(strings.NewReader(strings.Repeat("x", 3*maxLine) + "\n" + line(7) + "\n" + strings.Repeat("x", maxLine))))
	f.counts(map[string]int64{"lines": 3, "unreadable": 2, "matched": 1, "asked": 1, "tokens": 1, "kept": 1})

	// An input that cannot be read ends it.
	f.again()
	if err := f.w.Run(t.Context(), EVE(t.TempDir()), Lines(blocked{})); err == nil {
		t.Error("a directory is followed")
	}
}

// blocked is a pipe into which nobody writes.
type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }
