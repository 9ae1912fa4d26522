package integration

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

var update = flag.Bool("update", false, "write the outputs of docs/investigating.md, and its picture")

// An investigation is what docs/investigating.md tells of: mallory goes from home through attic, inn and stone to
// files, while alice and bob of cafe work on stone, inn, attic and files.
type investigation struct {
	t     *testing.T
	ctx   context.Context
	lab   *netlab.Lab
	hosts map[string]*netlab.Host
	sites map[string]*site.Site
	// witness cosigns the logs of inn and stone.
	witness *netlab.Daemon
}

func (c *investigation) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *investigation) write(on, path, text, owner string) {
	c.t.Helper()
	c.must(c.hosts[on].WriteFile(path, []byte(text), 0o644, owner))
}

func (c *investigation) read(on, path string) string {
	c.t.Helper()
	b, err := c.hosts[on].ReadFile(path)
	c.must(err)
	return strings.TrimSpace(string(b))
}

func newInvestigation(t *testing.T) *investigation {
	t.Helper()
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	c := &investigation{t: t, ctx: ctx, hosts: map[string]*netlab.Host{}, sites: map[string]*site.Site{}}
	bin, err := build(ctx)
	c.must(err)
	c.lab, err = netlab.New(ctx, append([]string{"netcat-openbsd", "procps", "sqlite3"}, netlab.SSHPackages...)...)
	c.must(err)
	t.Cleanup(func() {
		if err := c.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, h := range []struct {
		name  string
		last  byte
		users string
	}{
		{"border", 1, ""}, {"home", 10, "mallory jdoe"}, {"attic", 20, "mallory bob"}, {"inn", 30, "mallory bob jdoe"}, {"stone", 40, "mallory alice jdoe asmith"},
		{"files", 50, "mallory alice"}, {"cafe", 60, "alice bob"}, {"desk", 70, "jdoe asmith"}, {"witness", 80, ""},
	} {
		host, err := c.lab.AddHost(ctx, h.name, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, h.last}), 24))
		c.must(err)
		c.hosts[h.name] = host
		for _, u := range strings.Fields(h.users) {
			c.must(host.AddUser(u, map[string]int{"mallory": 1001, "alice": 1101, "bob": 1102, "jdoe": 1201, "asmith": 1202}[u]))
		}
		c.must(host.Install(filepath.Join(bin, "stopctl"), "/usr/local/bin/stopctl"))
	}
	for _, name := range []string{"attic", "inn", "stone", "files", "home"} {
		_, err := c.hosts[name].StartSSHD(ctx)
		c.must(err)
	}
	for _, l := range []string{"mallory home attic", "mallory attic inn", "mallory inn stone", "mallory stone files", "alice cafe stone", "alice stone files", "bob cafe inn",
		"bob cafe attic", "jdoe desk stone", "jdoe desk inn", "jdoe desk home", "asmith desk stone"} {
		f := strings.Fields(l)
		c.must(c.lab.Trust(ctx, f[0], c.hosts[f[1]], c.hosts[f[2]]))
	}
	c.daemons()
	c.login("alice", "cafe", "stone", "files")
	c.login("bob", "cafe", "inn")
	c.login("bob", "cafe", "attic")
	c.handOver()
	return c
}

// daemons starts stopd on home, inn and stone; a witness cosigns the logs of the latter two.
func (c *investigation) daemons() {
	c.t.Helper()
	const name, listen = "witness.example/w1", "192.0.2.80:8080"
	public, private, err := ed25519.GenerateKey(nil)
	c.must(err)
	signer, err := torchwood.NewCosignatureSigner(name, private)
	c.must(err)
	sshKey, err := ssh.NewPublicKey(public)
	c.must(err)
	w := c.hosts["witness"]
	serveAgent(c.t, w.Path("/srv/agent"), private)
	c.must(w.Install(buildWitness(c.t), "/usr/local/bin/litewitness"))
	c.witness, err = w.Start("/usr/local/bin/litewitness", "-name", name, "-db", "/srv/db", "-ssh-agent", "/srv/agent", "-key", ssh.FingerprintSHA256(sshKey), "-listen", listen)
	c.must(err)
	c.must(w.WaitListen(c.ctx, 8080))
	policy := ""
	for _, name := range []string{"home", "inn", "stone"} {
		s, err := site.Install(c.ctx, c.hosts[name], "-on-behalf", "192.0.2.1/32")
		c.must(err)
		c.sites[name] = s
		c.must(s.Configure("timeout", `timeout = "5s"`)) // attic answers at once that nobody is there
		c.must(s.Configure("deadline", `deadline = "8s"`))
		key, err := translog.ReadKey(s.Host.Path("/srv/stopd/log.key"))
		c.must(err)
		policy += "log " + key.Public() + "\n"
		if name != "home" {
			_, err := w.Run(c.ctx, "sqlite3", "-cmd", sqliteWaits, "/srv/db", knowsLog(c.t, key.Origin(), key.Public()))
			c.must(err)
			config := c.read(name, site.Config) + fmt.Sprintf("\n[[witness]]\nurl = \"http://%s\"\nkey = %q\n", listen, signer.Verifier())
			c.must(s.Host.WriteFile(site.Config, []byte(config), 0o600, "root"))
		}
		c.must(s.Run(c.ctx))
	}
	c.write("desk", "/home/jdoe/policy", policy+"witness w1 "+signer.Verifier().String()+"\nquorum w1\n", "jdoe")
}

// handOver puts keys where the page has them, off the hosts: nobody can read what is not his.
func (c *investigation) handOver() {
	c.t.Helper()
	for _, k := range []struct{ from, to, path, owner string }{
		{"stone", "desk", "/home/asmith/stone.key", "asmith"}, {"inn", "inn", "/mnt/key/admin.key", "root"}, {"home", "home", "/mnt/key/admin.key", "root"},
	} {
		text := c.read(k.from, site.Identity)
		c.must(c.hosts[k.to].WriteFile(k.path, []byte(text+"\n"), 0o600, k.owner))
		_, err := c.hosts[k.from].Run(c.ctx, "rm", site.Identity)
		c.must(err)
	}
	signer := "jdoe@police.example " + c.read("desk", "/home/jdoe/.ssh/id_ed25519.pub") + "\n"
	c.write("stone", "/etc/stopd/signers", signer, "root")
	c.write("desk", "/home/jdoe/signers", signer, "jdoe")
	_, err := c.hosts["stone"].Run(c.ctx, "mkdir", "-p", "-m", "0700", "/root/.ssh")
	c.must(err)
	c.must(c.hosts["stone"].WriteFile("/root/.ssh/authorized_keys", []byte(c.read("desk", "/home/asmith/.ssh/id_ed25519.pub")+"\n"), 0o600, "root"))
}

// login logs a user in from host to host, and returns the session and the port that the last connection comes from.
func (c *investigation) login(user string, path ...string) (*netlab.Session, uint16) {
	c.t.Helper()
	s, err := netlab.Open(c.hosts[path[0]].CommandAs(c.ctx, user, "bash", "-c", "ssh -tt "+path[1]+"; exit"))
	c.must(err)
	c.t.Cleanup(func() { _ = s.Close() }) // the lab ends it where it does not
	for i, to := range path[1:] {
		if i > 0 {
			c.must(s.Send("ssh -tt " + to))
		}
		_, err := s.Expect(c.ctx, user+"@"+to)
		c.must(err)
	}
	c.must(s.Send("echo came''=$SSH_CONNECTION="))
	_, err = s.Expect(c.ctx, "came=")
	c.must(err)
	out, err := s.Expect(c.ctx, "=")
	c.must(err)
	f := strings.Fields(out)
	if len(f) < 2 {
		c.t.Fatalf("SSH_CONNECTION is %q", out)
	}
	port, err := strconv.ParseUint(f[1], 10, 16)
	c.must(err)
	return s, uint16(port)
}

// settled waits until the trace-backs of who was asked are recorded, and the witness has cosigned them: a person types more slowly.
func (c *investigation) settled() {
	c.t.Helper()
	c.must(netlab.WaitFor(c.ctx, func() (bool, error) {
		for name, s := range c.sites {
			list, err := s.Stopctl(c.ctx, "list", "-store", site.Store)
			if err != nil {
				return false, err
			}
			if asked := name != "home" || strings.Contains(list, " report "); asked && !strings.Contains(list, " traceback ") {
				return false, nil
			}
			if name == "home" { // no witness knows it
				continue
			}
			note, err := s.Host.ReadFile(site.Store + "/log/cosigned")
			var origin string
			var size int
			if err == nil {
				_, err = fmt.Sscanln(strings.Replace(string(note), "\n", " ", 1), &origin, &size)
			}
			if err != nil || size <= strings.Count(list, "\n") {
				return false, ignoreMissing(err)
			}
		}
		return true, nil
	}))
}

// docs/investigating.md: each command of it is run as it stands there, but for what is another in each run, on the host and by the
// user of its prompt, and prints what it prints there.
func TestInvestigation(t *testing.T) {
	const page, picture = "../docs/investigating.md", "../docs/investigating.svg"
	c := newInvestigation(t)
	_, port := c.login("mallory", "home", "attic", "inn", "stone", "files")
	// Sensors and IRC servers are not run: these lines are theirs.
	now := time.Now().In(time.FixedZone("", 3600))
	c.write("border", "/var/log/suricata/eve.json", fmt.Sprintf(`{"timestamp":"%s","event_type":"alert","src_ip":"192.0.2.40","src_port":%d,"dest_ip":"192.0.2.50",`+
		`"dest_port":22,"proto":"TCP","alert":{"signature_id":1000017,"signature":"SSH to files from outside"}}`+"\n", now.Format("2006-01-02T15:04:05.000000-0700"), port), "root")
	c.irc()
	text, err := os.ReadFile(page)
	c.must(err)
	steps, rest := parsePage(string(text))
	if len(steps) < 20 {
		t.Fatalf("%s has %d commands", page, len(steps))
	}
	r := rerun{}
	var written strings.Builder
	for _, s := range steps {
		command := r.command(s.command)
		// What is let out at once has no witness yet, be it that the next checkpoint is due.
		if strings.HasPrefix(command, "stopctl export") {
			c.must(c.witness.Signal(syscall.SIGSTOP))
		}
		printed := c.types(s.user, s.host, command)
		c.must(c.witness.Signal(syscall.SIGCONT))
		if strings.HasPrefix(command, "stopctl request") {
			c.settled()
		}
		if *update {
			written.WriteString(strings.Replace(s.before, s.command, command, 1) + r.write(s.output, printed))
		} else if d := r.same(s.output, printed); d != "" {
			t.Fatalf("%s@%s: %s\n%s\n(-page +printed):\n%s", s.user, s.host, command, printed, d)
		}
		constant, _ := shape(printed) // a token may have any name in it
		for _, innocent := range []string{"alice", "bob", "cafe", "192.0.2.60"} {
			if strings.Contains(constant, innocent) {
				t.Errorf("%s names %s:\n%s", command, innocent, printed)
			}
		}
	}
	svg := c.read("desk", "/home/jdoe/case17.svg") + "\n"
	if *update {
		c.must(os.WriteFile(page, []byte(written.String()+rest), 0o644))
		c.must(os.WriteFile(picture, []byte(svg), 0o644))
		return
	}
	golden, err := os.ReadFile(picture)
	c.must(err)
	if d := r.same(words(string(golden)), words(svg)); d != "" {
		t.Errorf("the picture (-page +drawn):\n%s", d)
	}
}

// words are what a picture says.
func words(svg string) string {
	return regexp.MustCompile(`<style>[^<]*</style>|<[^>]*>`).ReplaceAllString(svg, " ")
}

// types runs a command at a prompt, and returns all that is printed.
func (c *investigation) types(user, host, command string) string {
	c.t.Helper()
	h := c.hosts[host]
	if h == nil {
		c.t.Fatalf("%q: there is no host %q", command, host)
	}
	out, err := h.CommandAs(c.ctx, user, "bash", "-c", command).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s@%s: %s: %v\n%s", user, host, command, err, out)
	}
	return string(out)
}

// irc has mallory connect from stone to an IRC server on border, which asks about it and logs what a name of ten characters can
// hold of the answer.
func (c *investigation) irc() {
	c.t.Helper()
	border, stone := c.hosts["border"], c.hosts["stone"]
	_, err := border.Start("nc.openbsd", "-lk", "6667")
	c.must(err)
	c.must(border.WaitListen(c.ctx, 6667))
	chat, err := netlab.Open(stone.CommandAs(c.ctx, "mallory", "nc.openbsd", "192.0.2.1", "6667"))
	c.must(err)
	c.t.Cleanup(func() { _ = chat.Close() })
	var from netip.AddrPort
	c.must(netlab.WaitFor(c.ctx, func() (bool, error) {
		cs, err := connections(c.ctx, stone)
		for _, x := range cs {
			if x.remote.Port() == 6667 {
				from = x.local
			}
		}
		return from.IsValid(), err
	}))
	out, err := border.Run(c.ctx, "stopctl", "request", from.Addr().String(), strconv.Itoa(int(from.Port())), "6667")
	c.must(err)
	token, err := stop.ParseToken(strings.TrimSpace(string(out)))
	c.must(err)
	c.write("border", "/var/log/ircd.log", fmt.Sprintf("%s Client connecting: red (%s@192.0.2.40)\n",
		time.Now().In(time.FixedZone("", 3600)).Format(time.RFC3339), token.String()[:10]), "root")
}
