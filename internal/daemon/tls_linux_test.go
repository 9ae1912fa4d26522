package daemon

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// A daemon of five processes answers by TLS and asks by TLS, with a key that only its keeper has; which peers are pinned
// changes with the file.
func TestDaemonTLS(t *testing.T) {
	asked, asks := newSite(t), newSite(t)
	its := newTLSKey(t, filepath.Join(asked.dir, "tls.key"))
	ours := newTLSKey(t, filepath.Join(asks.dir, "tls.key"))
	itsPin, ourPin := stop.PinOf(its.Leaf), stop.PinOf(ours.Leaf)
	answering, asking := asked.start(t), asks.start(t)
	to := netip.MustParseAddrPort(answering.listeners[0].Addr().String())
	local, remote := connection(t)
	r := stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: stop.SV}
	behalf := r
	behalf.For = remote.Addr()

	// ask has the tracer ask, as the front would.
	ask := func(r stop.Request) (stop.Answer, error) {
		return ask[stop.Answer](t.Context(), asking.running.processes[tracer].control, callAsk,
			hostAsked{Source: netip.MustParseAddr("127.0.0.1"), Timeout: 5 * time.Second, To: to, Request: r})
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
	asked.cfg.OnBehalf = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, tt := range []struct{ asks, answers, want string }{
		{"", "", ""},
		{itsPin, "", ""},
		{ourPin, "", "its key is not the pinned one"},
		{"", ourPin, "closed without a reply"},
		{itsPin, ourPin, ""},
		{itsPin, itsPin, "bad certificate"},
		{"", "", ""},
	} {
		pin(asks, asking, tt.asks)
		pin(asked, answering, tt.answers)
		a, err := ask(r)
		if tt.want == "" && (err != nil || a.Kind != stop.KindToken) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("pinned %q and %q: %+v, %v", tt.asks, tt.answers, a, err)
			continue
		}
		if tt.want != "" || tt.asks == "" {
			continue
		}
		// On behalf of others the tracer shows the host's certificate, which counts where it is pinned.
		a, err = ask(behalf)
		if err != nil || a.Kind != stop.KindToken {
			t.Errorf("on behalf: %+v, %v", a, err)
			continue
		}
		if got := asked.redeem(t, a.Token); (got.Connection != nil) != (tt.answers == ourPin) {
			t.Errorf("pinned %q and %q, on behalf: %q", tt.asks, tt.answers, got.Kind)
		}
	}
	for _, s := range []*site{asks, asked} {
		if got := s.log.String(); !strings.Contains(got, "answering by TLS as well") || strings.Contains(got, "level=ERROR") {
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
