package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stopd/stopd/internal/conntrack"
	"github.com/stopd/stopd/internal/flows"
)

// Conntrack reports every connection of TCP that this host's connection tracking has in this network namespace, when it is begun and
// when it is established. It takes CAP_NET_ADMIN.
func Conntrack() Input {
	return func(ctx context.Context, w *Watcher) error {
		l, err := conntrack.Listen(0, conntrack.New, conntrack.Updated)
		if err != nil {
			return err
		}
		defer l.Close()
		defer context.AfterFunc(ctx, func() { l.Close() })()
		for {
			events, err := l.Receive()
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, conntrack.ErrLost):
				w.Counts.Missed.Add(1)
				w.log.Warn("the kernel dropped events of connections: they come faster than they are read")
			case err != nil && len(events) == 0:
				return fmt.Errorf("watch connections: %w", err)
			}
			now := time.Now()
			for _, v := range events {
				if f, ok := trackedFlow(v, now, w.cfg.Port); ok {
					w.see(InputConntrack, f, nil, place{})
				}
			}
		}
	}
}

// trackedFlow is what an event says of a connection, if it says that it is new or established. Questions to hosts are connections as
// well, and nobody is asked about those.
func trackedFlow(v conntrack.Event, now time.Time, port uint16) (flows.Flow, bool) {
	o, r := v.Entry.Original, v.Entry.Reply
	f := flows.Flow{Protocol: "tcp", Source: o.Src, Destination: o.Dst, Directed: !v.Entry.PickedUp, Time: now}
	if far := r.Back(); far != o {
		f.FarSource, f.FarDestination = far.Src, far.Dst
	}
	switch {
	case o.Dst.Port() == port || r.Src.Port() == port:
		return flows.Flow{}, false
	case v.Kind == conntrack.New:
		f.Kind = kindNew
	case v.Kind == conntrack.Updated && v.Entry.State == established:
		f.Kind = kindEstablished
	default:
		return flows.Flow{}, false
	}
	return f, true
}

// established is the state as [conntrack.Entry] has it.
const established = "ESTABLISHED"
