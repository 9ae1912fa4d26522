package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// supervised are two programs of one supervisor, each of a user's own.
const supervised = `[supervisord]
nodaemon=true
user=root
logfile=/dev/null
logfile_maxbytes=0
pidfile=/run/supervisord-relay.pid
[program:relay]
user=mallory
command=sh -c "%[2]s"
[program:echo]
user=www
command=socat TCP-LISTEN:%[1]d,reuseaddr,fork EXEC:/bin/cat
`

// supervisor starts them, and has people of d at the echo.
func (s *stage) supervisor(command string, v ...any) {
	s.t.Helper()
	path := s.dir + "/supervisord.conf"
	s.must(s.b.Host.WriteFile(path, fmt.Appendf(nil, supervised, s.port, fmt.Sprintf(command, v...)), 0o644, "root"))
	s.daemonOnB("supervisord", "-c", path)
	s.visitors(2, `hello\n`)
}

// TestSupervisor: what a supervisor reads from its programs, and writes to them, joins none to the others.
func TestSupervisor(t *testing.T) {
	t.Run("each has its client", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			s.supervisor("nc.traditional -l -p %d | nc.traditional %s %d", s.port+1, s.c.Host.Addr(), victimPort)
			s.connect(s.port + 1)
			tr := s.through("nc.traditional", "nc.traditional", "sh", "supervisord")
			tr.beside = true
			return tr
		})
	})
	t.Run("one acts by itself", func(t *testing.T) {
		s := theWorld(t).stage(t)
		s.supervisor("(echo %s; exec tail -f /dev/null) | nc.traditional %s %d", s.word, s.c.Host.Addr(), victimPort)
		s.heard(s.c)
		r := s.asked("SV_REC", s.out(s.b, s.c), true)
		if len(r.Report.Previous) > 0 || len(r.Traceback) > 0 {
			t.Errorf("nobody has told it anything, and named are %+v", r.Report.Previous)
		}
		if !hasGap(r.Report.Gaps, "on whose request is not kept") {
			t.Errorf("gaps are %+v", r.Report.Gaps)
		}
	})
}

const webProxy = `user www-data www-data;
worker_processes 1;
error_log stderr;
pid /run/nginx-relay.pid;
events { worker_connections 500; }
http {
	access_log off;
	keepalive_timeout 10m;
	server {
		listen %d;
		location / { return 204; }
		location /relay {
			proxy_pass http://%s:%d;
			proxy_read_timeout 10m;
			proxy_ignore_client_abort on;
		}
	}
}
`

// nginx starts a web server that passes on what is posted to /relay.
func (s *stage) nginx() {
	s.t.Helper()
	s.onB("mkdir", "-p", "/var/lib/nginx", "/var/log/nginx")
	path := s.dir + "/nginx.conf"
	s.must(s.b.Host.WriteFile(path, fmt.Appendf(nil, webProxy, s.port, s.c.Host.Addr(), victimPort), 0o644, "root"))
	s.daemonOnB("nginx", "-g", "daemon off;", "-c", path)
	s.listening(s.port)
}

// TestKeepAlive: of a web server's clients he is among those who are asked, though he has left and others are there; who had left before is not.
func TestKeepAlive(t *testing.T) {
	s := theWorld(t).stage(t)
	s.nginx()
	early := s.openOn(s.d, "nc.traditional", "-p", fmt.Sprint(s.port+6), s.b.Host.Addr().String(), fmt.Sprint(s.port))
	s.send(early, "GET / HTTP/1.1\r", "Host: b\r", "\r")
	s.hears(early, "204")
	s.must(early.Close())
	s.wait("wait for the first of d to have left", func() (bool, error) { return s.served(0) })
	s.visitors(1, getsIdle)
	c := s.post("/relay", s.word, 0)
	s.heard(s.c)
	s.must(c.Close())
	s.gone()
	r := s.asked("SV_REC", s.out(s.b, s.c), true)
	s.notAlone(r, s.posts())
	for _, p := range r.Report.Previous {
		if p.Remote.Port() == s.port+6 && s.of(s.d, p.Remote.Addr()) {
			t.Errorf("%v had left before, and is named for %v", p.Remote, p.Reasons)
		}
	}
}

// TestReplacedWorker: a worker that listens no more has its clients still, and those of its successor are not taken for them.
func TestReplacedWorker(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		s.nginx()
		s.post("/relay", s.word, 0)
		s.heard(s.c)
		was := s.in().pids[0]
		s.onB("nginx", "-c", s.dir+"/nginx.conf", "-s", "reload")
		s.wait("wait for another worker in its place", func() (bool, error) {
			listen, err := s.b.Host.Run(s.ctx, "ss", "-tlnpH", "sport", "=", fmt.Sprint(s.port))
			return err == nil && !strings.Contains(string(listen), fmt.Sprintf("pid=%d,", was)) && strings.Count(string(listen), "pid=") > 1, err
		})
		s.visitors(1, getsIdle)
		tr := s.through("nginx", "nginx")
		tr.beside = true
		return tr
	})
}

// TestProxyOver: of a connection through a proxy that is over, who is at the proxy now is not named alone, and not at all where he came later.
func TestProxyOver(t *testing.T) {
	for _, tt := range []struct {
		name         string
		before, here bool // people of d were there before; he came to the proxy from b itself, where he has logged in
	}{
		{"they came later", false, false}, {"they were there", true, false}, {"he was at the proxy's own host", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			r, known := &relayed{stage: s, program: relayPrograms[0]}, map[netip.AddrPort]bool{}
			s.on(s.c, "mallory", "answer", fmt.Sprint(s.port+1))
			s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
			r.start(s)
			s.listening(s.port)
			chatter := func(at *site.Site) (*netlab.Daemon, client) {
				d := s.on(at, "mallory", "chatter", fmt.Sprintf("%s:%d", s.b.Host.Addr(), s.port), "0", "1")
				return d, r.new(known, 1, false)[0]
			}
			if tt.before {
				chatter(s.d)
			}
			var his client
			var in connection
			if tt.here {
				session := s.shell()
				s.send(session, fmt.Sprintf("chatter 127.0.0.1:%d 0 1 & :", s.port))
				his, in = r.new(known, 1, false)[0], s.in()
				s.send(session, "kill $!")
			} else {
				var d *netlab.Daemon
				d, his = chatter(s.a)
				in = connection{local: his.in.Local, remote: his.in.Remote}
				s.must(d.Stop(s.ctx))
			}
			s.wait("wait for the connections to be closed", func() (bool, error) {
				cs, err := connections(s.ctx, s.b.Host)
				return !slices.ContainsFunc(cs, func(c connection) bool { return c.local == his.out.local || c.remote == his.in.Remote }), err
			})
			if tt.before {
				s.notAlone(s.askedOver("SV_REC", his.out), in)
				return
			}
			chatter(s.d)
			s.came(s.askedOver("SV_REC", his.out), in)
		})
	}
}
