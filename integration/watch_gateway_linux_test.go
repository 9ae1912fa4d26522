package integration

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
)

// many opens connections and holds them.
const many = `import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
for i in range(int(sys.argv[3])):
    held.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
print("open", flush=True)
time.sleep(100000)
`

// held accepts connections and holds them.
const held = `import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
l = socket.create_server(("", int(sys.argv[1])), backlog=4096)
held = []
while True:
    held.append(l.accept())
`

// A gateway masks a host with many users, and asks it about each connection that it opens. Who complains knows the gateway's address
// alone, and a port of it.
func TestWatchGateway(t *testing.T) {
	connections := 400
	if os.Getenv("STOPD_SOAK") != "" {
		connections = 4000
	}
	b := newBorder(t, "nftables", "python3")
	b.must(b.server.WriteFile("/usr/local/bin/held.py", []byte(held), 0o755, "root"))
	_, err := b.server.Start("sh", "-c", fmt.Sprintf("echo 4096 >/proc/sys/net/core/somaxconn; exec python3 /usr/local/bin/held.py %d", victimPort))
	b.must(err)
	b.must(b.server.WaitListen(b.ctx, victimPort))
	run := func(h *netlab.Host, command string) string {
		t.Helper()
		out, err := h.Run(b.ctx, "sh", "-ec", command)
		b.must(err)
		return string(out)
	}
	// The server is in a network of its own behind the sensor, which is the gateway now.
	run(b.server, "ip addr add 198.51.100.2/24 dev eth0; ip route add 192.0.2.1/32 via 198.51.100.3")
	run(b.sensor, `ip addr add 198.51.100.3/24 dev eth0
		echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects; echo 0 >/proc/sys/net/ipv4/conf/eth0/send_redirects; echo 1 >/proc/sys/net/ipv4/ip_forward
		nft add table ip nat; nft add chain ip nat out '{ type nat hook postrouting priority srcnat; }'
		nft add rule ip nat out ip saddr 192.0.2.1 ip daddr 198.51.100.2 masquerade`)
	run(b.login.Host, "ip route add 198.51.100.0/24 via 192.0.2.3; echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects")
	// It answers one gateway about all its connections.
	for key, line := range map[string]string{"per_source_per_second": "per_source_per_second = 10000", "burst": "burst = 10000", "per_user_per_second": "per_user_per_second = 10000",
		"user_burst": "user_burst = 10000", "connections_per_source": "connections_per_source = 1000"} {
		b.must(b.login.Configure(key, line))
	}
	b.must(b.login.Daemon.Stop(b.ctx))
	b.must(b.login.Run(b.ctx))
	const rules = `hosts = ["192.0.2.0/24"]
tokens = "/var/lib/tokens.db"
position = "/var/lib/watch.position"
[limits]
at_once = 32
timeout = "60s"
age = "1h"
retries = 100
host_per_second = 10000
network_per_second = 10000
[[rule]]
input = ["conntrack"]
destination = ["198.51.100.0/24"]
ask = "both"
type = "ID"
`
	b.must(b.sensor.WriteFile("/etc/stopd/watch.toml", []byte(rules), 0o600, "root"))
	d, err := b.sensor.Start("/usr/local/bin/stopctl", "watch", "-json", "-conntrack")
	b.must(err)
	t.Cleanup(func() {
		if log, _ := d.Log(); t.Failed() {
			t.Log(log[max(0, len(log)-4000):])
		}
	})
	b.waits("it listens", func() (bool, error) {
		out, err := b.sensor.Run(b.ctx, "sh", "-c", "cat /proc/net/netlink")
		groups := false
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 3 && f[1] == "12" && f[3] != "00000000" { // NETLINK_NETFILTER
				groups = true
			}
		}
		return groups, err
	})
	b.must(b.login.Host.WriteFile("/usr/local/bin/many.py", []byte(many), 0o755, "root"))
	bobs, err := b.login.Host.Start("sh", "-c", fmt.Sprintf("ulimit -n 8192; exec setpriv --reuid=bob --regid=bob --clear-groups python3 /usr/local/bin/many.py 198.51.100.2 %d %d", victimPort, connections))
	b.must(err)
	b.waits("bob's connections", func() (bool, error) {
		log, err := bobs.Log()
		return strings.Contains(log, "open"), err
	})
	bobsOwn := b.sockets(victimPort)
	_, err = b.login.Host.StartAs("mallory", "python3", "/usr/local/bin/many.py", "198.51.100.2", fmt.Sprint(victimPort), "1")
	b.must(err)
	var mallorys string
	b.waits("mallory's connection", func() (bool, error) {
		for ends := range b.sockets(victimPort) {
			if !bobsOwn[ends] {
				mallorys = ends[0].String()
			}
		}
		return mallorys != "", nil
	})
	w := &watched{b, d}
	as := w.answers(connections + 1)
	first, last := as[0].Seen, as[0].Asked
	for _, a := range as[:connections] {
		if a.Seen.Before(first) {
			first = a.Seen
		}
		if a.Asked.After(last) {
			last = a.Asked
		}
	}
	t.Logf("%d connections asked about in %s", connections, last.Sub(first).Round(time.Millisecond))
	tokens := map[string]bool{}
	for _, a := range as {
		if a.Error != "" || a.Input != "conntrack" || !strings.HasPrefix(a.Host, "192.0.2.1:") {
			t.Fatalf("%+v", a)
		}
		tokens[a.Token] = true
	}
	if len(tokens) != connections+1 {
		t.Errorf("%d tokens of %d connections", len(tokens), connections+1)
	}

	// The server's administrator sees the gateway's address.
	found := map[string]int{}
	lines := run(b.server, fmt.Sprintf("ss -Htn state established sport = :%d", victimPort))
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		far, err := netip.ParseAddrPort(strings.Replace(strings.Replace(f[3], "[::ffff:", "", 1), "]", "", 1))
		b.must(err)
		if far.Addr() != netip.MustParseAddr("198.51.100.3") {
			t.Fatalf("the server sees %s", far)
		}
		if far.Port()%50 != 0 && found["bob"] > 0 { // some of them are enough
			continue
		}
		out, err := b.sensor.Run(b.ctx, "/usr/local/bin/stopctl", "tokens", "-at", time.Now().UTC().Format(time.RFC3339), far.String())
		b.must(err)
		if strings.Count(string(out), "\n") != 1 {
			t.Fatalf("%s is found as %q", far, out)
		}
		for _, a := range as {
			if strings.Contains(string(out), a.Token) {
				user, _ := b.names(a.Token)
				found[user]++
			}
		}
	}
	if found["bob"] == 0 || found["carol"] != 0 {
		t.Errorf("whom they lead to: %v", found)
	}
	for _, a := range as {
		if a.Source != mallorys {
			continue
		}
		if user, _ := b.names(a.Token); user != "mallory" {
			t.Errorf("mallory's connection leads to %s", user)
		}
		found["mallory"]++
	}
	if found["mallory"] == 0 {
		t.Error("mallory's connection was not asked about")
	}
}
