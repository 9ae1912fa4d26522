package integration

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// A border is a host with many users, a server elsewhere that they reach, and a sensor between the two that may ask on behalf of
// others.
type border struct {
	t              *testing.T
	ctx            context.Context
	login          *site.Site
	server, sensor *netlab.Host
	lab            *netlab.Lab
}

func newBorder(t *testing.T, packages ...string) *border {
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	b := &border{t: t, ctx: ctx}
	bin, err := build(ctx)
	b.must(err)
	b.lab, err = netlab.New(ctx, append([]string{"netcat-openbsd", "procps", "socat"}, packages...)...)
	b.must(err)
	t.Cleanup(func() { b.must(b.lab.Close()) })
	var hosts []*netlab.Host
	for i, name := range []string{"login", "server", "sensor"} {
		h, err := b.lab.AddHost(ctx, name, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i + 1)}), 64))
		b.must(err)
		for user, uid := range map[string]int{"mallory": 1001, "bob": 1002, "carol": 1003, "victim": 1301} {
			b.must(h.AddUser(user, uid))
		}
		hosts = append(hosts, h)
	}
	b.server, b.sensor = hosts[1], hosts[2]
	for _, h := range hosts[1:] {
		b.must(h.Install(filepath.Join(bin, "stopctl"), "/usr/local/bin/stopctl"))
	}
	b.login, err = site.Install(ctx, hosts[0], "-on-behalf", "192.0.2.3/32", "-on-behalf", "2001:db8::3/128")
	b.must(err)
	b.must(b.login.Configure("deadline", `deadline = "8s"`))
	b.must(b.login.Run(ctx))
	return b
}

func (b *border) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *border) waits(what string, state func() (bool, error)) {
	b.t.Helper()
	if err := netlab.WaitFor(b.ctx, state); err != nil {
		b.t.Fatalf("it never came: %s: %v", what, err)
	}
}

// connects has a user of the login host connect to the server, and returns the ends of the connection.
func (b *border) connects(user string, port uint16, six bool) (from, to netip.AddrPort) {
	b.t.Helper()
	addr := b.server.Addrs[0].Addr()
	if six {
		addr = b.server.Addrs[1].Addr()
	}
	before := b.sockets(port)
	_, err := b.login.Host.StartAs(user, "sh", "-c", fmt.Sprintf("sleep infinity | nc.openbsd %s %d", addr, port))
	b.must(err)
	b.waits("a connection of "+user, func() (bool, error) {
		for ends := range b.sockets(port) {
			if _, old := before[ends]; !old && ends[1].Addr() == addr {
				from, to = ends[0], ends[1]
			}
		}
		return from.IsValid(), nil
	})
	return from, to
}

// sockets are the connections of the login host to a port, by ss.
func (b *border) sockets(port uint16) map[[2]netip.AddrPort]bool {
	b.t.Helper()
	out, err := b.login.Host.Run(b.ctx, "ss", "-Htn", "state", "established", "dport", fmt.Sprintf("= :%d", port))
	b.must(err)
	found := map[[2]netip.AddrPort]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		local, err := netip.ParseAddrPort(f[2])
		b.must(err)
		remote, err := netip.ParseAddrPort(f[3])
		b.must(err)
		found[[2]netip.AddrPort{local, remote}] = true
	}
	return found
}

// names redeems a token on the login host, and returns whose connection it is about.
func (b *border) names(token string) (user string, r report.Redeemed) {
	b.t.Helper()
	_, r, err := b.login.Redeem(b.ctx, token)
	b.must(err)
	if r.Report.Connection == nil || r.Report.Connection.User == "" {
		b.t.Fatalf("%s is about nobody: %s", token, r.Report.Reason)
	}
	return r.Report.Connection.User, r
}

// Passwords of the server are guessed from a host on which others work with the same server. fail2ban's log has the token of who
// guessed, and it names him; beside it is that of who mistyped once, and which of them is which.
func TestFail2ban(t *testing.T) {
	b := newBorder(t, append([]string{"fail2ban", "rsyslog"}, netlab.SSHPackages...)...)
	const config = "/etc/ssh/passwords"
	_, err := b.server.StartSSHD(b.ctx) // makes its key and its user
	b.must(err)
	b.must(b.lab.Trust(b.ctx, "bob", b.login.Host, b.server))
	b.must(b.server.WriteFile(config, []byte("Port 2222\nHostKey /etc/ssh/netlab_host_key\nPidFile none\nUsePAM no\nLoginGraceTime 0\nMaxAuthTries 6\nKbdInteractiveAuthentication no\nUseDNS no\n"), 0o644, "root"))
	b.must(b.server.WriteFile("/etc/rsyslog-test.conf", []byte("module(load=\"imuxsock\")\nauth,authpriv.* action(type=\"omfile\" file=\""+authLog+"\" template=\"RSYSLOG_TraditionalFileFormat\")\n"), 0o644, "root"))
	_, err = b.server.Start("rsyslogd", "-n", "-f", "/etc/rsyslog-test.conf", "-i", "/run/rsyslog-test.pid")
	b.must(err)
	b.waits("a log", func() (bool, error) {
		_, err := b.server.Run(b.ctx, "test", "-S", "/dev/log")
		return err == nil, nil
	})
	b.must(b.server.WriteFile(authLog, nil, 0o640, "root"))
	_, err = b.server.Start("/usr/sbin/sshd", "-D", "-f", config)
	b.must(err)
	b.must(b.server.WaitListen(b.ctx, 2222))
	b.must(b.server.Install("../deploy/fail2ban/stopd.py", "/etc/fail2ban/action.d/stopd.py"))
	jail := "[DEFAULT]\nbackend = polling\n[sshd]\nenabled = true\nlogpath = " + authLog + "\nmaxretry = 3\nmaxmatches = 20\naction = stopd.py[port=2222]\n"
	b.must(b.server.WriteFile("/etc/fail2ban/jail.local", []byte(jail), 0o644, "root"))
	_, err = b.server.Run(b.ctx, "mkdir", "-p", "/run/fail2ban", "/var/lib/fail2ban")
	b.must(err)
	f2b, err := b.server.Start("/usr/bin/fail2ban-server", "-f", "-b", "--logtarget", "/var/log/fail2ban.log", "start")
	b.must(err)
	banned := func() string {
		log, err := b.server.ReadFile("/var/log/fail2ban.log")
		b.must(ignoreMissing(err))
		return string(log)
	}
	t.Cleanup(func() {
		if out, _ := f2b.Log(); t.Failed() {
			auth, _ := b.server.ReadFile(authLog)
			t.Logf("%s\n%s\n%s", out, banned(), auth)
		}
	})
	b.waits("the jail", func() (bool, error) { return strings.Contains(banned(), "Jail 'sshd' started"), nil })

	// Bob is logged in by the same server.
	bob, err := netlab.Open(b.login.Host.CommandAs(b.ctx, "bob", "ssh", "-p", "2222", "-o", "HostKeyAlias=server", b.server.Addr().String()))
	b.must(err)
	t.Cleanup(func() { bob.Close() })
	b.must(bob.Send("echo logged'' in"))
	_, err = bob.Expect(b.ctx, "logged in")
	b.must(err)
	bobs := b.sockets(2222)
	if len(bobs) != 1 {
		t.Fatalf("bob has %v", bobs)
	}
	var bobsPort uint16
	for ends := range bobs {
		bobsPort = ends[0].Port()
	}

	// Carol mistypes once. Then mallory guesses three times in one connection. Both think about what to try next. The name that he
	// tries is bob's connection.
	const guess = `#!/bin/sh
echo x >>/tmp/guesses.$USER
[ $(wc -l </tmp/guesses.$USER) -le $GUESSES ] || exec sleep infinity
echo wrong
`
	b.must(b.login.Host.WriteFile("/usr/local/bin/guess", []byte(guess), 0o755, "root"))
	guesses := func(user, name string, n int) {
		_, err := b.login.Host.StartAs(user, "setsid", "env", "USER="+user, fmt.Sprintf("GUESSES=%d", n), "SSH_ASKPASS=/usr/local/bin/guess", "SSH_ASKPASS_REQUIRE=force", "ssh", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=6", "-p", "2222", "-l", name, b.server.Addr().String())
		b.must(err)
	}
	guesses("carol", "victim", 1)
	b.waits("a failure in fail2ban's log", func() (bool, error) { return strings.Contains(banned(), "Found 192.0.2.1"), nil })
	guesses("mallory", fmt.Sprintf("root from %s port %d ssh2", b.login.Host.Addr(), bobsPort), 3)
	said := regexp.MustCompile(`token of 192\.0\.2\.1 port (\d+) \((\d+) of (\d+) matches\): (s[a-z2-7]{52})`)
	var found [][]string
	b.waits("two tokens in fail2ban's log", func() (bool, error) {
		found = said.FindAllStringSubmatch(banned(), -1)
		if strings.Contains(banned(), "no token of") {
			return false, fmt.Errorf("fail2ban got none")
		}
		return len(found) >= 2, nil
	})
	failures := map[string]string{}
	for _, m := range found {
		user, r := b.names(m[4])
		if m[1] == fmt.Sprint(bobsPort) {
			t.Errorf("bob's port is asked about, and it names %s", user)
		}
		failures[user] = m[2]
		if d := cmp.Diff("SV_REC", r.Report.Request.Type); d != "" {
			t.Error(d)
		}
	}
	if len(found) != 2 || failures["carol"] != "1" || failures["mallory"] == "" || failures["mallory"] == "1" {
		t.Errorf("the log has %v, of %v", found, failures)
	}
}
