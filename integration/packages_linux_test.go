package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/netlab"
)

// packaged makes the packages of this source in a directory, and returns that of Debian and that of RPM.
func packaged(ctx context.Context, t *testing.T, source, dist string, environment ...string) (deb, rpm []byte) {
	t.Helper()
	epoch, err := exec.CommandContext(ctx, "git", "-C", "..", "log", "-1", "--format=%ct").Output()
	if err != nil {
		t.Fatalf("git log: %v", err)
	}
	// What umask(1) the builder has, and where he is, does not show.
	cmd := exec.CommandContext(ctx, "sh", "-c", "umask 077 && exec deploy/packages/make "+runtime.GOARCH)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), append(environment, "DIST="+dist, "SOURCE_DATE_EPOCH="+strings.TrimSpace(string(epoch)))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make packages: %v\n%s", err, out)
	}
	one := func(pattern string) []byte {
		found, err := filepath.Glob(filepath.Join(dist, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return one("*.deb"), one("*.rpm")
}

// upgrade makes a higher version of a package of Debian, with another default configuration.
func upgrade(ctx context.Context, t *testing.T, deb []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.deb"), deb, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", `dpkg-deb -R 1.deb two
		sed -i 's/^Version: .*/Version: 99-1/' two/DEBIAN/control
		sed -i '/etc.stopd/d' two/DEBIAN/md5sums
		echo '# another default' >>two/etc/stopd/stopd.toml
		dpkg-deb --root-owner-group -Zgzip -z1 -b two 2.deb`)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a higher version: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "2.deb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// copied is a copy of the source, elsewhere.
func copied(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, "sh", "-c", `git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$0"`, dir)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy source: %v\n%s", err, out)
	}
	return dir
}

// A packageHost is a host on which an administrator installs packages.
type packageHost struct {
	t   *testing.T
	ctx context.Context
	h   *netlab.Host
}

// sh runs a command line of the administrator, and returns all that it says.
func (p packageHost) sh(line string, args ...any) string {
	p.t.Helper()
	line = fmt.Sprintf(line, args...)
	out, err := p.h.Command(p.ctx, "sh", "-e", "-c", "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8\n"+line).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// says runs a command line and looks for something in what it says.
func (p packageHost) says(want, line string, args ...any) {
	p.t.Helper()
	if out := p.sh(line, args...); !strings.Contains(out, want) {
		p.t.Errorf("%s: no %q in:\n%s", fmt.Sprintf(line, args...), want, out)
	}
}

// kept are the hashes of what has to survive everything.
func (p packageHost) kept() string {
	p.t.Helper()
	return p.sh("cd /var/lib/stopd && find . -type f ! -name '*.past' -exec sha256sum {} + | sort -k2 && stat -c '%%a %%n' . store log.key tls.key")
}

// A package is the same bytes whoever makes it. That of Debian has what docs/packages.md lists, and is installed, upgraded and removed without a word
// of the store being lost: where no service manager runs, and by systemd. That of RPM is, by rpm itself and systemd.
func TestPackages(t *testing.T) {
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	lab, err := netlab.New(ctx, append([]string{"rpm"}, systemdPackages...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	deb, rpm := packaged(ctx, t, "..", t.TempDir())
	again, rpmAgain := packaged(ctx, t, copied(ctx, t), t.TempDir(), "TZ=Pacific/Auckland", "LC_ALL=C.UTF-8")
	if !bytes.Equal(deb, again) || !bytes.Equal(rpm, rpmAgain) {
		t.Errorf("the same source made other packages: of Debian %t, of RPM %t", !bytes.Equal(deb, again), !bytes.Equal(rpm, rpmAgain))
	}
	higher := upgrade(ctx, t, deb)
	_, rpmHigher := packaged(ctx, t, "..", t.TempDir(), "VERSION=99")
	host := func(t *testing.T, add func(context.Context, string, ...netip.Prefix) (*netlab.Host, error), name, addr string) packageHost {
		t.Helper()
		h, err := add(ctx, name, netip.MustParsePrefix(addr))
		if err != nil {
			t.Fatal(err)
		}
		p := packageHost{t, ctx, h}
		for name, content := range map[string][]byte{"/root/1.deb": deb, "/root/2.deb": higher, "/root/1.rpm": rpm, "/root/2.rpm": rpmHigher} {
			if err := h.WriteFile(name, content, 0o644, "root"); err != nil {
				t.Fatal(err)
			}
		}
		// A container leaves documentation out, and forbids packages to start anything.
		p.sh("rm -f /etc/dpkg/dpkg.cfg.d/* /usr/sbin/policy-rc.d")
		return p
	}
	t.Run("no service manager", func(t *testing.T) { t.Parallel(); host(t, lab.AddHost, "p", "192.0.2.1/24").without() })
	t.Run("systemd", func(t *testing.T) { t.Parallel(); host(t, lab.AddSystemdHost, "s", "192.0.2.2/24").with() })
	t.Run("rpm", func(t *testing.T) { t.Parallel(); host(t, lab.AddSystemdHost, "r", "192.0.2.3/24").rpm() })
}

// recipient is somebody's public key.
const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

// without is an installation where nobody starts services.
func (p packageHost) without() {
	t := p.t
	p.says("no systemd runs here", "dpkg -i /root/1.deb")
	listed := map[string]string{}
	page, err := os.ReadFile("../docs/packages.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\| (/\S+) \| (\d+) \|`).FindAllStringSubmatch(string(page), -1) {
		listed[m[1]] = m[2] + " root root"
	}
	found := map[string]string{}
	for line := range strings.Lines(p.sh("dpkg -L stopd | while read f; do [ -d $f ] && [ $f != /etc/stopd ] || stat -c '%%n %%a %%U %%G' $f; done")) {
		name, mode, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[name] = mode
	}
	if d := cmp.Diff(listed, found); d != "" {
		t.Errorf("docs/packages.md (-) and what is installed (+):\n%s", d)
	}
	p.sh("getent passwd stopd && test -z \"$(dpkg --verify stopd)\" && test ! -e /var/lib/stopd/store && test ! -e /var/lib/stopd/log.key")
	p.says("700 root", "stat -c '%%a %%U' /var/lib/stopd")

	p.sh(`sed -i 's/^recipients = .*/recipients = ["%s"] # mine/' /etc/stopd/stopd.toml && stopctl init -config /etc/stopd/stopd.toml && stopd -check`, recipient)
	store := p.kept()
	p.sh("dpkg --force-confold -i /root/2.deb")
	p.says("99-1", "dpkg-query -W stopd")
	p.sh("grep '# mine' /etc/stopd/stopd.toml && ! grep 'another default' /etc/stopd/stopd.toml && grep 'another default' /etc/stopd/stopd.toml.dpkg-dist")
	p.sh("dpkg -r stopd && test ! -e /usr/sbin/stopd && grep '# mine' /etc/stopd/stopd.toml")
	p.says("it holds evidence", "dpkg -P stopd")
	p.sh("test ! -e /etc/stopd/stopd.toml")
	if d := cmp.Diff(store, p.kept()); d != "" {
		t.Errorf("the store before (-) and after (+):\n%s", d)
	}
}

// with is an installation by systemd, of who configures it afterwards and of who does so before.
func (p packageHost) with() {
	t := p.t
	const active = "systemctl is-active stopd.socket && systemctl is-active stopd.service"
	p.says("not started. read configuration /etc/stopd/stopd.toml: recipients is empty", "dpkg -i /root/1.deb")
	p.sh("! systemctl is-enabled stopd.socket stopd.service && ! systemctl is-active stopd.socket stopd.service && test ! -e /var/lib/stopd/store")
	p.sh("systemd-analyze verify --man=no stopd.service stopd.socket")
	p.sh("dpkg -P stopd && ! ls /var/lib/stopd/* && rmdir /var/lib/stopd")

	p.sh(`mkdir -p /etc/stopd && umask 077 && echo 'recipients = ["%s"]' >/etc/stopd/stopd.toml`, recipient)
	p.says("Its pin", "dpkg --force-confold -i /root/1.deb")
	p.sh("systemctl is-enabled stopd.socket && systemctl is-enabled stopd.service && " + active)
	answers := func() {
		t.Helper()
		p.says("NO-USER", "stopctl request 192.0.2.2 1 2 || test $? = 4")
	}
	answers()
	p.sh("stopctl audit")
	keys := "cat /var/lib/stopd/log.key /var/lib/stopd/tls.key"
	had, pid := p.sh(keys), p.sh("systemctl show --value -p MainPID stopd.service")
	p.sh("dpkg --force-confold -i /root/2.deb && " + active)
	if is := p.sh("systemctl show --value -p MainPID stopd.service"); is == pid {
		t.Error("it was not restarted")
	}
	answers()
	p.sh("dpkg -r stopd && ! systemctl is-active stopd.socket stopd.service")
	p.says("Connection refused", "bash -c '</dev/tcp/192.0.2.2/113' 2>&1 || true")
	store := p.kept()
	// A store that is there goes on, once its administrator says so.
	p.says("not started, as before", "dpkg --force-confold -i /root/1.deb")
	if d := cmp.Diff(store, p.kept()); d != "" {
		t.Errorf("the store before (-) and after (+):\n%s", d)
	}
	p.sh("systemctl enable --now stopd.socket stopd.service && stopctl audit")
	answers()
	p.says("it holds evidence", "dpkg -P stopd")
	p.sh("! systemctl is-active stopd.socket stopd.service && test -d /var/lib/stopd/store")
	if is := p.sh(keys); is != had {
		t.Error("the host has other keys than at first")
	}
}

// rpm is an installation by rpm and systemd, of who has configured it before.
func (p packageHost) rpm() {
	t := p.t
	const active = "systemctl is-active stopd.socket && systemctl is-active stopd.service"
	p.sh("rm /usr/bin/deb-systemd-invoke") // nobody but Debian has it
	p.sh(`mkdir -p /etc/stopd && umask 077 && echo 'recipients = ["%s"] # mine' >/etc/stopd/stopd.toml`, recipient)
	// Debian's dpkg has installed the shell that the package's scripts need: rpm knows of none.
	p.says("Its pin", "rpm -i --nodeps /root/1.rpm")
	p.sh("grep '# mine' /etc/stopd/stopd.toml && test -e /etc/stopd/stopd.toml.rpmnew")
	p.says("/usr/share/zsh/site-functions/_stopctl", "rpm -ql stopd")
	if changed := p.sh("rpm -V --nodeps stopd || true"); strings.TrimSpace(changed) != "S.5....T.  c /etc/stopd/stopd.toml" {
		t.Errorf("of what was installed this differs:\n%s", changed)
	}
	p.sh("systemctl is-enabled stopd.socket && systemctl is-enabled stopd.service && " + active)
	answers := func() {
		t.Helper()
		p.says("NO-USER", "stopctl request 192.0.2.3 1 2 || test $? = 4")
	}
	answers()
	pid := p.sh("systemctl show --value -p MainPID stopd.service")
	p.sh("rpm -U --nodeps /root/2.rpm && systemctl is-enabled stopd.socket && systemctl is-enabled stopd.service && " + active)
	p.says("99-1", "rpm -q stopd")
	if is := p.sh("systemctl show --value -p MainPID stopd.service"); is == pid {
		t.Error("it was not restarted")
	}
	answers()
	p.sh("stopctl audit && systemctl stop stopd.socket stopd.service")
	store := p.kept()
	p.says("it holds evidence", "rpm -e stopd")
	p.sh("test ! -e /usr/sbin/stopd && ! systemctl is-active stopd.socket stopd.service && ! systemctl is-enabled stopd.socket stopd.service && grep '# mine' /etc/stopd/stopd.toml.rpmsave")
	if d := cmp.Diff(store, p.kept()); d != "" {
		t.Errorf("the store before (-) and after (+):\n%s", d)
	}
}
