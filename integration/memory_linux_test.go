package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// beside starts a program of an innocent user on b, which ends with the stage.
func (s *stage) beside(user, name string, args ...string) *netlab.Daemon {
	s.t.Helper()
	d := s.on(s.b, user, name, args...)
	s.t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	return d
}

// pair starts two processes of a user that share a kind of memory or a queue, and nothing else. What comes to
// the port leaves for the other host.
func (s *stage) pair(start func(user, name string, args ...string) *netlab.Daemon, user, kind string, port uint16, to *site.Site, toPort int) {
	s.t.Helper()
	host := to.Host.Addr().String()
	if kind == "memfd" || kind == "eventfd" {
		start(user, "keep", kind, fmt.Sprint(port), "both", fmt.Sprint(port), host, fmt.Sprint(toPort))
		return
	}
	start(user, "keep", kind, fmt.Sprint(port), "out", host, fmt.Sprint(toPort))
	start(user, "keep", kind, fmt.Sprint(port), "in", fmt.Sprint(port))
}

// One process keeps what the attacker says where another finds it, who speaks with the victim. Somebody else
// does the same with theirs.
func TestMemoryRelay(t *testing.T) {
	for _, kind := range []string{"sysv", "posix", "memfd", "mqueue", "msg", "sem", "eventfd"} {
		t.Run(kind, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				theirs := kind
				if kind == "memfd" || kind == "eventfd" { // its processes would be nobody's children
					theirs = "posix"
				}
				s.pair(s.beside, "service", theirs, s.port+1, s.c, innocentPort)
				s.listening(s.port + 1)
				s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:hello-%d", s.port+1, s.port))
				s.wait("wait for the innocents' words", func() (bool, error) {
					text, err := s.c.Host.ReadFile(received)
					return strings.Contains(string(text), fmt.Sprintf("hello-%d", s.port)), ignoreMissing(err)
				})
				mine := func(user, name string, args ...string) *netlab.Daemon { return s.on(s.b, user, name, args...) }
				s.pair(mine, "mallory", kind, s.port, s.c, victimPort)
				s.connect(s.port)
				return s.through("keep", "keep")
			})
		})
	}
}

// One process appends to a file what the attacker says, and another follows it. Somebody else's follows it as
// well, for a client of theirs.
func TestFileRelay(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		file := s.dir + "/file"
		s.script("umask 022; exec nc.traditional -l -p %d >>%s", s.port, file)
		s.exists(file)
		s.beside("web", "socat", fmt.Sprintf("TCP-LISTEN:%d", s.port+1), "EXEC:tail -f "+file+",nofork")
		s.listening(s.port + 1)
		s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1", s.port+1))
		s.script("tail -f %s | nc.traditional %s %d", file, s.c.Host.Addr(), victimPort)
		s.wait("wait for the innocent to follow the file", func() (bool, error) {
			out, err := s.b.Host.Run(s.ctx, "pgrep", "-U", "web", "tail")
			return len(out) > 0, ignoreExit(err)
		})
		s.connect(s.port)
		return s.through("nc.traditional", "tail", "nc.traditional")
	})
}

// The queue and the semaphores are of an IPC namespace of the intruder's own, in which numbers begin anew, and so
// are those of somebody else.
func TestNamespaceRelay(t *testing.T) {
	for _, kind := range []string{"msg", "sem"} {
		t.Run(kind, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				pair := func(port, to int) []string {
					keep := fmt.Sprintf("keep %s 7 in %d & exec keep %s 7 out %s %d", kind, port, kind, s.c.Host.Addr(), to)
					return []string{"--user", "--ipc", "sh", "-c", keep}
				}
				s.beside("service", "unshare", pair(int(s.port+1), innocentPort)...)
				s.listening(s.port + 1)
				s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:hello-%d", s.port+1, s.port))
				s.on(s.b, "mallory", "unshare", pair(int(s.port), victimPort)...)
				s.connect(s.port)
				return s.through("keep", "keep")
			})
		})
	}
}
