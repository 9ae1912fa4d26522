package netlab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// labPrefix begins the id of every lab.
const labPrefix = "netlab-"

// Lab is a switch with hosts on it. Its methods may be called concurrently.
type Lab struct {
	id    string // marks the mounts, and the command lines of the inits
	layer string
	sw    *control

	mu     sync.Mutex
	hosts  []*Host
	made   int // hosts ever made, so that no port or hardware address comes twice
	closed bool
}

// New makes a lab whose hosts have the given Debian packages, besides what is installed on the machine;
// see [Packages]. ctx bounds the making only. The caller closes the lab.
//
// Descriptors above 2 of this process are marked close-on-exec: what runs in a host inherits none.
func New(ctx context.Context, packages ...string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("make lab: must be root: %w", os.ErrPermission)
	}
	for program, pkg := range map[string]string{"ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("make lab: %w (apt-get install %s)", err, pkg)
		}
	}
	l := &Lab{id: labPrefix + rand.Text()}
	if len(packages) > 0 {
		var err error
		if l.layer, err = Packages(ctx, packages...); err != nil {
			return nil, fmt.Errorf("make lab: %w", err)
		}
	}
	if err := closeOnExec(3); err != nil {
		return nil, fmt.Errorf("make lab: %w", err)
	}
	sw, err := startInit(setup{Lab: l.id}, syscall.CLONE_NEWNET)
	if err != nil {
		return nil, fmt.Errorf("make switch: %w", err)
	}
	l.sw = sw
	// Without snooping a multicast packet, such as a neighbour solicitation, reaches every port.
	if err := ipBatch(ctx, l.sw,
		"link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
		"link set br0 up",
	); err != nil {
		return nil, errors.Join(fmt.Errorf("make switch: %w", err), l.Close())
	}
	return l, nil
}

// closeOnExec marks the descriptors from first on. The syscall package does not name close_range(2),
// which has one number on all architectures (include/uapi/asm-generic/unistd.h).
func closeOnExec(first uintptr) error {
	const sysCloseRange, closeRangeCloexec = 436, 1 << 2
	if _, _, errno := syscall.Syscall(sysCloseRange, first, math.MaxUint32, closeRangeCloexec); errno != 0 {
		return os.NewSyscallError("close_range", errno)
	}
	return nil
}

// AddHost makes a host with the given name and addresses, linked to the switch, as eth0.
// All hosts' /etc/hosts name it from then on.
func (l *Lab) AddHost(ctx context.Context, name string, addrs ...netip.Prefix) (*Host, error) {
	return l.addHost(ctx, setup{Hostname: name}, addrs)
}

func (l *Lab) addHost(ctx context.Context, s setup, addrs []netip.Prefix) (*Host, error) {
	name := s.Hostname
	if name == "" || strings.ContainsAny(name, "/ \t\n#") {
		return nil, fmt.Errorf("add host %q: not a host name", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("add host %q: lab is closed", name)
	}
	if slices.ContainsFunc(l.hosts, func(h *Host) bool { return h.Name == name }) {
		return nil, fmt.Errorf("add host %q: %w", name, os.ErrExist)
	}
	l.made++
	h := &Host{Name: name, Addrs: slices.Clone(addrs), lab: l, port: l.made}
	var err error
	s.Lab, s.Layer = l.id, l.layer
	h.control, err = startInit(s,
		syscall.CLONE_NEWNET|syscall.CLONE_NEWPID|syscall.CLONE_NEWNS|syscall.CLONE_NEWUTS|syscall.CLONE_NEWIPC)
	if err != nil {
		return nil, fmt.Errorf("add host %q: %w", name, err)
	}
	h.PID = h.control.cmd.Process.Pid
	h.pidns, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.PID))
	if err == nil {
		err = ipBatch(ctx, h.control, "link set lo up")
	}
	if err == nil {
		err = h.Link(ctx)
	}
	if err == nil {
		l.hosts = append(l.hosts, h)
		err = l.writeHosts()
	}
	if err != nil {
		l.hosts = slices.DeleteFunc(l.hosts, func(x *Host) bool { return x == h })
		return nil, errors.Join(fmt.Errorf("add host %q: %w", name, err), h.Close())
	}
	return h, nil
}

// writeHosts writes /etc/hosts of every host that still runs.
func (l *Lab) writeHosts() error {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, h := range l.hosts {
		for _, a := range h.Addrs {
			fmt.Fprintf(&b, "%s\t%s\n", a.Addr(), h.Name)
		}
	}
	for _, h := range l.hosts {
		select {
		case <-h.control.ended:
			continue
		default:
		}
		if err := h.WriteFile("/etc/hosts", []byte(b.String()), 0o644, "root"); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every host and the switch, and with them all processes, mounts and links of the lab.
// It may be called again, and returns when no process of the lab is left. The kernel may take some
// more milliseconds to free the namespaces.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	errs := make([]error, len(l.hosts)+1)
	var wg sync.WaitGroup
	for i, h := range l.hosts {
		wg.Go(func() { errs[i] = h.Close() })
	}
	wg.Go(func() {
		if err := l.sw.close(); err != nil {
			errs[len(l.hosts)] = fmt.Errorf("close switch: %w", err)
		}
	})
	wg.Wait()
	return errors.Join(errs...)
}

// carries waits until a link in the network namespace of an init takes packets. That it is up is not enough: the kernel has
// to notice that there is a carrier, which it does by itself and later (net/core/link_watch.c), and what is sent before is lost.
func carries(ctx context.Context, c *control, link string) error {
	return WaitFor(ctx, func() (bool, error) {
		out, err := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", c.cmd.Process.Pid), "ip", "-o", "link", "show", "dev", link).CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("look at link %s: %w: %s", link, err, out)
		}
		return strings.Contains(string(out), " state UP "), nil
	})
}

// ipBatch runs ip(8) with one command a line in the network namespace of an init, and in the machine's
// other namespaces: a PID in a command is the machine's.
func ipBatch(ctx context.Context, c *control, commands ...string) error {
	cmd := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", c.cmd.Process.Pid), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run ip %q: %w: %s", commands, err, out)
	}
	return nil
}
