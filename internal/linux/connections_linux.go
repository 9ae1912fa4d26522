package linux

import (
	"context"
	"net/netip"

	"github.com/stopd/stopd/host"
)

// Connections lists the TCP connections of the host's own network namespace that have these ports, and
// this local address where it is valid. It walks all sockets, so it is not for answering requests.
func (h *Host) Connections(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error) {
	all, err := h.diag.dump(ctx, host.TCP)
	if err != nil {
		return nil, err
	}
	var fs []host.Flow
	for _, s := range all {
		if s.local.Port() == local.Port() && s.remote.Port() == remotePort && (!local.Addr().IsValid() || local.Addr() == s.local.Addr()) {
			fs = append(fs, host.Flow{Protocol: host.TCP, Local: s.local, Remote: s.remote})
		}
	}
	return fs, nil
}
