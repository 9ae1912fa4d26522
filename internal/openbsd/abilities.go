package openbsd

import (
	"fmt"

	"github.com/stopd/stopd/host"
)

// Abilities says, a line each, what can be seen of this machine with the privileges that the program has, found by trying.
func (h *Host) Abilities() []string {
	t, err := h.tables(mibFiles)
	if err != nil {
		return []string{fmt.Sprintf("processes and descriptors by sysctl: no (%v): no connection is found", err)}
	}
	lines := []string{fmt.Sprintf("processes and descriptors by sysctl: yes (%d of %d)", len(t.files), len(t.procs))}
	ps, _ := t.processes()
	for _, p := range ps {
		for _, d := range p.Descriptors {
			if d.Kind == host.Pipe && d.Object != "" {
				return append(lines, "other ends of pipes and sockets: yes")
			}
		}
	}
	return append(lines, "other ends of pipes and sockets: no: they are gaps in reports; run as root")
}
