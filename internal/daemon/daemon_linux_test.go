package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/report"
)

// A site is what a daemon needs, in a directory that is not in memory.
type site struct {
	dir, config string
	cfg         Config
	id          *age.X25519Identity
	log         lockedBuffer
}

func newSite(t testing.TB) *site {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "stopd-test-")
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	t.Cleanup(func() {
		if err := losePastKey(store); err != nil && !errors.Is(err, unix.ENOKEY) {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, config: filepath.Join(dir, "stopd.toml"), cfg: Defaults(), id: id}
	s.cfg.Store, s.cfg.Listen, s.cfg.Recipients = store, []string{"127.0.0.1:0"}, []string{id.Recipient().String()}
	s.write(t)
	key, err := translog.GenerateKey("host.example")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "log.key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// withPastKey calls f with the key of what a daemon remembers, where there is one.
func withPastKey(store string, f func(id int) error) error {
	name, err := pastKeyName(store)
	if err != nil {
		return err
	}
	return inKeyring(func() error {
		id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
		if err != nil {
			return err
		}
		return f(id)
	})
}

// losePastKey takes that key away.
func losePastKey(store string) error { return withPastKey(store, dropKey) }

func (s *site) write(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(s.config, Template(s.cfg), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts a daemon, whose processes are this program once more.
func (s *site) start(t testing.TB) *supervisor {
	t.Helper()
	d := &supervisor{log: s.logger(), path: s.config, cfg: s.cfg, now: s.cfg}
	t.Cleanup(d.close)
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// stateTime is how long a daemon of tests may take to come to a state, on a machine that is busy.
const stateTime = 2 * time.Minute

// eventually waits until something is so. Where it is not within a time, that ends the test, with what is said then.
func eventually(t testing.TB, within time.Duration, is func() bool, otherwise func() string) {
	t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise())
		}
	}
}

func (s *site) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&s.log, nil)) }

// redeem opens what a token stands for.
func (s *site) redeem(t *testing.T, token stop.Token) report.Report {
	t.Helper()
	sealed, err := evidence.Export(t.Context(), s.cfg.Store, evidence.Redemption{Token: token, By: "test", Reason: "test"}, evidence.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.Unseal(sealed, s.id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.Decode(e.Report)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// connection makes a connection within this host and returns its ends.
func connection(t *testing.T) (local, remote netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); in.Close() })
	return netip.MustParseAddrPort(out.LocalAddr().String()), netip.MustParseAddrPort(out.RemoteAddr().String())
}

func TestDaemon(t *testing.T) {
	s := newSite(t)
	s.cfg.Metrics.Listen = "127.0.0.1:0"
	d := s.start(t)
	to := netip.MustParseAddrPort(d.listeners[0].Addr().String())
	local, remote := connection(t)
	ask := func(typ stop.Type) stop.Answer {
		a, err := (&stop.Client{}).Ask(t.Context(), to, stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	// What a machine that is busy cannot read in time a report lacks: then it is asked again.
	asked := 0
	whole := func(is func(report.Report) bool) {
		t.Helper()
		var r report.Report
		eventually(t, stateTime, func() bool { asked++; r = s.redeem(t, ask(stop.SV).Token); return is(r) },
			func() string { return fmt.Sprintf("the report is %+v", r) })
	}
	whole(func(r report.Report) bool {
		return len(r.Processes) > 0 && r.Processes[0].PID == os.Getpid() && len(r.Processes[0].Args) > 0 && r.Host.Name != "" && r.Host.Clock != nil &&
			r.Request.Checkpoint != ""
	})
	asked++
	if r := s.redeem(t, ask(stop.ID).Token); r.Kind != report.KindID || len(r.Processes) != 0 || r.Connection.UID != uint32(os.Getuid()) {
		t.Errorf("the small report is %+v", r)
	}

	// The front counts, and tells Prometheus.
	answer, err := http.Get("http://" + d.metrics.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{fmt.Sprintf("\nstopd_requests_total %d\n", asked), fmt.Sprintf("\nstopd_tokens_total %d\n", asked), "\nstopd_bound_limit{bound=\"lookups\"} 64\n", "\nstopd_bound_limit{bound=\"tracebacks\"} 64\n", "\ngo_goroutines "} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s: %v", want, text, err)
		}
	}

	// What is saved and what errors look like changes with the file; the rest says that it does not.
	s.cfg.Save.Arguments, s.cfg.Save.Host, s.cfg.Reply.Errors = "off", false, "unknown"
	s.cfg.Limits.Table, s.cfg.Listen = 7, []string{"127.0.0.1:1"}
	s.write(t)
	d.reload()
	whole(func(r report.Report) bool {
		if len(r.Processes) > 0 && len(r.Processes[0].Args) > 0 || r.Host.Name != "" {
			t.Fatalf("after the reload the report is %+v", r)
		}
		return len(r.Processes) > 0
	})
	if got := s.log.String(); !strings.Contains(got, "restart only") || !strings.Contains(got, "configuration reloaded") {
		t.Errorf("the log has %q", got)
	}
	local, remote = remote, local // inbound
	if a := ask(stop.SV); a.Reply.Error != stop.UnknownError {
		t.Errorf("after the reload an error is %q", a.Line)
	}

	// A bad one is refused.
	if err := os.WriteFile(s.config, []byte("[reply]\nerrors = \"standard\"\nlisen = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.reload()
	if got := s.log.String(); !strings.Contains(got, "reload refused") || !strings.Contains(got, "line 3, column 1: unknown key") {
		t.Errorf("the log has %q", got)
	}
	if a := ask(stop.SV); a.Reply.Error != stop.UnknownError {
		t.Errorf("after a bad reload an error is %q", a.Line)
	}

	d.stop()
	if _, err := os.Stat(s.cfg.Store + ".sock"); !os.IsNotExist(err) {
		t.Errorf("the control socket is still there: %v", err)
	}
	// Two more were refused. Each reload counted, and the end did.
	last := fmt.Sprintf("level=INFO msg=\"counted since the start\" requests=%d malformed=0 errors=2 tokens=%d names=0 decoys=0 duplicates=0 over_bound=0 asked=0 evicted=0 refused=0 failed=0 no_room=0 handshakes=0 failed_handshakes=0 plain_refused=0 leaves_forwarded=0 leaves_dropped=0\n", asked+2, asked)
	if got := s.log.String(); !strings.Contains(got, last) || strings.Count(got, "counted since the start") != 3 || !strings.Contains(got, "msg=stopping\n") {
		t.Errorf("the log has %q", got)
	}
}

// What keeps the daemon from starting leaves nothing behind, and says what it was.
func TestRunFails(t *testing.T) {
	s := newSite(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	usual := s.cfg
	inUse := func(what string) {
		t.Helper()
		s.write(t)
		err := Run(t.Context(), s.config, s.logger())
		if err == nil || !strings.HasPrefix(err.Error(), what+": ") || !strings.Contains(err.Error(), busy.Addr().String()) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a port in use: %v", err)
		}
	}
	s.cfg.Metrics.Listen = busy.Addr().String()
	inUse("listen for metrics")
	s.cfg = usual
	s.cfg.Listen = []string{busy.Addr().String()}
	inUse("listen")
	if _, err := os.Stat(s.cfg.Store + ".sock"); !os.IsNotExist(err) {
		t.Errorf("the control socket is still there: %v", err)
	}
	held, err := evidence.Open(s.cfg.Store, evidence.Config{Recipients: []age.Recipient{s.id.Recipient()}})
	if err != nil {
		t.Fatalf("the store is still locked: %v", err)
	}
	err = Run(t.Context(), s.config, s.logger())
	if err == nil || !strings.Contains(err.Error(), s.cfg.Store) || strings.Count(err.Error(), "open store") != 1 {
		t.Errorf("a store in use: %v", err)
	}
	held.Close()
	if err := Run(t.Context(), filepath.Join(s.dir, "missing"), s.logger()); err == nil {
		t.Error("no configuration")
	}
}

// A store that is full gives no token of its own, and says so once.
func TestFullStore(t *testing.T) {
	s := newSite(t)
	store, err := evidence.Open(s.cfg.Store, evidence.Config{Recipients: []age.Recipient{s.id.Recipient()}, MaxBytes: 1, Logger: s.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	k := &keeperPart{process: &process{log: s.logger()}, store: store}
	keep := func() error {
		b, err := formatKept([]byte("one report"), stop.Payer{})
		if err == nil {
			_, err = k.serves(t.Context(), callKeep, b)
		}
		return err
	}
	for range 3 {
		if err := keep(); !errors.Is(err, stop.ErrNoRoom) {
			t.Errorf("Keep: %v", err)
		}
	}
	if n := strings.Count(s.log.String(), "the store is full"); n != 1 {
		t.Errorf("said %d times", n)
	}
	store.Close()
	if err := keep(); err == nil {
		t.Error("a store that is closed keeps")
	}
}

func TestExplain(t *testing.T) {
	local, remote := connection(t)
	port := func(ap netip.AddrPort) string { return fmt.Sprint(ap.Port()) }
	cfg := Defaults()
	behalf := cfg
	behalf.OnBehalf = []Network{{netip.MustParsePrefix("192.0.2.0/24")}}
	unknown, decoys := cfg, cfg
	unknown.Reply.Errors, decoys.Reply.Errors = "unknown", "token"
	quiet := cfg
	quiet.Save.Arguments = "off"
	for _, c := range []struct {
		name, local, remote string
		cfg                 Config
		want, not           []string
	}{
		{"ports", port(local), port(remote), cfg, []string{
			port(local) + " , " + port(remote) + " asked by 127.0.0.1:\n  answered with a token.\n", "- BEGIN -", "arguments: "}, []string{"on behalf"}},
		{"ends", local.String(), remote.String(), cfg, []string{"answered with a token", "- END -"}, nil},
		{"port and end", port(local), remote.String(), cfg, []string{"answered with a token"}, nil},
		{"mapped", "[::ffff:127.0.0.1]:" + port(local), remote.String(), cfg, []string{"answered with a token"}, nil},
		{"what is saved", port(local), port(remote), quiet, []string{"- BEGIN -"}, []string{"arguments: "}},
		{"inbound", remote.String(), local.String(), cfg, []string{"answered NO-USER: no user: this host did not open the connection", "- BEGIN -"}, nil},
		{"inbound, unknown", remote.String(), local.String(), unknown, []string{"answered UNKNOWN-ERROR: "}, nil},
		{"inbound, decoys", remote.String(), local.String(), decoys, []string{"answered with a decoy: "}, nil},
		{"on behalf", remote.String(), local.String(), behalf, []string{
			`asked on behalf of 127.0.0.1, by one of ["192.0.2.0/24"]: always answered with a token.`}, nil},
		{"no connection", "1", "2", cfg, []string{"No connection from local port 1 to remote port 2 in this network namespace."}, []string{"BEGIN"}},
		{"no such ends", "127.0.0.1:1", "127.0.0.1:2", cfg, []string{"answered NO-USER: no user: no such connection"}, []string{"BEGIN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := ParseEnd(c.local)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseEnd(c.remote)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			lacks := func(w string) bool { return !strings.Contains(got, w) }
			// What a machine that is busy cannot read in time is left out.
			eventually(t, stateTime, func() bool {
				if got, err = Explain(t.Context(), c.cfg, l, r); err != nil {
					t.Fatal(err)
				}
				return !slices.ContainsFunc(c.want, lacks)
			}, func() string { return fmt.Sprintf("not all of %q is in %s", c.want, got) })
			for _, n := range c.not {
				if strings.Contains(got, n) {
					t.Errorf("%q in %s", n, got)
				}
			}
		})
	}
	for _, bad := range []string{"", "0", "65536", "-1", "x", "127.0.0.1", "127.0.0.1:0", "host:1"} {
		if _, err := ParseEnd(bad); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	var b bytes.Buffer
	if err := Check(s.cfg, &b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{s.cfg.Store + ", sealed to 1 recipient(s)", "nobody may ask", "asked on port 113", "where this host connected itself: never"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %s", want, b.String())
		}
	}
	if !regexp.MustCompile(`(?m)^store: (a write is durable after [\d.]+[mµ]?s, the longest of \d+ after [\d.]+[mµ]?s: |how long a write takes until it is durable is not known: .*not supported)`).Match(b.Bytes()) {
		t.Errorf("how long a write takes is not said: %s", b.String())
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 2 {
		t.Errorf("it made %v, %v", left, err)
	}

	// Where the daemon would not start, for whatever reason that its configuration has.
	mixed, other, keyless := s.cfg, s.cfg, s.cfg
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	mixed.Recipients = append(slices.Clone(mixed.Recipients), hybrid.Recipient().String())
	other.Store = filepath.Join(s.dir, "other")
	if err := os.MkdirAll(filepath.Join(other.Store, "something"), 0o700); err != nil {
		t.Fatal(err)
	}
	keyless.Store = filepath.Join(t.TempDir(), "store")
	for name, cfg := range map[string]Config{"recipients that do not mix": mixed, "a directory that is no store": other, "no key of the log": keyless} {
		b.Reset()
		err := Check(cfg, &b)
		if _, _, openErr := openStore(cfg, nil, s.logger()); openErr == nil {
			t.Errorf("%s: the daemon starts", name)
		}
		if err == nil || b.Len() > 0 {
			t.Errorf("%s: %v, and it prints %q", name, err, b.String())
		}
	}
}
