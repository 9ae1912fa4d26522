package integration

import (
	"context"
	"fmt"
	"slices"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// space is a network namespace of b, with a name.
type space struct {
	s    *stage
	name string
}

func (s *stage) space(name string) space {
	s.t.Helper()
	s.root("ip", "netns", "add", name)
	s.t.Cleanup(func() { s.cleanly("ip", "netns", "delete", name) })
	n := space{s, name}
	n.run("ip", "link", "set", "lo", "up")
	n.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	return n
}

// root runs a command of root on b.
func (s *stage) root(argv ...string) {
	s.t.Helper()
	_, err := s.b.Host.Run(s.ctx, argv[0], argv[1:]...)
	s.must(err)
}

// cleanly runs a command of root on b when the stage has ended.
func (s *stage) cleanly(argv ...string) { s.cleanlyOn(s.b, argv...) }

// cleanlyOn is cleanly on another site.
func (s *stage) cleanlyOn(at *site.Site, argv ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
	defer cancel()
	if _, err := at.Host.Run(ctx, argv[0], argv[1:]...); err != nil {
		s.t.Error(err)
	}
}

func (n space) enter(argv ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + n.name}, argv...)
}

func (n space) run(argv ...string) {
	n.s.t.Helper()
	n.s.root(n.enter(argv...)...)
}

// on starts a program of a user in the namespace.
func (n space) on(user, name string, args ...string) *netlab.Daemon {
	n.s.t.Helper()
	argv := n.enter(append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", name}, args...)...)
	d := n.s.on(n.s.b, "root", argv[0], argv[1:]...)
	n.s.t.Cleanup(func() { n.s.stop(d) })
	return d
}

func (s *stage) stop(d *netlab.Daemon) {
	ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		s.t.Error(err)
	}
}

func (n space) connections() ([]connection, error) {
	return connectionsBy(n.s.ctx, n.s.b.Host, n.enter("ss")...)
}

// one waits until the namespace has exactly one connection for which cond holds.
func (n space) one(what string, cond func(connection) bool) connection {
	n.s.t.Helper()
	var found []connection
	n.s.wait(what+" in "+n.name, func() (bool, error) {
		cs, err := n.connections()
		found = slices.DeleteFunc(cs, func(c connection) bool { return len(c.pids) == 0 || !cond(c) })
		return len(found) == 1, err
	})
	return found[0]
}

// listening waits until something listens on a port in the namespace.
func (n space) listening(port uint16) {
	n.s.t.Helper()
	n.s.wait(fmt.Sprintf("wait for port %d in %s", port, n.name), func() (bool, error) {
		out, err := n.s.b.Host.Run(n.s.ctx, "nsenter", "--net=/run/netns/"+n.name, "ss", "-tlnH", "sport", "=", fmt.Sprint(port))
		return len(out) > 0, err
	})
}

// joined makes a veth pair between two namespaces; the first may be b's own, without a name.
func (s *stage) joined(a space, link string, b space, addrs ...string) {
	s.t.Helper()
	add := []string{"ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", b.name}
	remove := []string{"ip", "link", "delete", link}
	if a.name != "" {
		add, remove = a.enter(add...), a.enter(remove...)
	}
	s.root(add...)
	// With its namespace it would go later.
	s.t.Cleanup(func() { s.cleanly(remove...) })
	b.run("ip", "link", "set", "eth0", "up")
	for _, x := range addrs {
		b.run("ip", "address", "add", x, "dev", "eth0", "nodad")
	}
}
