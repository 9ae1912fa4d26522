package linux

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

func TestTransfers(t *testing.T) {
	advanced := func(socket uint64, upTo uint32) bpf.Call {
		return bpf.Call{Socket: socket, Thread: 7, Waits: 8, Taken: upTo, Kind: bpf.Advanced}
	}
	took := func(socket uint64, octets uint32) host.Transfer {
		return host.Transfer{Socket: socket, Octets: octets, Thread: 7, Waits: 8}
	}
	tests := map[string]struct {
		calls []bpf.Call
		want  []host.Transfer
	}{
		"none": {nil, []host.Transfer{}},
		"sent": {[]bpf.Call{{At: 1, Socket: 5, Thread: 6, Octets: 4, Waits: 3, Kind: bpf.Sent}},
			[]host.Transfer{{Socket: 5, Sent: true, Octets: 4, Thread: 6, Waits: 3}}},
		"looked at":           {[]bpf.Call{{Socket: 5, Kind: bpf.Took}}, []host.Transfer{{Socket: 5}}},
		"first is not known":  {[]bpf.Call{advanced(5, 1000), advanced(5, 1003)}, []host.Transfer{took(5, 0), took(5, 3)}},
		"found nothing":       {[]bpf.Call{advanced(5, 1000), advanced(5, 1000)}, []host.Transfer{took(5, 0)}},
		"each for itself":     {[]bpf.Call{advanced(5, 1000), advanced(6, 1000)}, []host.Transfer{took(5, 0), took(6, 0)}},
		"numbers begin again": {[]bpf.Call{advanced(5, 1<<32-2), advanced(5, 3)}, []host.Transfer{took(5, 0), took(5, 5)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, transfers(tt.calls)); d != "" {
				t.Errorf("transfers (-want +got):\n%s", d)
			}
		})
	}
}
