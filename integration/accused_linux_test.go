package integration

import (
	"fmt"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
)

// The intruder's program uses what innocent people of d have there for others too: a port and an agent that their
// connection serves, and a log whose keeper has clients on other hosts.
func TestOthersConnections(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(*stage) (use string) // what is opened for writing, in Python
	}{
		{"a port forwarded to another host", func(s *stage) string {
			bob := s.openAs(s.d, "bob", "ssh", "-tt", "-R", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:22", s.port+1), "b", "echo at''work; exec cat")
			s.hears(bob, "atwork")
			return fmt.Sprintf(`socket.create_connection(("127.0.0.1", %d))`, s.port+1)
		}},
		{"a forwarded agent", func(s *stage) string {
			agent := fmt.Sprintf("%s-agent", s.dir)
			bob := s.openAs(s.d, "bob", "ssh", "-tt", "-R", agent+":127.0.0.1:22", "b", "chmod 0666 "+agent+" && echo at''work; exec cat")
			s.hears(bob, "atwork")
			return fmt.Sprintf(`(lambda u: (u.connect(%q), u))(socket.socket(socket.AF_UNIX))`, agent)
		}},
		{"a log that is kept for other hosts", func(s *stage) string {
			log := fmt.Sprintf("%s-log", s.dir)
			_, err := s.b.Host.RunAs(s.ctx, "logger", "mkfifo", "-m", "0666", log)
			s.must(err)
			s.beside("logger", "python3", "-c", `import os, signal, socket, sys
log = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
clients = socket.create_server(("0.0.0.0", int(sys.argv[2])))
have = [clients.accept() for _ in range(2)]
print("two", flush=True)
signal.pause()`, log, fmt.Sprint(s.port+1))
			s.listening(s.port + 1)
			s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:2", s.port+1))
			s.wait("wait for the clients of the log", func() (bool, error) {
				cs, err := connections(s.ctx, s.b.Host)
				n := 0
				for _, c := range cs {
					if c.local.Port() == s.port+1 && len(c.pids) > 0 {
						n++
					}
				}
				return n == 2, err
			})
			return fmt.Sprintf(`open(%q, "w")`, log)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				use := tt.serve(s)
				session := s.shell()
				s.send(session, fmt.Sprintf(`exec python3 -c 'import socket, sys
use = %s
victim = socket.create_connection((%q, %d))
for line in sys.stdin:
    victim.sendall(line.encode())'`, use, s.c.Host.Addr(), victimPort))
				s.out(s.b, s.c)
				s.send(session, s.word)
				tr := s.through("python3", "sshd", "sshd")
				tr.beside = true
				return tr
			})
		})
	}
}

// hears waits until a session was told something.
func (s *stage) hears(session *netlab.Session, what string) {
	s.t.Helper()
	_, err := session.Expect(s.ctx, what)
	s.must(err)
}
