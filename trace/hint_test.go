package trace

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A hint that the asked connection was accepted counts only for who asks on behalf of another: anybody can listen on the port that he
// connects from, so that who asks is named, and who came in is not.
func TestHintedDirection(t *testing.T) {
	for _, tt := range []struct {
		name     string
		source   host.Source
		onBehalf bool
		want     []string
	}{
		{"a hint", host.FromListener, false, []string{attacker + " inbound"}},
		{"a hint, on behalf", host.FromListener, true, []string{victim.String() + " inbound", attacker + " inbound"}},
		{"exact", host.FromKernel, false, []string{victim.String() + " inbound", attacker + " inbound"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := asked()
			d.Direction, d.DirectionSource = host.Inbound, tt.source
			q := question()
			q.Socket.Direction, q.Socket.DirectionSource, q.OnBehalf = d.Direction, d.DirectionSource, tt.onBehalf
			// The parent listens on the port that its child connects from: it is no acceptor for that.
			h := recording(initProcess,
				process(60, 1, in(8888, attacker), listen(d.Local.Port())), process(70, 60, d))
			q.Host = h.Recording.Facts
			got := summarize(runSnapshot(t, h, q), summary{Previous: none})
			if diff := cmp.Diff(tt.want, got.Previous); diff != "" {
				t.Errorf("previous hosts (-want +got):\n%s", diff)
			}
		})
	}
}
