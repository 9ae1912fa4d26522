package integration

import (
	"fmt"

	"github.com/stopd/stopd"
)

// A program is one by which an intruder relays through b, and many others do.
type program struct {
	name  string
	start func(*stage)
	// speaks is what its clients say first, as arguments of chatter.
	speaks func(*stage) []string
	// grade is that of the one who is meant while all talk; empty where each client has a process of its own.
	grade string
}

// programs are started with s.port to listen on, and the port after it of the victim's to go on to.
var relayPrograms = []program{
	{name: "haproxy", grade: stop.FlowCertain, start: func(s *stage) {
		s.configured("haproxy", "-db", "-f", `global
  maxconn 1000
defaults
  mode tcp
  timeout connect 10s
  timeout client 10m
  timeout server 10m
listen relay
  bind :%d
  server victim %s:%d
`)
	}},
	{name: "nginx", grade: stop.FlowCertain, start: func(s *stage) {
		s.onB("mkdir", "-p", "/var/lib/nginx", "/var/log/nginx")
		s.configured("nginx", "-g", "daemon off;", "-c", `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
user www-data www-data;
worker_processes 1;
error_log stderr;
pid /run/nginx.pid;
events { worker_connections 500; }
stream { server { listen %d; proxy_pass %s:%d; } }
`)
	}},
	{name: "socat", start: func(s *stage) {
		s.on(s.b, "www", "socat", fmt.Sprintf("TCP-LISTEN:%d,reuseaddr,fork,backlog=128", s.port), "TCP:"+s.answering())
	}},
	{name: "dante", grade: stop.FlowSupported, speaks: func(s *stage) []string { return []string{"socks", s.answering()} }, start: func(s *stage) {
		s.configured("danted", "-f", `logoutput: stderr
internal: 0.0.0.0 port = %d
external: `+s.b.Host.Addr().String()+`
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: www
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
# %s %d
`)
	}},
	{name: "stunnel", grade: stop.FlowSupported, speaks: func(*stage) []string { return []string{"tls"} }, start: func(s *stage) {
		s.onB("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=b", "-days", "2",
			"-keyout", "/etc/stunnel/b.key", "-out", "/etc/stunnel/b.pem")
		s.configured("stunnel4", `foreground = yes
pid =
cert = /etc/stunnel/b.pem
key = /etc/stunnel/b.key
[relay]
accept = %d
connect = %s:%d
`)
	}},
	{name: "Go", grade: stop.FlowCertain, start: goProxy("plain")},
	{name: "Go with splice", grade: stop.FlowCertain, start: goProxy("splice")},
	{name: "Python", grade: stop.FlowCertain, start: func(s *stage) { s.daemonOnB("proxy", fmt.Sprint(s.port), s.answering()) }},
}

func goProxy(how string) func(*stage) {
	return func(s *stage) { s.daemonOnB("goproxy", fmt.Sprint(s.port), s.answering(), how) }
}

// answering is where the victim answers.
func (s *stage) answering() string { return fmt.Sprintf("%s:%d", s.c.Host.Addr(), s.port+1) }

// configured starts a daemon of root's on b with a file of configuration, which is its last argument.
func (s *stage) configured(name string, args ...string) {
	s.t.Helper()
	last := len(args) - 1
	path := "/etc/" + name + "-relay.conf"
	s.must(s.b.Host.WriteFile(path, fmt.Appendf(nil, args[last], s.port, s.c.Host.Addr(), s.port+1), 0o644, "root"))
	s.daemonOnB(name, append(args[:last:last], path)...)
}
