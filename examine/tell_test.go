package examine

import (
	"context"
	"testing"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
)

// A name is asked for where a question may be answered with one, of the user of the socket that was found.
func TestTell(t *testing.T) {
	for _, c := range []struct {
		name, line string
		naming     stop.Naming
		netns      uint64 // of the socket
		asked      bool
		uid        uint32
	}{
		{"never", "968,23", stop.NameNever, 0, false, 0},
		{"if listed", "968,23", stop.NameIfListed, 0, true, 1000},
		{"unless hidden", "968,23", stop.NameUnlessHidden, 4026531840, true, 1000},
		{"in another network namespace", "968,23", stop.NameUnlessHidden, 4026532000, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, k := examiner(t)
			rec := recording(t)
			rec.Facts.NetNS = 4026531840
			for i := range rec.Sockets {
				rec.Sockets[i].NetNS = c.netns
			}
			x.Host = &host.Replay{Recording: rec}
			asked := false
			x.Tell = func(_ context.Context, q stop.Question, s host.Socket) (string, bool) {
				asked = true
				if s.UID != c.uid || (s == host.Socket{}) != (c.uid == 0) || q.Naming != c.naming {
					t.Errorf("asked was %+v of %+v", q, s)
				}
				if len(k.reports) != 1 {
					t.Error("nothing was saved before")
				}
				return "alice", true
			}
			q := question(t, c.line)
			q.Naming = c.naming
			f, err := x.Examine(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if k.last(t, f.Token); asked != c.asked || (f.Name == "alice") != asked || f.Unread != asked {
				t.Errorf("asked %t, found %+v", asked, f)
			}
		})
	}
}
