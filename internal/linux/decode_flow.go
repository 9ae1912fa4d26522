package linux

import (
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

// transfers makes of calls what they took and sent. A call that found nothing to take is none. Of the first of a connection it is
// not known whether it did: it counts as one that took.
func transfers(calls []bpf.Call) []host.Transfer {
	out := make([]host.Transfer, 0, len(calls))
	upTo := map[uint64]uint32{}
	for _, c := range calls {
		t := host.Transfer{Socket: c.Socket, Sent: c.Kind == bpf.Sent, Octets: c.Octets, Thread: c.Thread, Waits: c.Waits}
		if c.Kind == bpf.Advanced {
			before, known := upTo[c.Socket]
			upTo[c.Socket] = c.Taken
			if known && before == c.Taken {
				continue
			}
			if known {
				t.Octets = c.Taken - before // modulo 2^32
			}
		}
		out = append(out, t)
	}
	return out
}
