package daemon

import (
	"net"
	"os"
	"testing"

	"github.com/stopd/stopd/evidence"
)

// inProcess runs the parts of a daemon within this process, where its store can be looked at. It returns the store and
// the address that is answered on.
func (s *site) inProcess(t *testing.T) (*evidence.Store, string) {
	t.Helper()
	ps := map[role]*process{}
	for _, r := range roles {
		ps[r] = &process{role: r, log: s.logger(), joints: map[role]*link{}}
	}
	for _, l := range links() {
		a, b := net.Pipe()
		ps[l[0]].joints[l[1]], ps[l[1]].joints[l[0]] = newLink(a, ps[l[0]].serveOther(l[1])), newLink(b, ps[l[1]].serveOther(l[0]))
	}
	l, err := net.Listen("tcp", s.cfg.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := sendListener(ours, l); err != nil {
		t.Fatal(err)
	}
	k := &keeperPart{process: ps[keeper]}
	parts := map[role]part{keeper: k, tracer: &tracerPart{process: ps[tracer]},
		collector: &collectorPart{keeper: &farKeeper{link: ps[collector].joints[keeper]}, tracer: tracing{ps[collector].joints[tracer]}, log: s.logger()},
		front:     &frontPart{process: ps[front], passes: theirs}}
	for _, r := range roles {
		made := parts[r]
		if err := made.start(started{Config: s.cfg, Server: serverConfig(s.cfg), Listeners: 1, PIDs: []int{os.Getpid()}}); err != nil {
			t.Fatal(err)
		}
		ps[r].part.Store(&made)
	}
	t.Cleanup(func() {
		parts[front].stop()
		parts[tracer].stop()
		parts[collector].stop()
		k.stop()
	})
	return k.store, l.Addr().String()
}
