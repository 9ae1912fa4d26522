package trace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A systemdHost makes up the processes of a host that systemd started, and the channels between them. It is synthetic:
// what holds what was taken from running systems, the numbers are not. Services write to journald through streams
// that are shut down one way, or through /dev/log; many speak over D-Bus; logind reads one FIFO of each session.
type systemdHost struct {
	ps map[int]*host.Process
}

const (
	journald = 300
	bus      = 400
	logind   = 410
	sshd     = 700
)

// start starts a process.
func (h systemdHost) start(pid, ppid int, uid uint32, name string) int {
	p := as(uid, process(pid, ppid))
	p.Name, p.RUser = name, map[uint32]string{0: "root", 101: "messagebus", 1000: "alice", 1001: "bob", 1002: "carol"}[uid]
	h.ps[pid] = &p
	return pid
}

func (h systemdHost) hold(pid int, ds ...host.Descriptor) {
	p := h.ps[pid]
	for _, d := range ds {
		d.FDs = []int{len(p.Descriptors)}
		p.Descriptors = append(p.Descriptors, d)
	}
}

// speak connects a process to a listener of another.
func (h systemdHost) speak(pid, to int, path string) {
	c, s := unix(fmt.Sprintf("%s of %d", path, pid), path)
	h.hold(pid, c)
	h.hold(to, s)
}

// stream is what a service's output goes to. The first process keeps journald's end as well.
func (h systemdHost) stream(pid int) {
	c, s := unix(fmt.Sprintf("stdout of %d", pid), "/run/systemd/journal/stdout")
	h.hold(pid, with(host.Write, c))
	h.hold(journald, with(host.Read, s))
	h.hold(1, with(host.Read, s))
}

// syslog is a socket without a name that is connected to /dev/log.
func (h systemdHost) syslog(pid int) {
	c, s := unix(fmt.Sprintf("syslog of %d", pid), "/dev/log")
	c.Mode, c.Type, c.Peer = host.Write, "dgram", "/dev/log"
	s.Object, s.Peer, s.Type = "/dev/log", "", "dgram"
	h.hold(pid, c)
	for _, p := range []int{1, journald} {
		if !slices.ContainsFunc(h.ps[p].Descriptors, func(d host.Descriptor) bool { return d.Object == "/dev/log" }) {
			h.hold(p, s)
		}
	}
}

// session is an ssh session: the monitor, which is root's, the user's own sshd, and a shell with a command.
func (h systemdHost) session(pid, n int, uid uint32, remote string) (command int) {
	monitor := h.start(pid, sshd, 0, "sshd")
	child := h.start(pid+1, monitor, uid, "sshd")
	shell := h.start(pid+2, child, uid, "bash")
	command = h.start(pid+3, shell, uid, "ssh")
	pair, pair2 := unix(fmt.Sprint("monitor ", n), "")
	master, slave := pty(n)
	reference := fifo(fmt.Sprintf("/run/systemd/sessions/%d.ref", n), host.Write)
	h.hold(monitor, in(22, remote), pair, master, reference)
	h.hold(child, in(22, remote), pair2, master)
	h.hold(shell, slave)
	h.hold(command, slave)
	h.hold(logind, with(host.Read, reference))
	h.speak(monitor, bus, "/run/dbus/system_bus_socket")
	return command
}

// newSystemdHost makes a host with a number of services beside those that it always has. Alice holds the asked
// connection.
func newSystemdHost(services int) *host.Replay {
	h := systemdHost{ps: map[int]*host.Process{}}
	h.start(1, 0, 0, "systemd")
	h.start(journald, 1, 0, "systemd-journal")
	h.start(bus, 1, 101, "dbus-daemon")
	h.start(logind, 1, 0, "systemd-logind")
	h.start(sshd, 1, 0, "sshd")
	h.hold(sshd, listen(22), pipe("sshd startup", host.Read))
	for _, pid := range []int{bus, logind, sshd} {
		h.stream(pid)
	}
	for i := range services {
		pid := h.start(500+i, 1, uint32(i%3)*50, fmt.Sprint("service", i))
		h.stream(pid)
		h.syslog(pid)
		h.speak(pid, bus, "/run/dbus/system_bus_socket")
	}
	h.speak(1, bus, "/run/dbus/system_bus_socket")
	h.speak(logind, bus, "/run/dbus/system_bus_socket")

	cron := h.start(800, 1, 0, "cron")
	job := h.start(802, h.start(801, cron, 0, "cron"), 1001, "sh")
	h.stream(cron)
	h.syslog(cron)
	h.hold(801, pipe("output of a job", host.Read))
	h.hold(job, pipe("output of a job", host.Write), out(41000, "203.0.113.80:443", "job"))

	nginx := h.start(900, 1, 0, "nginx")
	h.hold(nginx, listen(443))
	for i := range 2 {
		worker := h.start(901+i, nginx, 33, "nginx")
		a, b := unix(fmt.Sprint("nginx channel ", i), "")
		h.hold(nginx, a)
		h.hold(worker, listen(443), b)
		for j := range 5 {
			h.hold(worker, in(443, fmt.Sprintf("203.0.113.90:%d", 50000+10*i+j)))
		}
		h.speak(worker, h.start(910+i, 1, 33, "app"), fmt.Sprintf("/run/app%d", i))
		h.stream(910 + i)
	}

	h.session(2000, 1, 1001, other)
	command := h.session(2100, 2, 1000, attacker)
	h.hold(h.session(2200, 3, 1002, third), out(41001, "203.0.113.81:22", "carol's"))
	h.hold(command, asked())
	// Somebody is just logging in.
	h.start(2300, sshd, 0, "sshd")
	h.hold(2300, in(22, "203.0.113.99:54000"), pipe("sshd startup", host.Write))

	var ps []host.Process
	for _, p := range h.ps {
		ps = append(ps, *p)
	}
	slices.SortFunc(ps, func(a, b host.Process) int { return a.PID - b.PID })
	return recording(ps...)
}

// One user's connection out leads to that user's connection in, and to nobody else's, whether the services that
// everybody speaks to have many clients or few.
func TestSystemd(t *testing.T) {
	want := summary{Owners: []int{2103}, Previous: []string{attacker + " inbound"}, Gaps: none}
	for _, services := range []int{40, 20, 12, 5, 1, 0} {
		t.Run(fmt.Sprint(services, " services"), func(t *testing.T) {
			r := run(t, newSystemdHost(services))
			if d := cmp.Diff(want, summarize(r, want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			t.Logf("%d processes, %d channels", len(r.Processes), len(r.Channels))
		})
	}
}

func TestSystemdHubs(t *testing.T) {
	r := run(t, newSystemdHost(20))
	var hubs []string
	for _, c := range r.Channels {
		if strings.HasPrefix(c.Why, "hub") {
			hubs = append(hubs, channelText(c))
		}
	}
	want := []string{
		"unix 410 w, 1 r, 300 r: hub: more than 16 processes of others",
		"unix 410 rw, 400 rw: hub: more than 16 processes of others",
		"unix 2000 rw, 400 rw: hub: more than 16 processes of others",
		"unix 2200 rw, 400 rw: hub: more than 16 processes of others",
		"unix 2100 rw, 400 rw: hub: more than 16 processes of others",
	}
	if d := cmp.Diff(want, hubs); d != "" {
		t.Errorf("hubs (-want +got):\n%s", d)
	}
	for _, p := range r.Processes {
		if p.PID == journald || p.PID == bus {
			t.Errorf("%s is in the closure", p.Name)
		}
	}
}
