package linux

import (
	"bytes"
	"net/netip"
	"strings"
)

// A mount is a file system that the kernel has from other hosts.
type mount struct {
	kind, at string
	from     []netip.Addr
}

// parseMounts reads from /proc/PID/mountinfo (proc_pid_mountinfo(5)) the file systems that come from other hosts,
// by the addresses in their source (ceph, 9p) and in their options (addr= of nfs and cifs). What a process serves
// (fuse) is not the kernel's.
func parseMounts(b []byte) []mount {
	var ms []mount
	for line := range bytes.Lines(b) {
		before, after, ok := bytes.Cut(line, []byte(" - "))
		f, g := bytes.Fields(before), bytes.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 || bytes.HasPrefix(g[0], []byte("fuse")) {
			continue
		}
		m := mount{kind: text(g[0]), at: text(f[4])}
		for option := range strings.SplitSeq(string(g[2]), ",") {
			if v, ok := strings.CutPrefix(option, "addr="); ok {
				m.add(v)
			}
		}
		for host := range strings.SplitSeq(string(g[1]), ",") {
			host, _, _ = strings.Cut(host, ":/")
			m.add(host)
		}
		if m.from != nil {
			ms = append(ms, m)
		}
	}
	return ms
}

// add adds an address that is written with or without a port.
func (m *mount) add(s string) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		m.from = append(m.from, ap.Addr().Unmap().WithZone(""))
	} else if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		m.from = append(m.from, a.Unmap().WithZone(""))
	}
}
