package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// namesPackages are what the hosts run on which names are told.
var namesPackages = []string{"ircd-hybrid", "netcat-openbsd", "postgresql", "openssl", "procps", "python3", "socat", "stunnel4"}

// A namesLab is a host with users, a peer that may have their names unless they forbid it, and a host that may have them
// where they list it.
type namesLab struct {
	t          *testing.T
	ctx        context.Context
	u          *site.Site
	peer, asks *netlab.Host
}

func newNamesLab(t *testing.T) *namesLab {
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	n := &namesLab{t: t, ctx: ctx}
	bin, err := build(ctx)
	n.must(err)
	lab, err := netlab.New(ctx, namesPackages...)
	n.must(err)
	t.Cleanup(func() { n.must(lab.Close()) })
	var hosts []*netlab.Host
	for i, name := range []string{"u", "peer", "asks"} {
		h, err := lab.AddHost(ctx, name, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 24))
		n.must(err)
		for user, uid := range map[string]int{"alice": 2001, "bob": 2002, "victim": 1301} {
			n.must(h.AddUser(user, uid))
		}
		hosts = append(hosts, h)
	}
	n.peer, n.asks = hosts[1], hosts[2]
	n.must(n.asks.Install(filepath.Join(bin, "stopctl"), "/usr/local/bin/stopctl"))
	n.u, err = site.Install(ctx, hosts[0], "-on-behalf", "192.0.2.3/32")
	n.must(err)
	n.must(n.u.Configure("opt_in", "opt_in = true"))
	conf, err := n.u.Host.ReadFile(site.Config)
	n.must(err)
	conf = []byte(strings.Replace(string(conf), "[metrics]\nlisten = \"\"", "[metrics]\nlisten = \"127.0.0.1:9113\"", 1))
	peers := "[[peer]]\nhosts = [\"192.0.2.0/31\", \"192.0.2.2\"]\nsystem = \"UNIX\"\nnames = true\n"
	n.must(n.u.Host.WriteFile(site.Config, append(conf, peers...), 0o600, "root"))
	known, err := n.u.Host.ReadFile("/etc/hosts")
	n.must(ignoreMissing(err))
	n.must(n.u.Host.WriteFile("/etc/hosts", append(known, "192.0.2.3 asks.example\n192.0.2.2 peer.example\n"...), 0o644, "root"))
	text, err := programs.ReadFile("testdata/stall.py")
	n.must(err)
	n.must(n.u.Host.WriteFile("/usr/local/bin/stall", text, 0o755, "root"))
	n.must(n.u.Run(ctx))
	t.Cleanup(func() {
		log, _ := n.u.Daemon.Log()
		for line := range strings.Lines(log) {
			if t.Failed() && !strings.Contains(line, "level=INFO") {
				t.Log(line)
			}
		}
	})
	return n
}

func (n *namesLab) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a shell script of a user's on his host.
func (n *namesLab) sh(user, script string) {
	n.t.Helper()
	_, err := n.u.Host.RunAs(n.ctx, user, "sh", "-c", script)
	n.must(err)
}

// connect has a user connect to a host, and returns the connection.
func (n *namesLab) connect(user string, to *netlab.Host) connection {
	n.t.Helper()
	before, err := connections(n.ctx, n.u.Host)
	n.must(err)
	_, err = n.u.Host.StartAs(user, "nc.openbsd", "-d", to.Addr().String(), fmt.Sprint(victimPort))
	n.must(err)
	var c connection
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) {
		cs, err := connections(n.ctx, n.u.Host)
		cs = slices.DeleteFunc(cs, func(c connection) bool {
			return slices.ContainsFunc(before, func(b connection) bool { return b.local == c.local && b.remote == c.remote })
		})
		if len(cs) == 1 {
			c = cs[0]
		}
		return len(cs) == 1, err
	}))
	return c
}

// reply is what a host is answered about a connection: "SYSTEM : NAME", or TOKEN in place of a name. A token is redeemed.
func (n *namesLab) reply(from *netlab.Host, c connection, suffix string) string {
	n.t.Helper()
	nc := "nc.openbsd -N"
	if strings.Contains(suffix, ".") {
		nc += " -p 1023" // on behalf of others is asked from below 1024
	}
	out, err := from.Run(n.ctx, "sh", "-c", fmt.Sprintf(`printf '%d,%d%s\r\n' | %s %s 113`, c.local.Port(), c.remote.Port(), suffix, nc, n.u.Host.Addr()))
	n.must(err)
	_, said, found := strings.Cut(strings.TrimSuffix(string(out), "\r\n"), fmt.Sprintf("%d , %d : USERID : ", c.local.Port(), c.remote.Port()))
	if !found {
		n.t.Fatalf("reply %q", out)
	}
	system, id, _ := strings.Cut(said, " : ")
	if _, err := stop.ParseToken(id); err != nil {
		return said
	}
	if _, r, err := n.u.Redeem(n.ctx, id); err != nil || r.Report.Kind != report.KindID && r.Report.Kind != report.KindSV || r.Report.Connection == nil {
		n.t.Errorf("token %s stands for %+v, %v", id, r.Report, err)
	}
	return system + " : TOKEN"
}

// unread is how often users' files were not read: in time, or at all.
func (n *namesLab) unread() string {
	n.t.Helper()
	out, err := n.u.Host.Run(n.ctx, "python3", "-c", `import urllib.request
for line in urllib.request.urlopen("http://127.0.0.1:9113/metrics"):
    if line.startswith(b'stopd_bound_reached_total{bound="user_files"}'):
        print(line.split()[1].decode())`)
	n.must(err)
	if len(out) == 0 {
		n.t.Fatal("there is no metric of users' files")
	}
	return string(out)
}

// inTime has a question asked until users' files were read in time for it.
func (n *namesLab) inTime(ask func()) {
	n.t.Helper()
	for {
		before := n.unread()
		ask()
		if n.unread() == before {
			return
		}
	}
}

// clear leaves nothing in alice's home.
func (n *namesLab) clear() {
	n.t.Helper()
	_, err := n.u.Host.Run(n.ctx, "sh", "-c", "umount -l /home/alice/.ident 2>/dev/null; rm -rf /home/alice && install -d -o alice -g alice -m 700 /home/alice")
	n.must(err)
}

// Real users' files on a host whose daemon runs as an administrator would have it.
func TestOptIn(t *testing.T) {
	n := newNamesLab(t)
	for _, h := range []*netlab.Host{n.peer, n.asks} {
		n.must(startVictim(n.ctx, h, victimPort))
	}
	alices, bobs, alicesPeer := n.connect("alice", n.asks), n.connect("bob", n.asks), n.connect("alice", n.peer)
	before, err := n.u.Answered(n.ctx)
	n.must(err)
	asked := 0
	is := func(what string, from *netlab.Host, c connection, suffix, want string) {
		t.Helper()
		for began := time.Now(); ; {
			var got string
			n.inTime(func() { asked++; got = n.reply(from, c, suffix) })
			if got != want && strings.HasSuffix(got, " : TOKEN") && time.Since(began) < time.Minute {
				continue // it may have been too slow to look the account up as well
			}
			if got != want {
				t.Errorf("%s: %q, not %q", what, got, want)
			}
			return
		}
	}
	const token, alice = "OTHER : TOKEN", "OTHER : alice"
	const peerToken, peerAlice = "UNIX : TOKEN", "UNIX : alice"
	is("no files", n.asks, alices, "", token)
	is("no files, peer", n.peer, alicesPeer, "", peerAlice)
	is("no files, peer, SV", n.peer, alicesPeer, " : SV", peerToken)
	n.sh("alice", "echo 192.0.2.3 >~/.ident")
	is("listed", n.asks, alices, "", alice)
	is("listed, type given", n.asks, alices, " : ID", alice)
	is("listed, SV", n.asks, alices, " : SV", token)
	is("listed, ID_REC", n.asks, alices, " : ID_REC : 7", token)
	asked++
	out, err := n.asks.Run(n.ctx, "stopctl", "request", "-for", "192.0.2.3", n.u.Host.Addr().String(), fmt.Sprint(alices.local.Port()), fmt.Sprint(victimPort))
	n.must(err)
	if _, r, err := n.u.Redeem(n.ctx, strings.TrimSpace(string(out))); err != nil || r.Report.Kind != report.KindID || r.Report.Connection == nil {
		t.Errorf("listed, on behalf: %q stands for %+v, %v", out, r.Report, err)
	}
	is("another's list", n.asks, bobs, "", token)
	n.sh("alice", "printf '# my hosts\\n198.51.100.7\\n 192.0.2.0/24 # the site\\n' >~/.ident")
	is("prefix", n.asks, alices, "", alice)
	n.sh("alice", "echo 192.0.2.2 >~/.ident")
	is("another host is listed", n.asks, alices, "", token)
	// A name is looked up for the next time.
	n.sh("alice", "echo Asks.example >~/.ident")
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) { asked++; return n.reply(n.asks, alices, "") == alice, nil }))
	n.sh("alice", "echo nobody.invalid >~/.ident")
	is("a name of nobody", n.asks, alices, "", token)
	// A rule that hides from a host by name hides from all until it is known whose name it is.
	n.sh("alice", "echo 'to asks.example { hide }' >~/.oidentd.conf")
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) { asked++; return n.reply(n.peer, alicesPeer, "") == peerAlice, nil }))
	n.sh("alice", "echo 'to peer.example { hide }' >~/.oidentd.conf")
	is("hidden by name", n.peer, alicesPeer, "", peerToken)

	list, other := "echo 192.0.2.3 >~/.ident", "echo 192.0.2.0/24 >/tmp/bobs; chmod 644 /tmp/bobs"
	n.sh("bob", other)
	for _, tt := range []struct{ name, root, script, want, peer string }{
		{".noident", "", list + "; touch ~/.noident", token, peerToken},
		{"hide", "", list + "; echo 'global { hide }' >~/.oidentd.conf", token, peerToken},
		{"hide in .config", "", list + "; mkdir ~/.config; echo 'global { hide }' >~/.config/oidentd.conf", token, peerToken},
		{"hide from the peer", "", list + "; echo 'to 192.0.2.2 { hide }' >~/.oidentd.conf", alice, peerToken},
		{"hide another port", "", list + "; echo 'fport 7001: { hide }' >~/.oidentd.conf", alice, peerAlice},
		{"another answer", "", list + "; echo 'global { reply \"root\" }' >~/.oidentd.conf", token, peerToken},
		{"rules without sense", "", list + "; echo 'hide' >~/.oidentd.conf", token, peerToken},
		{"list is a FIFO", "", "mkfifo ~/.ident", token, peerAlice},
		{"rules are a FIFO", "", list + "; mkfifo ~/.oidentd.conf", token, peerToken},
		{"link to another's list", "", "ln -s /tmp/bobs ~/.ident", token, peerAlice},
		{"link to another's rules", "", list + "; ln -s /tmp/bobs ~/.oidentd.conf", token, peerToken},
		{"link to shadow", "", "ln -s /etc/shadow ~/.ident", token, peerAlice},
		{"link to a device", "", "ln -s /dev/zero ~/.ident", token, peerAlice},
		{"hard link to another's list", "echo 192.0.2.3 >/home/theirs; chown bob /home/theirs; ln /home/theirs /home/alice/.ident", "", token, peerAlice},
		{"device", "mknod -m 666 /home/alice/.ident c 1 5", "", token, peerAlice},
		{"device by bind", "mount --bind /dev/zero /home/alice/.ident", list, token, peerAlice},
		{"1 GiB", "", list + "; truncate -s 1G ~/.ident", token, peerAlice},
		{"rules of 1 GiB", "", list + "; truncate -s 1G ~/.oidentd.conf", token, peerToken},
		{"no permission", "", list + "; chmod 0 ~/.ident", token, peerAlice},
		{"rules without permission", "", list + "; touch ~/.oidentd.conf; chmod 0 ~/.oidentd.conf", token, peerToken},
		{"everybody may write", "", list + "; chmod 666 ~/.ident", token, peerAlice},
		{"list is a directory", "", "mkdir ~/.ident", token, peerAlice},
		{"home may not be entered", "", list + "; chmod 0 ~", token, peerToken},
		{"home is root's", "chown root: /home/alice; chmod 700 /home/alice", list, token, peerToken},
		{"no home", "rm -rf /home/alice", "", token, peerAlice},
		{"home is a FIFO", "rm -rf /home/alice; mkfifo -m 666 /home/alice", "", token, peerAlice},
	} {
		n.clear()
		n.sh("alice", tt.script)
		_, err := n.u.Host.Run(n.ctx, "sh", "-c", tt.root)
		n.must(err)
		is(tt.name, n.asks, alices, "", tt.want)
		is(tt.name+", peer", n.peer, alicesPeer, "", tt.peer)
	}

	// Alice serves her home herself, and does not answer. She gets tokens, in time; bob is not kept waiting.
	n.clear()
	n.sh("bob", list)
	stall, err := n.u.Host.Start("stall", "/home/alice", "2001")
	n.must(err)
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) {
		log, err := stall.Log()
		return strings.Contains(log, "mounted"), err
	}))
	for range 8 {
		began, before := time.Now(), n.unread()
		asked += 2
		if a, b := n.reply(n.asks, alices, ""), n.reply(n.peer, alicesPeer, ""); a != token || b != peerToken {
			t.Errorf("home that does not answer: %q, peer: %q", a, b)
		}
		if took := time.Since(began); took > time.Minute { // two clients, and a machine as loaded as may be
			t.Errorf("after %s", took)
		}
		if n.unread() == before {
			t.Error("files that were not read are not counted")
		}
		is("bob beside", n.asks, bobs, "", "OTHER : bob")
	}
	_, err = n.u.Host.Run(n.ctx, "umount", "-f", "-l", "/home/alice")
	n.must(err)
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) {
		out, err := n.u.Host.Run(n.ctx, "pgrep", "-U", "alice", "-x", "stopd")
		return len(out) == 0, ignoreExit(err)
	}))
	// Each answer was saved, whatever it was.
	after, err := n.u.Answered(n.ctx)
	n.must(err)
	if after-before != asked {
		t.Errorf("%d answers to %d questions are saved", after-before, asked)
	}
}

// PostgreSQL lets in whom his host's ident daemon names (pg_hba.conf, ident).
func TestPostgreSQLIdent(t *testing.T) {
	n := newNamesLab(t)
	for user, uid := range map[string]int{"postgres": 981} {
		if err := n.peer.AddSystemUser(user, uid); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	const initialize = `rm -rf /var/lib/pg && install -d -o postgres /var/lib/pg &&
		setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/initdb -D /var/lib/pg -A trust >/dev/null &&
		printf 'local all all trust\nhost all all 192.0.2.1/32 ident\n' >/var/lib/pg/pg_hba.conf`
	_, err := n.peer.Run(n.ctx, "sh", "-c", initialize)
	n.must(err)
	postgres, err := n.peer.StartAs("postgres", "/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/pg", "-k", "/tmp", "-h", "192.0.2.2")
	n.must(err)
	n.must(n.peer.WaitListen(n.ctx, 5432))
	n.must(netlab.WaitFor(n.ctx, func() (bool, error) {
		_, err := n.peer.Run(n.ctx, "psql", "-h", "/tmp", "-U", "postgres", "-c", "create role alice login; create role bob login", "postgres")
		return err == nil, nil
	}))
	t.Cleanup(func() {
		if log, _ := postgres.Log(); t.Failed() {
			t.Log(log)
		}
	})
	enters := func(user, as string) (who string) {
		n.inTime(func() {
			out, err := n.u.Host.RunAs(n.ctx, user, "psql", "-h", "192.0.2.2", "-U", as, "-Atc", "select current_user", "postgres")
			if who = strings.TrimSpace(string(out)); err != nil {
				who = "refused"
			}
		})
		return who
	}
	got := map[string]string{"alice": enters("alice", "alice"), "bob": enters("bob", "bob"), "bob as alice": enters("bob", "alice")}
	n.sh("alice", "touch ~/.noident")
	got["alice, hidden"] = enters("alice", "alice")
	want := map[string]string{"alice": "alice", "bob": "bob", "bob as alice": "refused", "alice, hidden": "refused"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("who entered (-want +got):\n%s", d)
	}
	if answered, err := n.u.Answered(n.ctx); err != nil || answered < 4 {
		t.Errorf("%d answers are saved, %v", answered, err)
	}
}

// ircd-hybrid believes an ident daemon only where the system is UNIX.
func TestHybridIdent(t *testing.T) {
	n := newNamesLab(t)
	modules, err := n.peer.Run(n.ctx, "sh", "-c", "echo /usr/lib/*/ircd-hybrid/modules")
	n.must(err)
	conf := strings.ReplaceAll(`serverinfo { name = "irc.example"; description = "test"; network_name = "test"; network_description = "test"; sid = "0AA"; };
admin { name = "a"; description = "a"; email = "a@irc.example"; };
class { name = "users"; ping_time = 2 minutes; max_number = 100; sendq = 100 kbytes; };
listen { host = "192.0.2.2"; port = 6667; };
auth { user = "*@*"; class = "users"; };
general { disable_auth = no; throttle_count = 100; };
modules { path = "MODULES"; path = "MODULES/autoload"; };
`, "MODULES", strings.TrimSpace(string(modules)))
	n.must(n.peer.WriteFile("/etc/ircd.conf", []byte(conf), 0o644, "root"))
	// The server looks for the client's name first, and waits long for an answer.
	const nobody = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.2", 53))
while True:
    question, by = s.recvfrom(512)
    s.sendto(question[:2] + b"\x81\x83" + question[4:], by)
`
	n.must(n.peer.WriteFile("/etc/resolv.conf", []byte("nameserver 192.0.2.2\n"), 0o644, "root"))
	_, err = n.peer.Start("python3", "-c", nobody)
	n.must(err)
	_, err = n.peer.Run(n.ctx, "sh", "-c", "mkdir -p /var/lib/ircd-hybrid /run/ircd; chown victim /var/lib/ircd-hybrid /run/ircd")
	n.must(err)
	ircd, err := n.peer.StartAs("victim", "/usr/sbin/ircd-hybrid", "-foreground", "-configfile", "/etc/ircd.conf", "-pidfile", "/run/ircd/pid", "-logfile", "/run/ircd/log")
	n.must(err)
	t.Cleanup(func() {
		if log, _ := ircd.Log(); t.Failed() {
			t.Log(log)
		}
	})
	n.must(n.peer.WaitListen(n.ctx, 6667))
	const client = `import socket, sys
s = socket.create_connection(("192.0.2.2", 6667))
s.sendall(b"NICK nick\r\nUSER said 0 * :x\r\n")
for line in s.makefile():
    word = line.split()
    if word[0] == "PING":
        s.sendall(b"PONG " + word[1].encode() + b"\r\n")
    if word[1] == "001":
        s.sendall(b"WHOIS nick\r\n")
    if word[1] in ("311", "ERROR") or word[0] == "ERROR":
        sys.exit(print(line.split()[4] if word[1] == "311" else line))
`
	known := func() (name string) {
		n.inTime(func() {
			out, err := n.u.Host.RunAs(n.ctx, "alice", "python3", "-c", client)
			n.must(err)
			name = strings.TrimSpace(string(out))
		})
		return name
	}
	got := map[string]string{"UNIX": known()}
	n.must(n.u.Configure("system", `system = "OTHER"`))
	n.must(n.u.Daemon.Stop(n.ctx))
	n.must(n.u.Run(n.ctx))
	got["OTHER"] = known()
	if d := cmp.Diff(map[string]string{"UNIX": "alice", "OTHER": "~said"}, got); d != "" {
		t.Errorf("who the server takes alice for (-want +got):\n%s", d)
	}
}
