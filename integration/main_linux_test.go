package integration

import (
	"context"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// victimPort is where the hosts that are reached listen.
const victimPort = 7000

// packages are what the hosts of the lab run, besides what every Debian system has.
var packages = append([]string{"apache2-bin", "at", "cron", "dante-server", "gunicorn", "haproxy", "inetutils-telnet", "libnginx-mod-stream", "mosh", "nginx", "nmap", "netcat-openbsd",
	"netcat-traditional", "nftables", "oidentd", "openbsd-inetd", "procps", "python3", "rsyslog", "screen", "socat", "stunnel4", "sudo", "supervisor", "tmux"}, netlab.SSHPackages...)

//go:embed testdata/*.py
var programs embed.FS

// A world is a lab with the hosts of every scenario: an attacker comes from a through the stepping stone b to
// the victim c. Innocent people of d work on b, and g is a gateway or one host more.
type world struct {
	lab           *netlab.Lab
	a, b, c, d, g *site.Site
	behind        []*site.Site // hosts more, which others reach by b alone
	// innocents are the connections between b and d once everybody is at work.
	innocents int
	rows      int
	bin       string
	// systemd is true where b's first process is systemd.
	systemd bool
}

// A sharedWorld is made when the first test asks for it.
type sharedWorld struct {
	once  sync.Once
	world *world
	err   error
}

var (
	shared, sharedSystemd sharedWorld

	ends []func() error // in the order to be undone from the last
)

func TestMain(m *testing.M) {
	netlab.Init()
	lookBothWays()
	code := m.Run()
	for i := len(ends) - 1; i >= 0; i-- {
		if err := ends[i](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// theWorld returns the lab that all tests of the package share.
func theWorld(t *testing.T) *world {
	t.Helper()
	return shared.made(t, newWorld)
}

func (s *sharedWorld) made(t *testing.T, make func(context.Context) (*world, error)) *world {
	t.Helper()
	netlab.Require(t)
	s.once.Do(func() {
		// It lives longer than any one test.
		ctx, cancel := context.WithCancel(context.Background())
		ends = append(ends, func() error { cancel(); return nil })
		start := time.Now()
		s.world, s.err = make(ctx)
		t.Logf("lab made in %s", time.Since(start).Round(time.Millisecond))
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.world
}

func newWorld(ctx context.Context) (*world, error) {
	w := &world{}
	return w, w.settle(ctx, packages)
}

// settle makes the hosts of a world, and puts everybody to work who has nothing to do with an intruder.
func (w *world) settle(ctx context.Context, packages []string) error {
	bin, err := build(ctx)
	if err != nil {
		return err
	}
	w.bin = bin
	if w.lab, err = netlab.New(ctx, packages...); err != nil {
		return err
	}
	ends = append(ends, w.lab.Close)
	for i, s := range []**site.Site{&w.a, &w.b, &w.c, &w.d, &w.g} {
		v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 24)
		v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i + 1)}), 64)
		add := w.lab.AddHost
		if w.systemd && i == 1 {
			add = w.lab.AddSystemdHost
		}
		h, err := add(ctx, string("abcdg"[i]), v4, v6)
		if err != nil {
			return err
		}
		// The gateway may ask on behalf of others.
		if *s, err = w.addSite(ctx, h, "-on-behalf", "192.0.2.5/32"); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		user     string
		from, to *site.Site
	}{{"mallory", w.a, w.b}, {"mallory", w.b, w.c}, {"bob", w.d, w.b}, {"carol", w.d, w.b}, {"dave", w.d, w.b}} {
		if err := w.lab.Trust(ctx, t.user, t.from.Host, t.to.Host); err != nil {
			return err
		}
	}
	for _, s := range []*site.Site{w.c, w.g} {
		if err := startVictim(ctx, s.Host, victimPort); err != nil {
			return err
		}
	}
	return w.startInnocents(ctx)
}

// build makes the programs from the sources at hand: what lies in bin/ may be older.
func build(ctx context.Context) (string, error) {
	if site.Dir != "" {
		return site.Dir, nil
	}
	dir, err := os.MkdirTemp("", "stopd-integration-")
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	ends = append(ends, func() error { return os.RemoveAll(dir) })
	out, err := exec.CommandContext(ctx, "go", "build", "-o", dir, "../cmd/stopd", "../cmd/stopctl", "./testdata/fixed", "./testdata/goproxy").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build programs: %w: %s", err, out)
	}
	site.Dir = dir
	return dir, nil
}

// addSite gives a host everybody's accounts, sshd, stopd and the programs of testdata. Who may ask on behalf of others is said as stopctl
// init is told.
func (w *world) addSite(ctx context.Context, h *netlab.Host, onBehalf ...string) (*site.Site, error) {
	for user, uid := range users {
		if err := h.AddUser(user, uid); err != nil {
			return nil, err
		}
	}
	entries, err := programs.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		text, err := programs.ReadFile("testdata/" + e.Name())
		if err != nil {
			return nil, err
		}
		name := "/usr/local/bin/" + strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if err := h.WriteFile(name, text, 0o755, "root"); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := h.Install(self, lookName); err != nil {
		return nil, err
	}
	for _, name := range []string{"fixed", "goproxy"} {
		if err := h.Install(filepath.Join(w.bin, name), "/usr/local/bin/"+name); err != nil {
			return nil, err
		}
	}
	if !h.Systemd() {
		if _, err := h.StartSSHD(ctx); err != nil {
			return nil, err
		}
	}
	s, err := site.Install(ctx, h, onBehalf...)
	if err != nil {
		return nil, err
	}
	// A host without a link does not answer: no need to wait for it for long.
	if err := s.Configure("timeout", `timeout = "1s"`); err != nil {
		return nil, err
	}
	if err := s.Configure("mode", `mode = "require"`); err != nil {
		return nil, err
	}
	// The default's 2 s are for a host with processors of its own. Who asks waits 10 s.
	if err := s.Configure("deadline", `deadline = "8s"`); err != nil {
		return nil, err
	}
	if h.Systemd() {
		return s, startUnit(ctx, s)
	}
	return s, s.Run(ctx)
}

// startUnit starts stopd as an administrator would have systemd start it, in its sandbox.
func startUnit(ctx context.Context, s *site.Site) error {
	for _, name := range []string{"stopd.service", "stopd.socket"} {
		if err := s.Host.Install("../deploy/"+name, "/etc/systemd/system/"+name); err != nil {
			return err
		}
	}
	where := "[Service]\nExecStart=\nExecStart=/usr/local/bin/stopd -config " + site.Config + "\nReadWritePaths=" + filepath.Dir(site.Store) + "\n"
	if err := s.Host.WriteFile("/etc/systemd/system/stopd.service.d/site.conf", []byte(where), 0o644, "root"); err != nil {
		return err
	}
	for _, args := range [][]string{{"daemon-reload"}, {"start", "stopd"}} {
		if _, err := s.Host.Run(ctx, "systemctl", args...); err != nil {
			return err
		}
	}
	return nil
}

// startVictim starts a listener that keeps whatever anybody says to it.
func startVictim(ctx context.Context, h *netlab.Host, port uint16) error {
	_, err := h.StartAs("victim", "socat", "-u", fmt.Sprintf("TCP6-LISTEN:%d,ipv6only=0,reuseaddr,fork,backlog=64", port),
		"OPEN:"+received+",creat,append")
	if err != nil {
		return err
	}
	return h.WaitListen(ctx, port)
}
