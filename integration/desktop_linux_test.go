package integration

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
)

// desktop is what a display manager starts for a user, and what the user starts then.
const desktop = `#!/bin/sh
exec >/tmp/desktop.log 2>&1
export DISPLAY=:9 DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus NO_AT_BRIDGE=0
Xvfb :9 -screen 0 800x600x24 &
while [ ! -e /tmp/.X11-unix/X9 ]; do sleep 0.1; done
dbus-update-activation-environment --systemd DISPLAY
openbox &
pulseaudio --daemonize=no --exit-idle-time=-1 &
/usr/libexec/at-spi-bus-launcher --launch-immediately &
/usr/libexec/gvfsd &
xterm -e sh -c 'nc.traditional -p 31201 %[1]s %[2]d; sleep infinity' &
xterm -e 'tail -f /dev/null' &
chromium --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update \
	--user-data-dir=/tmp/alice-chromium http://%[1]s:8001/ &
wait
`

// page keeps connections with several servers open.
func page(server string, ports ...int) string {
	var b strings.Builder
	b.WriteString("<html><body>")
	for _, p := range ports {
		fmt.Fprintf(&b, `<script>fetch("http://%s:%d/")</script>`, server, p)
	}
	return b.String()
}

// TestRecordDesktop records b of a world of its own where alice sits at a desktop: a display, a window manager,
// terminals, sound, accessibility, mounts, and a browser with several connections. An intruder is logged in as
// alice by ssh, and uses her display and message bus.
func TestRecordDesktop(t *testing.T) {
	r := newRecorder(t)
	w := &world{systemd: true}
	r.must(w.settle(r.ctx, append([]string{"at-spi2-core", "chromium", "dbus-bin", "gvfs", "gvfs-daemons", "openbox", "pulseaudio", "xterm", "xvfb"}, systemdPackages...)))
	r.on = w.b
	b := w.b.Host
	r.truths = append(r.truths, r.carols())
	for _, h := range []*netlab.Host{w.a.Host, b, w.d.Host} {
		r.must(h.AddUser("alice", 1110))
	}
	r.must(w.lab.Trust(r.ctx, "alice", w.a.Host, b))
	ports := []int{8001, 8002, 8003}
	r.must(w.c.Host.WriteFile("/srv/web/index.html", []byte(page(w.c.Host.Addr().String(), ports...)), 0o644, "root"))
	for _, p := range ports {
		_, err := w.c.Host.StartAs("victim", "python3", "-m", "http.server", "--protocol", "HTTP/1.1", "-d", "/srv/web", fmt.Sprint(p))
		r.must(err)
		r.must(w.c.Host.WaitListen(r.ctx, uint16(p)))
	}
	r.must(b.WriteFile("/usr/local/bin/desktop", fmt.Appendf(nil, desktop, w.c.Host.Addr(), innocentPort), 0o755, "root"))
	r.must(b.WriteFile("/etc/pam.d/desktop", []byte("auth required pam_permit.so\naccount required pam_permit.so\n@include common-session\n"), 0o644, "root"))
	_, err := b.Run(r.ctx, "systemd-run", "--quiet", "--unit=display-manager", "--uid=alice", "-p", "PAMName=desktop",
		"--setenv=XDG_SESSION_TYPE=x11", "--setenv=XDG_SESSION_CLASS=user", "--setenv=HOME=/home/alice", "/usr/local/bin/desktop")
	r.must(err)
	t.Cleanup(func() {
		if log, err := os.ReadFile(b.Path("/tmp/desktop.log")); t.Failed() && err == nil {
			t.Logf("%s", log)
		}
	})
	r.knows("alice, in a terminal of her desktop", 31201, innocentPort)
	for _, p := range ports {
		r.established(0, uint16(p))
	}
	session, came := r.login(w.a, "alice")
	r.send(session, "export DISPLAY=:9", "busctl --user monitor >/dev/null &", "xterm -e 'tail -f /dev/null' &",
		fmt.Sprintf("nc.traditional -p 31202 %s %d", w.c.Host.Addr(), victimPort))
	r.knows("the intruder as alice", 31202, victimPort, came)
	session, came = r.login(w.d, "bob")
	r.send(session, fmt.Sprintf("nc.traditional -p 31203 %s %d", w.c.Host.Addr(), innocentPort))
	r.knows("bob", 31203, innocentPort, came)
	cs, err := connections(r.ctx, b)
	r.must(err)
	for _, c := range cs {
		if p := c.remote.Port(); p >= 8001 && p <= 8003 {
			r.truths = append(r.truths, truth{fmt.Sprintf("alice's browser, from port %d", c.local.Port()), c.local, c.remote, []netip.AddrPort{}})
		}
	}
	r.save("desktop")
}
