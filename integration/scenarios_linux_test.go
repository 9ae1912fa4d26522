package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
)

// shell logs the attacker in to b.
func (s *stage) shell() *netlab.Session {
	s.t.Helper()
	session := s.open("ssh", "-4", "-tt", "b")
	s.send(session, "echo lo''gged in")
	_, err := session.Expect(s.ctx, "logged in")
	s.must(err)
	return session
}

// Thesis section 3.5.1.
func TestShellAndTelnet(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		session := s.shell()
		s.send(session, fmt.Sprintf("inetutils-telnet %s %d", s.c.Host.Addr(), victimPort))
		_, err := session.Expect(s.ctx, "Escape character")
		s.must(err)
		s.send(session, s.word)
		return s.through("inetutils-telne", "bash", "sshd", "sshd")
	})
}

// The intruder's shell is a client of the services of which the innocents are clients, and writes to the
// same log.
func TestSharedServices(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		session := s.shell()
		s.send(session,
			"exec 9<>"+logFIFO,
			"tail -f /dev/null | nc.openbsd -U "+database+" &",
			"tail -f /dev/null | socat - UNIX-CONNECT:"+echoSocket+" &",
			fmt.Sprintf("exec 8<>/dev/tcp/127.0.0.1/%d", databasePort),
			fmt.Sprintf("exec 7<>/dev/tcp/127.0.0.1/%d", echoPort),
			fmt.Sprintf("exec 6<>/dev/tcp/127.0.0.1/%d", webPort),
			fmt.Sprintf("exec nc.traditional %s %d", s.c.Host.Addr(), victimPort),
			s.word)
		tr := s.through("nc.traditional", "sshd", "sshd")
		tr.beside = true
		return tr
	})
}

// Thesis section 3.2.3.
func TestPipe(t *testing.T) {
	for _, tt := range []struct {
		name, typ, script string
		names             []string
	}{
		{"SV_REC", "SV_REC", "nc.traditional -l -p %d | nc.traditional %s %d", []string{"nc.traditional", "nc.traditional"}},
		{"ID_REC", "ID_REC", "nc.openbsd -l -p %d | nc.openbsd %s %d", nil},
		{"hostile name", "SV_REC", `printf 'a) R 1\n(b' >/proc/$$/comm; nc.traditional -l -p %d | nc.traditional %s %d`,
			[]string{"a) R 1\n(b", "nc.traditional", "nc.traditional"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, tt.typ, func(s *stage) trail {
				s.script(tt.script, s.port, s.c.Host.Addr(), victimPort)
				s.connect(s.port)
				return s.through(tt.names...)
			})
		})
	}
}

// Others run the same relays to the same victim, from their own host.
func TestPipeAmongOthers(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		var targets []string
		for i := range uint16(5) {
			port := s.port + 1 + i
			s.on(s.b, "www", "sh", "-c", fmt.Sprintf("nc.traditional -l -p %d | nc.traditional %s %d", port, s.c.Host.Addr(), victimPort))
			s.listening(port)
			targets = append(targets, fmt.Sprintf("b:%d:1:hello\\n", port))
		}
		s.on(s.d, "mallory", "clients", targets...)
		s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
		s.connect(s.port)
		s.heard(s.c)
		mine, err := processes(s.ctx, s.b.Host, "mallory")
		s.must(err)
		out := s.one(s.b, "connection with the victim", func(c connection) bool {
			return c.remote.Port() == victimPort && slices.Contains(mine, c.pids[0])
		})
		return trail{in: s.in(), out: out, names: []string{"sh", "nc.traditional", "nc.traditional"}, beside: true}
	})
}

// Two processes hold both connections; later only the one that did not open them.
func TestSeveralHolders(t *testing.T) {
	for _, left := range []bool{false, true} {
		t.Run(map[bool]string{false: "both", true: "the child alone"}[left], func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				leave := s.dir + "/leave"
				_, err := s.b.Host.RunAs(s.ctx, "mallory", "mkfifo", leave)
				s.must(err)
				d := s.on(s.b, "mallory", "share", s.dir, fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
				s.connect(s.port)
				child := s.pid(s.dir + "/child")
				want := []int{child, d.PID}
				if left {
					_, err := s.b.Host.RunAs(s.ctx, "mallory", "sh", "-c", "true >"+leave)
					s.must(err)
					<-d.Done()
					want = []int{child}
				}
				s.heard(s.c)
				out := s.out(s.b, s.c)
				slices.Sort(want)
				if slices.Sort(out.pids); !slices.Equal(out.pids, want) {
					s.t.Fatalf("processes %v hold the connection, want %v", out.pids, want)
				}
				return trail{in: s.in(), out: out, names: slices.Repeat([]string{"share"}, len(want))}
			})
		})
	}
}

// One program speaks with the attacker and another with the victim; what joins them is a UNIX socket.
func TestUNIXRelay(t *testing.T) {
	for _, tt := range []struct{ name, far, near string }{
		{"stream", "UNIX-LISTEN:%s", "UNIX-CONNECT:%s"},
		{"seqpacket", "UNIX-LISTEN:%s,socktype=5", "UNIX-CONNECT:%s,socktype=5"},
		{"abstract", "ABSTRACT-LISTEN:%s", "ABSTRACT-CONNECT:%s"},
		{"datagram", "UNIX-RECV:%s", "UNIX-CONNECT:%s,socktype=2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				name := s.dir + "/relay"
				s.on(s.b, "mallory", "socat", "-u", fmt.Sprintf(tt.far, name), fmt.Sprintf("TCP:%s:%d", s.c.Host.Addr(), victimPort))
				s.wait("wait for the UNIX socket", func() (bool, error) {
					out, err := s.b.Host.Run(s.ctx, "grep", "-c", name, "/proc/net/unix")
					return len(out) > 0 && out[0] == '1', ignoreExit(err)
				})
				s.on(s.b, "mallory", "socat", "-u", fmt.Sprintf("TCP-LISTEN:%d", s.port), fmt.Sprintf(tt.near, name))
				s.connect(s.port)
				return s.through("socat", "socat")
			})
		})
	}
}

func TestTerminalRelay(t *testing.T) {
	t.Run("script", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			s.script("nc.traditional -l -p %d | script -qfc 'nc.traditional %s %d' /dev/null", s.port, s.c.Host.Addr(), victimPort)
			s.connect(s.port)
			return s.through("nc.traditional", "script", "nc.traditional")
		})
	})
	t.Run("socat", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			link := s.dir + "/terminal"
			s.on(s.b, "mallory", "socat", "PTY,raw,echo=0,link="+link, fmt.Sprintf("TCP-LISTEN:%d", s.port))
			s.exists(link)
			s.on(s.b, "mallory", "socat", link+",raw,echo=0", fmt.Sprintf("TCP:%s:%d", s.c.Host.Addr(), victimPort))
			s.connect(s.port)
			return s.through("socat", "socat")
		})
	})
}

// A listener gives the accepted connection to a new process as its input and output. Innocents use the same
// listener, so each has a connection with the victim of their own.
func TestInetd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*stage)
	}{
		{"socat", func(s *stage) {
			s.on(s.b, "www", "socat", fmt.Sprintf("TCP-LISTEN:%d,reuseaddr,fork", s.port),
				fmt.Sprintf("EXEC:nc.traditional %s %d,nofork", s.c.Host.Addr(), victimPort))
		}},
		{"inetd", func(s *stage) {
			conf := fmt.Sprintf("%d stream tcp nowait www /usr/bin/nc.traditional nc.traditional %s %d\n", s.port, s.c.Host.Addr(), victimPort)
			s.must(s.b.Host.WriteFile("/etc/inetd.conf", []byte(conf), 0o644, "root"))
			d := s.on(s.b, "root", "inetd", "-i")
			s.t.Cleanup(func() {
				if err := d.Stop(context.Background()); err != nil {
					s.t.Error(err)
				}
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				tt.start(s)
				s.listening(s.port)
				s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:3:hello\\n", s.port))
				s.connect(s.port)
				s.heard(s.c)
				in := s.in()
				out := s.one(s.b, "connection with the victim", func(c connection) bool { // the listener may hold the other still
					return c.remote == netip.AddrPortFrom(s.c.Host.Addr(), victimPort) && slices.Contains(in.pids, c.pids[0])
				})
				return trail{in: in, out: out, names: []string{"nc.traditional"}, beside: true}
			})
		})
	}
}

func TestIPv6(t *testing.T) {
	for _, tt := range []struct{ name, listen, connect, from string }{
		{"IPv6", "TCP6-LISTEN:%d", "TCP6:[2001:db8::3]:%d", "TCP6:[2001:db8::2]:%d"},
		{"mapped, from an IPv6 listener", "TCP6-LISTEN:%d,ipv6only=0", "TCP:192.0.2.3:%d", "TCP:192.0.2.2:%d"},
		{"mapped, to the victim", "TCP-LISTEN:%d", "TCP6:[::ffff:192.0.2.3]:%d", "TCP:192.0.2.2:%d"},
		{"from IPv6 to IPv4", "TCP6-LISTEN:%d", "TCP:192.0.2.3:%d", "TCP6:[2001:db8::2]:%d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				s.on(s.b, "mallory", "socat", fmt.Sprintf(tt.listen, s.port), fmt.Sprintf(tt.connect, victimPort))
				s.listening(s.port)
				s.send(s.open("socat", "-", fmt.Sprintf(tt.from, s.port)), s.word)
				return s.through("socat")
			})
		})
	}
}

// Thesis table 4.4.
func TestLoopbackUDP(t *testing.T) {
	for _, tt := range []struct{ name, far string }{
		{"both connected", "UDP-LISTEN:%d,bind=127.0.0.1"},
		{"one connected", "UDP-RECV:%d,bind=127.0.0.1"},
		{"IPv6", "UDP6-LISTEN:%d,bind=[::1]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				near := fmt.Sprintf("UDP:127.0.0.1:%d", s.port+1)
				if tt.name == "IPv6" {
					near = fmt.Sprintf("UDP6:[::1]:%d", s.port+1)
				}
				s.on(s.b, "mallory", "socat", "-u", fmt.Sprintf(tt.far, s.port+1), fmt.Sprintf("TCP:%s:%d", s.c.Host.Addr(), victimPort))
				s.wait("wait for the UDP socket", func() (bool, error) {
					out, err := s.b.Host.Run(s.ctx, "ss", "-unaH", "sport", "=", fmt.Sprint(s.port+1))
					return len(out) > 0, err
				})
				s.on(s.b, "mallory", "socat", "-u", fmt.Sprintf("TCP-LISTEN:%d", s.port), near)
				s.connect(s.port)
				return s.through("socat", "socat")
			})
		})
	}
}
