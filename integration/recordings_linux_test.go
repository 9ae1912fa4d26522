package integration

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// Recordings of busy hosts, for tests that replay them, are made anew by "make generate". They need more packages
// than the other tests.
var record = flag.Bool("record", false, "record busy hosts into testdata/recordings")

// A truth is what is known of one connection that leaves a recorded host: who made it, and through which
// connections they had come.
type truth struct {
	Who      string           `json:"who"`
	Local    netip.AddrPort   `json:"local"`
	Remote   netip.AddrPort   `json:"remote"`
	Previous []netip.AddrPort `json:"previous"`
}

// A recorder is at one host that is going to be recorded.
type recorder struct {
	t      *testing.T
	ctx    context.Context
	on     *site.Site
	truths []truth
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	if !*record {
		t.Skip("not told to record")
	}
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	return &recorder{t: t, ctx: ctx}
}

func (r *recorder) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// save records the host and what is known of it.
func (r *recorder) save(name string) {
	r.t.Helper()
	text, err := r.on.Stopctl(r.ctx, "record")
	r.must(err)
	rec, err := host.ParseRecording([]byte(text))
	r.must(err)
	dir := "../testdata/recordings"
	r.must(os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, name+".json.gz"))
	r.must(err)
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	r.must(err)
	r.must(json.NewEncoder(z).Encode(rec))
	r.must(z.Close())
	b, err := json.MarshalIndent(r.truths, "", " ")
	r.must(err)
	r.must(os.WriteFile(filepath.Join(dir, name+".truth.json"), append(b, '\n'), 0o644))
	r.t.Logf("%d processes, %d sockets, %d truths, %d gaps", len(rec.Processes), len(rec.Sockets), len(r.truths), len(rec.Gaps))
}

// established waits for a connection of the host by its remote port, and its local one unless that is 0.
func (r *recorder) established(local, remote uint16) connection {
	r.t.Helper()
	var found connection
	err := netlab.WaitFor(r.ctx, func() (bool, error) {
		cs, err := connections(r.ctx, r.on.Host)
		for _, c := range cs {
			if c.remote.Port() == remote && (local == 0 || c.local.Port() == local) {
				found = c
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		r.t.Fatalf("connection from %d to %d: %v", local, remote, err)
	}
	return found
}

// knows notes who made a connection, which has these ports, and came by these.
func (r *recorder) knows(who string, local, remote uint16, previous ...netip.AddrPort) {
	r.t.Helper()
	c := r.established(local, remote)
	r.truths = append(r.truths, truth{who, c.local, c.remote, append([]netip.AddrPort{}, previous...)})
}

var sshConnection = regexp.MustCompile(`LOGIN=([0-9a-f.:]+) (\d+) `)

// login logs a user in, and returns the session and the other end of its connection as sshd tells it.
func (r *recorder) login(from *site.Site, user string) (*netlab.Session, netip.AddrPort) {
	r.t.Helper()
	session, err := netlab.Open(from.Host.CommandAs(r.ctx, user, "ssh", "-4", "-tt", r.on.Host.Name))
	r.must(err)
	r.t.Cleanup(func() { _ = session.Close() })
	r.must(session.Send(`echo "LOGIN""=$SSH_CONNECTION lo""gged in"`))
	said, err := session.Expect(r.ctx, "logged in")
	r.must(err)
	return session, r.cameBy(said)
}

// cameBy returns the other end of a login's connection, from what the login's environment says.
func (r *recorder) cameBy(said string) netip.AddrPort {
	r.t.Helper()
	m := sshConnection.FindStringSubmatch(said)
	if m == nil {
		r.t.Fatalf("no login in %q", said)
	}
	came, err := netip.ParseAddrPort(net.JoinHostPort(m[1], m[2]))
	r.must(err)
	return came
}

func (r *recorder) send(session *netlab.Session, lines ...string) {
	r.t.Helper()
	for _, l := range lines {
		r.must(session.Send(l))
	}
}

// TestRecordSystemd records b of a world of its own, on which much more is going on: PostgreSQL and nginx with
// clients, rsyslog that sends the log to another host, nscd, cron, tmux, editors, a build, and a session of the
// real mallory beside the intruder's.
func TestRecordSystemd(t *testing.T) {
	r := newRecorder(t)
	w := &world{systemd: true}
	packages := append([]string{"nginx-light", "nscd", "postgresql", "rsyslog", "vim-tiny"}, systemdPackages...)
	r.must(w.settle(r.ctx, packages))
	r.on = w.b
	b := w.b.Host
	const collector = 7002
	r.must(startVictim(r.ctx, w.c.Host, collector))
	r.truths = append(r.truths, r.carols())
	r.services(w, collector)

	// bob works in tmux: an editor, a database client, and a connection with another host.
	session, came := r.login(w.d, "bob")
	r.send(session, "TERM=xterm tmux new -s work 'vi /tmp/notes' \\; new-window 'psql -h /tmp -U bob postgres' \\; new-window bash")
	r.send(session, fmt.Sprintf("nc.traditional -p 31001 %s %d", w.c.Host.Addr(), innocentPort))
	r.knows("bob, in tmux", 31001, innocentPort, came)
	// dave builds, and fetches something meanwhile.
	session, came = r.login(w.d, "dave")
	r.send(session, "sh -c 'while :; do cat /dev/null | sort | sleep 1; done' | tee /tmp/build.log | cat >/dev/null &",
		fmt.Sprintf("tail -f /dev/null | nc.traditional -p 31002 %s %d | cat", w.c.Host.Addr(), innocentPort))
	r.knows("dave, beside a build", 31002, innocentPort, came)
	// The real mallory, and then the intruder, are on the same user's message bus.
	r.must(w.lab.Trust(r.ctx, "mallory", w.d.Host, b))
	session, came = r.login(w.d, "mallory")
	r.send(session, "busctl --user monitor >/dev/null &", "systemd-run --user --unit=notes sleep infinity",
		fmt.Sprintf("nc.traditional -p 31003 %s %d", w.c.Host.Addr(), innocentPort))
	r.knows("the real mallory", 31003, innocentPort, came)
	session, came = r.login(w.a, "mallory")
	r.send(session, "busctl --user monitor >/dev/null &", "nc.openbsd -U "+database+" </dev/zero >/dev/null &", "logger hello",
		"exec 9<>"+logFIFO, fmt.Sprintf("nc.traditional -p 31004 %s %d", w.c.Host.Addr(), victimPort))
	r.knows("the intruder as mallory", 31004, victimPort, came)
	session, came = r.login(w.a, "mallory")
	r.send(session, fmt.Sprintf("systemd-run --user --pty nc.traditional -p 31005 %s %d", w.c.Host.Addr(), victimPort))
	r.knows("the intruder, through the user's service manager", 31005, victimPort, came)
	// A relay that was left behind.
	session, _ = r.login(w.a, "mallory")
	r.send(session, fmt.Sprintf("setsid -f sh -c 'nc.traditional -l -p 31100 | nc.traditional -p 31006 %s %d' </dev/null >/dev/null 2>&1", w.c.Host.Addr(), victimPort), "exit")
	_ = session.Wait(r.ctx)
	r.must(b.WaitListen(r.ctx, 31100))
	relay, err := netlab.Open(w.a.Host.CommandAs(r.ctx, "mallory", "nc.traditional", b.Addr().String(), "31100"))
	r.must(err)
	t.Cleanup(func() { _ = relay.Close() })
	var in connection
	r.must(netlab.WaitFor(r.ctx, func() (bool, error) {
		cs, err := connections(r.ctx, b)
		for _, c := range cs {
			if c.local.Port() == 31100 {
				in = c
			}
		}
		return in.remote.IsValid(), err
	}))
	r.knows("a relay of the intruder's", 31006, victimPort, in.remote)
	// Nobody is behind these.
	r.knows("rsyslog", 0, collector)
	r.knows("a monitor that the administrator has set up", 31007, innocentPort)
	r.save("systemd")
}

// carols is the connection of carol's that all worlds have: its truth is read from the shell that made it.
func (r *recorder) carols() truth {
	r.t.Helper()
	c := r.established(0, innocentPort)
	environ, err := r.on.Host.Run(r.ctx, "sed", "-z", "-n", "s/^SSH_CONNECTION=/LOGIN=/p", fmt.Sprintf("/proc/%d/environ", c.pids[0]))
	r.must(err)
	return truth{"carol", c.local, c.remote, []netip.AddrPort{r.cameBy(string(environ))}}
}

// services starts what a busy host has.
func (r *recorder) services(w *world, collector uint16) {
	r.t.Helper()
	b := w.b.Host
	for user, uid := range map[string]int{"postgres": 981, "www-data": 33} {
		if err := b.AddSystemUser(user, 500+uid); err != nil && !os.IsExist(err) {
			r.t.Log(err) // the machine has it
		}
	}
	const initialize = `rm -rf /var/lib/pg && install -d -o postgres /var/lib/pg &&
		setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/initdb -D /var/lib/pg -A trust >/dev/null`
	_, err := b.Run(r.ctx, "sh", "-c", initialize)
	r.must(err)
	r.must(w.serve(r.ctx, "postgres", "/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/pg", "-k", "/tmp"))
	r.must(b.WaitListen(r.ctx, 5432))
	_, err = b.Run(r.ctx, "psql", "-h", "/tmp", "-U", "postgres", "-c", "create role bob login; create role web login", "postgres")
	r.must(err)
	for range 3 {
		r.must(w.serve(r.ctx, "web", "sh", "-c", "tail -f /dev/null | psql -h 127.0.0.1 -U web postgres"))
	}
	const nginx = `worker_processes 2; user web; pid /run/nginx.pid; error_log /var/log/nginx-error.log;
events {} http { access_log /var/log/nginx.log; keepalive_timeout 10m;
server { listen 80; location / { proxy_pass http://127.0.0.1:8080; } } }
`
	r.must(b.WriteFile("/etc/nginx/nginx.conf", []byte(nginx), 0o644, "root"))
	forward := fmt.Sprintf("module(load=\"imuxsock\")\n*.* action(type=\"omfwd\" target=\"%s\" port=\"%d\" protocol=\"tcp\")\n*.* /var/log/syslog\n", w.c.Host.Addr(), collector)
	r.must(b.WriteFile("/etc/rsyslog.conf", []byte(forward), 0o644, "root"))
	_, err = b.Run(r.ctx, "mkdir", "-p", "/var/lib/nginx", "/var/spool/rsyslog", "/var/lib/rsyslog", "/var/cache/nscd", "/run/nscd")
	r.must(err)
	for _, unit := range []string{"nginx", "rsyslog", "cron", "nscd"} {
		if _, err := b.Run(r.ctx, "systemctl", "enable", "--now", unit); err != nil {
			log, _ := b.Run(r.ctx, "journalctl", "--no-pager", "-u", unit)
			r.t.Fatalf("%v: %s", err, log)
		}
	}
	_, err = b.Run(r.ctx, "logger", "hello")
	r.must(err)
	const request = `GET / HTTP/1.1\r\nHost: b\r\n\r\n`
	_, err = w.d.Host.StartAs("dave", "clients", "b:80:12:"+request)
	r.must(err)
	_, err = b.Run(r.ctx, "systemd-run", "--quiet", "--unit=monitor", "sh", "-c",
		fmt.Sprintf("tail -f /dev/null | logger & tail -f /dev/null | nc.traditional -p 31007 %s %d", w.c.Host.Addr(), innocentPort))
	r.must(err)
}
