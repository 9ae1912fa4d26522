package netlab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Host is one host of a lab.
type Host struct {
	Name  string
	Addrs []netip.Prefix // of eth0, in the order given
	PID   int            // of the host's PID 1, as the machine sees it

	lab     *Lab
	port    int // number of the switch port, and last bytes of the hardware address
	control *control
	pidns   string // as its processes see it, and the machine
	daemons daemonNames
}

// Addr returns the host's first address; the zero Addr if it has none.
func (h *Host) Addr() netip.Addr {
	if len(h.Addrs) == 0 {
		return netip.Addr{}
	}
	return h.Addrs[0].Addr()
}

// Link puts the host on the network: eth0, with its addresses, up and connected to the switch.
// The hardware address stays the same over an [Host.Unlink], so that the other hosts' neighbour tables
// stay right.
func (h *Host) Link(ctx context.Context) error {
	// The host's end appears in the host's namespace straight away, never in another.
	if err := ipBatch(ctx, h.lab.sw,
		fmt.Sprintf("link add port%d type veth peer name eth0 address 02:00:00:00:%02x:%02x netns %d",
			h.port, h.port>>8&0xff, h.port&0xff, h.PID),
		fmt.Sprintf("link set port%d master br0 up", h.port),
	); err != nil {
		return fmt.Errorf("link host %q: %w", h.Name, err)
	}
	var commands []string
	for _, a := range h.Addrs {
		command := fmt.Sprintf("address add %s dev eth0", a)
		if a.Addr().Is6() {
			command += " nodad" // else it is tentative, and cannot be bound, for a second
		}
		commands = append(commands, command)
	}
	err := ipBatch(ctx, h.control, append(commands, "link set eth0 up")...)
	if err == nil {
		err = carries(ctx, h.control, "eth0")
	}
	if err == nil {
		err = carries(ctx, h.lab.sw, fmt.Sprintf("port%d", h.port))
	}
	if err != nil {
		return fmt.Errorf("link host %q: %w", h.Name, err)
	}
	return nil
}

// Unlink removes eth0, with its addresses. Connections are neither closed nor reset: their packets get
// lost, until Link.
func (h *Host) Unlink(ctx context.Context) error {
	if err := ipBatch(ctx, h.control, "link delete eth0"); err != nil {
		return fmt.Errorf("unlink host %q: %w", h.Name, err)
	}
	return nil
}

// Close ends the host as if its power was cut. It may be called again; [Lab.Close] does it too.
func (h *Host) Close() error {
	err := h.control.close()
	if err == nil && h.pidns != "" {
		// A user has one keyring for all PID namespaces.
		err = DropKeys(func(name string) bool { return strings.HasSuffix(name, " in "+h.pidns) })
	}
	if err != nil {
		return fmt.Errorf("close host %q: %w", h.Name, err)
	}
	return nil
}

// Path returns where the machine finds path of the host, for reading. Beware of writing there: an
// absolute symbolic link of the host, such as /var/run, would lead to the machine's own file.
// [Host.WriteFile] does not follow such links.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(h.PID), "root", path)
}

// root opens the host's file system, such that no link leads out of it.
func (h *Host) root() (*os.Root, error) {
	return os.OpenRoot(h.Path("/"))
}

// inRoot makes an absolute path one that os.Root takes.
func inRoot(path string) string {
	return strings.TrimPrefix(filepath.Clean("/"+path), "/")
}

// WriteFile makes or replaces a file of the host. Missing directories above it are made, as root's and
// with mode 0755. Through an absolute symbolic link it is an error.
func (h *Host) WriteFile(path string, data []byte, mode fs.FileMode, owner string) error {
	u, err := h.user(owner)
	if err != nil {
		return fmt.Errorf("write file %q of %q: %w", path, h.Name, err)
	}
	root, err := h.root()
	if err != nil {
		return err
	}
	defer root.Close()
	name := inRoot(path)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.WriteFile(name, data, mode); err != nil {
		return err
	}
	if err := root.Chown(name, u.uid, u.gid); err != nil {
		return err
	}
	return root.Chmod(name, mode) // the umask, or the mode of a file that was there
}

// ReadFile reads a file of the host. Through an absolute symbolic link it is an error.
func (h *Host) ReadFile(path string) ([]byte, error) {
	root, err := h.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(inRoot(path))
}

// Install copies a file of the machine, such as a program just built, to dst of the host, as root's.
func (h *Host) Install(src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return h.WriteFile(dst, data, info.Mode().Perm(), "root")
}

// WaitListen returns when a socket listens on the TCP port, of IPv4 or IPv6, on any address.
func (h *Host) WaitListen(ctx context.Context, port uint16) error {
	err := WaitFor(ctx, func() (bool, error) {
		for _, name := range []string{"tcp", "tcp6"} {
			table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", h.PID, name))
			if os.IsNotExist(err) && name == "tcp6" {
				continue // a kernel without IPv6
			}
			if err != nil {
				return false, err
			}
			if slices.Contains(listeningPorts(table), port) {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("listen on port %d of %q: %w", port, h.Name, err)
	}
	return nil
}

// listeningPorts returns the local ports of the sockets in state TCP_LISTEN of a /proc/net/tcp or tcp6
// (net/ipv4/tcp_ipv4.c, get_tcp4_sock: "sl local_address rem_address st …").
func listeningPorts(table []byte) []uint16 {
	const listen = "0A"
	var ports []uint16
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || fields[3] != listen {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports = append(ports, uint16(port))
		}
	}
	return ports
}
