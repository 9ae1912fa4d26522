package integration

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// An identClient is a server that asks the host of whoever connects to it who that is.
type identClient struct {
	name  string
	files map[string]string // configuration, by path
	setup string            // shell, as root
	run   []string
	port  uint16
	says  string // what is typed, each line when the server has spoken
	log   string
	// told is what it writes down of the answer: the token is the first group.
	told string
}

const tokenPattern = `([a-z][a-z0-9]{51,62})`

// identClients are of Debian. PostgreSQL and ircd-hybrid want a name or another system: see TestPostgreSQLIdent and TestHybridIdent.
var identClients = []identClient{
	{
		name: "exim4", port: 2525, says: "EHLO login|MAIL FROM:<>|RCPT TO:<bob@mx.example>", log: "/tmp/exim-rejectlog",
		files: map[string]string{"/etc/exim4/exim4.conf": `primary_hostname = mx.example
daemon_smtp_ports = 2525
local_interfaces = 192.0.2.2
rfc1413_hosts = *
rfc1413_query_timeout = 20s
host_lookup =
log_file_path = /tmp/exim-%slog
acl_smtp_rcpt = refuse
begin acl
refuse:
  deny
`},
		setup: "install -d -o Debian-exim /var/spool/exim4; touch /tmp/exim-mainlog /tmp/exim-rejectlog /tmp/exim-paniclog; chown Debian-exim /tmp/exim-*",
		run:   []string{"/usr/sbin/exim4", "-bdf"}, told: `U=` + tokenPattern + ` F=<> rejected RCPT`,
	},
	{
		name: "proftpd", port: 2121, says: "USER nobody", log: "/var/log/ftp.log",
		files: map[string]string{"/etc/proftpd.conf": `ModulePath /usr/lib/proftpd
LoadModule mod_ident.c
ServerType standalone
DefaultAddress 192.0.2.2
Port 2121
UseReverseDNS off
UseIPv6 off
IdentLookups on
User victim
Group victim
PidFile /tmp/proftpd.pid
ScoreboardFile /run/proftpd/scoreboard
DelayEngine off
WtmpLog off
SystemLog none
LogFormat who "%l: %r"
ExtendedLog /var/log/ftp.log ALL who
`},
		setup: "mkdir -p /run/proftpd",
		run:   []string{"/usr/sbin/proftpd", "-n", "-c", "/etc/proftpd.conf"}, told: tokenPattern + `: USER nobody`,
	},
	{
		name: "xinetd", port: 2600, log: "/tmp/xinetd.log",
		files: map[string]string{"/etc/xinetd.test": `service probe
{
	type = UNLISTED
	port = 2600
	socket_type = stream
	protocol = tcp
	wait = no
	user = root
	server = /bin/cat
	log_type = FILE /tmp/xinetd.log
	log_on_success = USERID
}
`},
		run: []string{"/usr/sbin/xinetd", "-dontfork", "-f", "/etc/xinetd.test"}, told: `USERID: probe OTHER *:? *` + tokenPattern,
	},
	{
		name: "tcpd", port: 2601, log: "/tmp/tcpd.log",
		files: map[string]string{"/etc/hosts.deny": "tcpd: KNOWN@192.0.2.1: spawn (echo knows %u >>/tmp/tcpd.log)\n"},
		run:   []string{"socat", "TCP-LISTEN:2601,bind=192.0.2.2,fork", "EXEC:/usr/sbin/tcpd,nofork"}, told: `knows ` + tokenPattern,
	},
	{
		name: "ngircd", port: 6667, says: "NICK nick\r\nUSER said 0 * :x", log: "/tmp/ngircd.log",
		files: map[string]string{"/etc/ngircd.test": `[Global]
Name = irc.example
Info = test
Listen = 192.0.2.2
Ports = 6667
ServerUID = victim
ServerGID = victim
[Options]
Ident = yes
DNS = yes
PAM = no
`},
		run: []string{"sh", "-c", "exec /usr/sbin/ngircd -n -f /etc/ngircd.test >/tmp/ngircd.log 2>&1"}, told: `IDENT lookup for connection \d+: "` + tokenPattern + `"`,
	},
	{
		name: "inspircd", port: 6668, says: "NICK nick\r\nUSER said 0 * :x", log: "/run/inspircd/log",
		files: map[string]string{"/etc/inspircd.test": `<server name="irc.example" description="test" network="Example" id="001">
<admin name="x" nick="x" email="x@mx.example">
<bind address="192.0.2.2" port="6668" type="clients">
<connect allow="*" useident="yes" resolvehostnames="no">
<limits maxident="63">
<module name="ident">
<ident timeout="20">
<path moduledir="/usr/lib/inspircd/modules" logdir="/run/inspircd" datadir="/run/inspircd" runtimedir="/run/inspircd">
<pid file="/run/inspircd/pid">
<log method="file" type="CONNECT" level="debug" target="/run/inspircd/log" flush="1">
`},
		setup: "install -d -o victim /run/inspircd",
		run:   []string{"setpriv", "--reuid=victim", "--regid=victim", "--clear-groups", "/usr/sbin/inspircd", "--nofork", "--config", "/etc/inspircd.test"}, told: `nick!` + tokenPattern + `@192\.0\.2\.1`,
	},
	{
		name: "squid", port: 3128, says: "GET http://192.0.2.3/ HTTP/1.0\r\n", log: "/tmp/squid.log",
		files: map[string]string{"/etc/squid.test": `http_port 192.0.2.2:3128
acl all_clients src 192.0.2.0/24
ident_lookup_access allow all_clients
ident_timeout 20 seconds
acl known ident REQUIRED
http_access allow known
logformat who %ui
access_log stdio:/tmp/squid.log who
cache_log /tmp/squid-cache.log
cache_effective_user victim
cache deny all
pid_filename none
shutdown_lifetime 0 seconds
`},
		setup: "touch /tmp/squid.log /tmp/squid-cache.log; chown victim /tmp/squid*.log",
		run:   []string{"/usr/sbin/squid", "-N", "-f", "/etc/squid.test"}, told: `(?m)^` + tokenPattern + `$`,
	},
}

// What each of them takes for the name of a user is the token, whole; it stands for a report of who has connected.
func TestIdentClients(t *testing.T) {
	b := newBorder(t, "exim4-daemon-light", "inspircd", "ngircd", "proftpd-core", "python3", "squid", "tcpd", "xinetd")
	b.must(b.server.AddSystemUser("Debian-exim", 982))
	const client = `import socket, sys, time
s = socket.create_connection(("192.0.2.2", int(sys.argv[1])))
for line in sys.argv[2].split("|"):
    if sys.argv[3] == "spoken":
        s.recv(4096)
    s.sendall(line.encode() + b"\r\n")
time.sleep(600)
`
	for _, c := range identClients {
		t.Run(c.name, func(t *testing.T) {
			lab := b
			b := *lab
			b.t = t
			var cancel context.CancelFunc
			b.ctx, cancel = context.WithTimeout(lab.ctx, 30*time.Second)
			defer cancel()
			for path, text := range c.files {
				b.must(b.server.WriteFile(path, []byte(text), 0o644, "root"))
			}
			_, err := b.server.Run(b.ctx, "sh", "-ec", c.setup)
			b.must(err)
			server, err := b.server.Start(c.run[0], c.run[1:]...)
			b.must(err)
			t.Cleanup(func() {
				if log, _ := server.Log(); t.Failed() {
					t.Log(log)
				}
				b.must(server.Stop(lab.ctx))
			})
			b.must(b.server.WaitListen(b.ctx, c.port))
			spoken := "silent"
			if strings.Contains(c.says, "|") || c.name == "proftpd" {
				spoken = "spoken"
			}
			intruder, err := b.login.Host.StartAs("mallory", "python3", "-c", client, fmt.Sprint(c.port), c.says, spoken)
			b.must(err)
			t.Cleanup(func() { b.must(intruder.Stop(lab.ctx)) })
			var token string
			told := regexp.MustCompile(c.told)
			b.waits("what it takes for the user's name", func() (bool, error) {
				text, err := b.server.ReadFile(c.log)
				if m := told.FindSubmatch(text); m != nil {
					token = string(m[1])
				}
				return token != "", ignoreMissing(err)
			})
			if _, err := stop.ParseToken(token); err != nil {
				t.Fatal(err)
			}
			_, r, err := b.login.Redeem(b.ctx, token)
			b.must(err)
			if con := r.Report.Connection; con == nil || con.User != "mallory" || r.Report.Request.Remote.Port() != c.port {
				t.Errorf("the report is about port %d, %+v", r.Report.Request.Remote.Port(), con)
			}
		})
	}
}

// stunnel lets in the user whom the ident daemon of the client's host names (ident).
func TestStunnelIdent(t *testing.T) {
	n := newNamesLab(t)
	const conf = `foreground = yes
pid =
[x]
accept = 192.0.2.2:2700
ident = alice
cert = /etc/stunnel/peer.pem
key = /etc/stunnel/peer.key
exec = /bin/echo
execArgs = echo welcome
`
	n.must(n.peer.WriteFile("/etc/stunnel.test", []byte(conf), 0o644, "root"))
	_, err := n.peer.Run(n.ctx, "sh", "-ec", `mkdir -p /etc/stunnel
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=peer -keyout /etc/stunnel/peer.key -out /etc/stunnel/peer.pem`)
	n.must(err)
	server, err := n.peer.Start("stunnel4", "/etc/stunnel.test")
	n.must(err)
	t.Cleanup(func() {
		if log, _ := server.Log(); t.Failed() {
			t.Log(log)
		}
	})
	n.must(n.peer.WaitListen(n.ctx, 2700))
	const client = `import socket, ssl
try:
    s = socket.create_connection(("192.0.2.2", 2700))
    s = ssl._create_unverified_context().wrap_socket(s)
    print(s.recv(100).decode().strip() or "refused")
except OSError:
    print("refused")
`
	got := map[string]string{}
	for _, user := range []string{"alice", "bob"} {
		n.inTime(func() {
			out, err := n.u.Host.RunAs(n.ctx, user, "python3", "-c", client)
			n.must(err)
			got[user] = strings.TrimSpace(string(out))
		})
	}
	if d := cmp.Diff(map[string]string{"alice": "welcome", "bob": "refused"}, got); d != "" {
		t.Errorf("who is let in (-want +got):\n%s", d)
	}
}
