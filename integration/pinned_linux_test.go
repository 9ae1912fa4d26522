package integration

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// tlsKey is where a site's TLS key is.
const tlsKey = "/srv/stopd/tls.key"

// pin is that of a site's key.
func (s *stage) pin(at *site.Site) string {
	s.t.Helper()
	c, err := daemon.ReadTLSKey(at.Host.Path(tlsKey))
	s.must(err)
	return stop.PinOf(c.Leaf)
}

// restart starts a site's daemon anew, with what it is to find changed first.
func (s *stage) restart(at *site.Site, change func()) {
	s.t.Helper()
	s.must(at.Daemon.Stop(s.ctx))
	change()
	s.must(at.Run(s.ctx))
}

// pins has a site pin others' keys until the test ends.
func (s *stage) pins(at *site.Site, others ...*site.Site) {
	s.t.Helper()
	good, err := at.Host.ReadFile(site.Config)
	s.must(err)
	text := string(good)
	for _, o := range others {
		var hosts []string
		for _, a := range o.Host.Addrs {
			hosts = append(hosts, fmt.Sprintf("%q", a.Addr()))
		}
		text += fmt.Sprintf("[[peer]]\nhosts = [%s]\npin = %q\n", strings.Join(hosts, ", "), s.pin(o))
	}
	load := func(ctx context.Context, text string) error {
		if err := at.Host.WriteFile(site.Config, []byte(text), 0o600, "root"); err != nil {
			return err
		}
		before, err := at.Daemon.Log()
		if err != nil {
			return err
		}
		if err := at.Daemon.Signal(syscall.SIGHUP); err != nil {
			return err
		}
		return netlab.WaitFor(ctx, func() (bool, error) {
			now, err := at.Daemon.Log()
			return strings.Count(now, "configuration reloaded") > strings.Count(before, "configuration reloaded"), err
		})
	}
	s.must(load(s.ctx, text))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
		defer cancel()
		if err := load(ctx, string(good)); err != nil {
			s.t.Error(err)
		}
	})
}

// A capture is what the link of a site carries from and to port 113.
type capture struct {
	*stage
	at *site.Site
	d  *netlab.Daemon
}

func (s *stage) capture(at *site.Site) *capture {
	s.t.Helper()
	c := &capture{s, at, s.on(at, "root", "capture", "113")}
	s.t.Cleanup(func() {
		if err := c.d.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	s.wait("wait for the capture", func() (bool, error) {
		log, err := c.d.Log()
		return strings.HasPrefix(log, "ready\n"), err
	})
	return c
}

// streams are what was said by each end of each connection so far, by "from to". A question in plain by who is
// pinned by nobody, which has to be among it, says how far it was captured.
func (c *capture) streams(asker *site.Site) map[[2]netip.AddrPort][]byte {
	c.t.Helper()
	out, err := asker.Host.Run(c.ctx, "bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/%s/113; printf '60001 , 60002\r\n' >&3; head -n 1 <&3`, c.at.Host.Addr()))
	c.must(err)
	mark := hex.EncodeToString(out)
	var log string
	c.wait("wait for the last reply to be captured", func() (bool, error) {
		log, err = c.d.Log()
		return strings.Contains(log, mark), err
	})
	said := map[[2]netip.AddrPort][]byte{}
	next := map[[2]netip.AddrPort]uint32{}
	for line := range strings.Lines(log) {
		var from, to string
		var fromPort, toPort uint16
		var sequence uint32
		var octets []byte
		if n, _ := fmt.Sscanf(line, "%s %d %s %d %d %x", &from, &fromPort, &to, &toPort, &sequence, &octets); n != 6 {
			continue
		}
		k := [2]netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(from), fromPort), netip.AddrPortFrom(netip.MustParseAddr(to), toPort)}
		if at, known := next[k]; known && at != sequence {
			continue // once more
		}
		next[k] = sequence + uint32(len(octets))
		said[k] = append(said[k], octets...)
	}
	if !bytes.Contains([]byte(strings.ReplaceAll(log, " ", "")), []byte(mark)) || len(said) < 2 {
		c.t.Fatalf("the capture has %d streams: %s", len(said), log)
	}
	return said
}

// tlsAlone reports whether a stream is records of TLS and nothing else (RFC 8446 section 5.1).
func tlsAlone(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 5 || b[0] < 0x14 || b[0] > 0x17 || b[1] != 3 {
			return false
		}
		n := 5 + int(b[3])<<8 + int(b[4])
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}

// intrude lays a trail through b.
func (s *stage) intrude() trail {
	s.t.Helper()
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	return s.through("nc.traditional", "nc.traditional")
}

// Hosts that pin each other's keys trace an intruder back, and no octet of it is in plain.
func TestPinnedHosts(t *testing.T) {
	s := theWorld(t).stage(t)
	s.pins(s.a, s.b)
	s.pins(s.b, s.a, s.c)
	tr := s.intrude()
	before := s.answered()
	seen := s.capture(s.b)
	r := s.asked("SV_REC", tr.out, true, "-pin", s.pin(s.b))
	s.inBetween(r.Report, tr)
	s.named(r, tr.in)
	a := s.previousToken(s.a, r)
	s.draws([]report.Redeemed{r, a}, fmt.Sprintf("a (%s) -> b (%s) -> %s\n", tr.in.remote.Addr(), tr.out.local.Addr(), tr.out.remote.Addr()), "opened")
	if d := cmp.Diff(map[string]int{"a": 1, "b": 1}, s.since(before)); d != "" {
		t.Errorf("answers by host (-want +got):\n%s", d)
	}
	// In plain the peers are told nothing, whoever of them asks, and g, whom nobody pins, is answered as ever.
	for _, from := range []*site.Site{s.c, s.a} {
		_, err := from.Stopctl(s.ctx, "request", s.b.Host.Addr().String(), fmt.Sprint(tr.out.local.Port()), fmt.Sprint(tr.out.remote.Port()))
		failed(t, err, 1, "closed without a reply")
	}
	said := seen.streams(s.g)
	for k, b := range said {
		if s.of(s.b, k[0].Addr()) && !s.of(s.g, k[1].Addr()) && !tlsAlone(b) {
			t.Errorf("b says %q to %s", b, k[1])
		}
		// What was asked in plain by who should not is the only thing in plain.
		if !s.of(s.g, k[0].Addr()) && !s.of(s.g, k[1].Addr()) && !tlsAlone(b) && bytes.Contains(b, []byte("SV_REC")) {
			t.Errorf("%s says %q to %s", k[0], b, k[1])
		}
	}
	if n := len(said); n < 8 { // of each end: the question to b, the one to a, and g's; those in plain have no answer
		t.Errorf("only %d streams were captured", n)
	}
}

// Whoever stands in for a pinned host is told nothing: neither one with another key, nor one that has none and
// answers in plain. It is recorded, and nobody is asked in plain.
func TestPinnedHostReplaced(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		replace    func(*stage)
	}{
		{"another key", "begin TLS: its key is not the pinned one", func(s *stage) {
			good, err := s.a.Host.ReadFile(tlsKey)
			s.must(err)
			key, err := daemon.GenerateTLSKey()
			s.must(err)
			write := func(b []byte) func() { return func() { s.must(s.a.Host.WriteFile(tlsKey, b, 0o600, "root")) } }
			s.restart(s.a, write(key))
			s.t.Cleanup(func() { s.ctx = context.Background(); s.restart(s.a, write(good)) })
		}},
		{"no key", "begin TLS: remote error: tls: handshake failure", func(s *stage) {
			s.restart(s.a, func() { s.mv(tlsKey, tlsKey+".away") })
			s.t.Cleanup(func() { s.ctx = context.Background(); s.restart(s.a, func() { s.mv(tlsKey+".away", tlsKey) }) })
		}},
		{"a relay with a key of its own", "begin TLS: its key is not the pinned one", func(s *stage) {
			s.instead()
			_, err := s.a.Host.Run(s.ctx, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
				"-subj", "/CN=stopd", "-keyout", "/root/relay.key", "-out", "/root/relay.crt")
			s.must(err)
			s.daemonOnA("socat", "OPENSSL-LISTEN:113,reuseaddr,fork,cert=/root/relay.crt,key=/root/relay.key,verify=0,openssl-min-proto-version=TLS1.3", "SYSTEM:tee -a /root/heard")
		}},
		{"in plain", "begin TLS: tls: first record does not look like a TLS handshake", func(s *stage) {
			s.instead()
			s.daemonOnA("socat", "TCP-LISTEN:113,reuseaddr,fork", "SYSTEM:echo '0 , 0 : ERROR : UNKNOWN-ERROR'; cat >/dev/null")
		}},
		{"an old ident daemon", "begin TLS: ", func(s *stage) {
			s.instead()
			s.daemonOnA("oidentd", "-i", "-u", "0", "-g", "0")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			s.pins(s.b, s.a)
			tt.replace(s)
			s.must(s.a.Host.WaitListen(s.ctx, 113))
			tr := s.intrude()
			seen := s.capture(s.b)
			r := s.asked("SV_REC", tr.out, true)
			s.named(r, tr.in)
			if len(r.Traceback) != 1 || !r.Traceback[0].Asked || r.Traceback[0].Kind != "none" || !strings.Contains(r.Traceback[0].Error, tt.want) || r.Traceback[0].Reply != "" {
				t.Errorf("the trace-back is %+v", r.Traceback)
			}
			said := seen.streams(s.g)
			asked := 0
			for k, b := range said {
				if s.of(s.b, k[0].Addr()) && s.of(s.a, k[1].Addr()) {
					if asked++; !tlsAlone(b) {
						t.Errorf("b says %q to a", b)
					}
				}
			}
			if asked != 1 {
				t.Errorf("b asked a on %d connections", asked)
			}
			if heard, err := s.a.Host.ReadFile("/root/heard"); len(heard) > 0 {
				t.Errorf("the relay heard %q, %v", heard, err)
			}
		})
	}
}

// instead stops a's daemon until the stage ends, for another on its port.
func (s *stage) instead() {
	s.t.Helper()
	s.must(s.a.Daemon.Stop(s.ctx))
	s.t.Cleanup(func() {
		if err := s.a.Run(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *stage) mv(from, to string) {
	s.t.Helper()
	_, err := s.a.Host.Run(s.ctx, "mv", from, to)
	s.must(err)
}

// While another host does nothing but begin TLS, who asks is answered, in plain and by TLS, and the daemon holds no more
// than before.
func TestHandshakeFlood(t *testing.T) {
	s := theWorld(t).stage(t)
	c := s.carols()
	before := s.load()
	var floods []*netlab.Daemon
	for range 4 {
		floods = append(floods, s.on(s.d, "mallory", "openssl", "s_time", "-connect", s.b.Host.Addr().String()+":113", "-new", "-time", "4"))
	}
	s.wait("wait for the flood", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		for _, c := range cs {
			if c.local.Port() == 113 && s.of(s.d, c.remote.Addr()) {
				return true, err
			}
		}
		select {
		case <-floods[0].Done(): // between two looks
			return true, err
		default:
			return false, err
		}
	})
	slowest := map[string]time.Duration{}
	for ended := 0; ended < len(floods); {
		for how, flags := range map[string][]string{"in plain": nil, "by TLS": {"-pin", s.pin(s.b)}} {
			args := append([]string{"request", "-type", "SV"}, flags...)
			began := time.Now()
			_, err := s.c.Stopctl(s.ctx, append(args, s.b.Host.Addr().String(), fmt.Sprint(c.local.Port()), fmt.Sprint(c.remote.Port()))...)
			s.must(err)
			slowest[how] = max(slowest[how], time.Since(began))
		}
		ended = 0
		for _, f := range floods {
			select {
			case <-f.Done():
				ended++
			default:
			}
		}
	}
	shaken := 0
	for _, f := range floods {
		log, err := f.Log()
		s.must(err)
		var n int
		var took float64
		for line := range strings.Lines(log) {
			if k, _ := fmt.Sscanf(line, "%d connections in %fs;", &n, &took); k == 2 {
				shaken += n
			}
		}
	}
	if shaken < 20 {
		t.Errorf("%d handshakes are no flood", shaken)
	}
	t.Logf("%d handshakes; the slowest answers took %v", shaken, slowest)
	s.flat(before)
}
