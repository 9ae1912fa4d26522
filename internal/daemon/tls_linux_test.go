package daemon

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/server"
)

// A daemon of five processes answers by TLS and asks by TLS, with a key that only its keeper has; which peers are pinned
// changes with the file.
func TestDaemonTLS(t *testing.T) {
	asked, asks := newSite(t), newSite(t)
	its := newTLSKey(t, filepath.Join(asked.dir, "tls.key"))
	ours := newTLSKey(t, filepath.Join(asks.dir, "tls.key"))
	itsPin, ourPin := stop.PinOf(its.Leaf), stop.PinOf(ours.Leaf)
	answering := asked.start(t)
	to := netip.MustParseAddrPort(answering.listeners[0].Addr().String())
	asks.cfg.Traceback.Port, asks.cfg.Traceback.Timeout = int(to.Port()), Duration{time.Minute} // of a busy machine
	asks.write(t)
	asking := asks.start(t)
	count := func(d *supervisor, r role, names ...string) (sum int) {
		t.Helper()
		all, err := ask[server.Counted](t.Context(), d.running.processes[r].control, callCounted, none{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all.Counts {
			if slices.Contains(names, c.Name) {
				sum += int(c.N)
			}
		}
		return sum
	}
	// follow has the tracer ask the other daemon, as the front and the collector would.
	n := byte(0)
	follow := func() {
		t.Helper()
		n++
		before := count(asking, tracer, "asked")
		at := asking.running.processes[tracer].control
		end := stop.Ends{Remote: netip.MustParseAddrPort("127.0.0.1:40000"), Local: netip.AddrPortFrom(to.Addr(), 22)}
		_, err := ask[none](t.Context(), at, callFound, stop.Finding{Token: stop.Token{n}, Type: stop.SVRec, Requester: to.Addr(),
			Connection: stop.Connection{ID: uint64(n)}, Previous: []stop.Previous{{Ends: end, Corroborated: true}}})
		if err == nil {
			_, err = ask[none](t.Context(), at, callBegin, stop.Token{n})
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, stateTime, func() bool { return count(asking, tracer, "asked") != before }, func() string { return "nobody was asked" })
	}
	pin := func(s *site, d *supervisor, pin string) {
		t.Helper()
		s.cfg.Peers = nil
		if pin != "" {
			s.cfg.Peers = []Peer{{Hosts: []Network{{netip.MustParsePrefix("127.0.0.0/8")}}, Pin: pin}}
		}
		s.write(t)
		d.reload()
	}
	asked.cfg.OnBehalf = []Network{{netip.MustParsePrefix("127.0.0.0/8")}}
	outcomes := []string{"requests", "handshakes", "failed_handshakes", "plain_refused"}
	for _, tt := range []struct {
		asks, answers string
		counted       []string
	}{
		{"", "", []string{"requests"}},
		{itsPin, "", []string{"requests", "handshakes"}},
		{ourPin, "", []string{"failed_handshakes"}},
		{"", ourPin, []string{"plain_refused"}},
		{itsPin, ourPin, []string{"requests", "handshakes"}},
		{itsPin, itsPin, []string{"failed_handshakes"}}, // that is not who asks
		{"", "", []string{"requests"}},
	} {
		pin(asks, asking, tt.asks)
		pin(asked, answering, tt.answers)
		before := map[string]int{}
		for _, o := range outcomes {
			before[o] = count(answering, front, o)
		}
		follow()
		var counted []string
		more := func() []string {
			counted = nil
			for _, o := range outcomes {
				if count(answering, front, o) > before[o] {
					counted = append(counted, o)
				}
			}
			return counted
		}
		// Who asked may know of a failure before it is counted.
		eventually(t, stateTime, func() bool { return slices.Equal(more(), tt.counted) },
			func() string {
				return fmt.Sprintf("pinned %q and %q: counted are %q, not %q", tt.asks, tt.answers, counted, tt.counted)
			})
	}

	// On behalf of others, by a key that is pinned.
	local, remote := connection(t)
	r := stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: stop.SV, For: remote.Addr()}
	for _, p := range []string{"", ourPin} {
		pin(asked, answering, p)
		a, err := (&stop.Client{Pin: itsPin, Certificate: ours}).Ask(t.Context(), to, r)
		if err != nil || a.Kind != stop.KindToken {
			t.Fatalf("%+v, %v", a, err)
		}
		if got := asked.redeem(t, a.Token); (got.Connection != nil) != (p != "") {
			t.Errorf("pinned %q, on behalf: %q", p, got.Kind)
		}
	}
	for _, s := range []*site{asks, asked} {
		if got := s.log.String(); !strings.Contains(got, "answering by TLS as well") || strings.Contains(got, "reload refused") {
			t.Errorf("the log has %s", got)
		}
	}
}

// What a connection costs in plain and by TLS, and both ends' keys with the keeper or at hand: a line that does not parse
// is answered at once.
func BenchmarkConnection(b *testing.B) {
	s := newSite(b)
	newTLSKey(b, filepath.Join(s.dir, "tls.key"))
	ours := newTLSKey(b, filepath.Join(s.dir, "ours.key"))
	s.cfg.Peers = []Peer{{Hosts: []Network{{netip.MustParsePrefix("127.0.0.2/32")}}, Pin: stop.PinOf(ours.Leaf)}}
	s.write(b)
	d := s.start(b)
	for name, c := range map[string]struct {
		from string
		tls  *tls.Config
	}{
		"plain":                   {from: "127.0.0.1"},
		"TLS":                     {"127.0.0.1", &tls.Config{InsecureSkipVerify: true}},
		"TLS without ML-KEM":      {"127.0.0.1", &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}},
		"TLS, client certificate": {"127.0.0.2", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*ours}}},
	} {
		b.Run(name, func(b *testing.B) {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: netip.MustParseAddr(c.from).AsSlice()}}
			before := d.spent(b)
			for b.Loop() {
				nc, err := dialer.Dial("tcp", d.listeners[0].Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				if c.tls != nil {
					nc = tls.Client(nc, c.tls)
				}
				io.WriteString(nc, "x\n")
				if all, err := io.ReadAll(nc); err != nil || len(all) == 0 {
					b.Fatalf("%q, %v", all, err)
				}
				nc.Close()
			}
			for r, spent := range d.spent(b) {
				b.ReportMetric(float64((spent-before[r]).Microseconds())/float64(b.N), "us-"+string(r)+"/op")
			}
		})
	}
}

// spent is the processor time that the front and the keeper have had, to 10 ms.
func (s *supervisor) spent(b *testing.B) map[role]time.Duration {
	spent := map[role]time.Duration{}
	for _, r := range []role{front, keeper} {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.running.processes[r].process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, f := range strings.Fields(rest)[11:13] { // utime and stime, proc_pid_stat(5)
			ticks, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			spent[r] += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return spent
}
