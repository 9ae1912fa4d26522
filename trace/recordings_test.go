package trace

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A truth is what those who made a recording know of one connection: see testdata/recordings.
type truth struct {
	Who      string           `json:"who"`
	Local    netip.AddrPort   `json:"local"`
	Remote   netip.AddrPort   `json:"remote"`
	Previous []netip.AddrPort `json:"previous"`
}

func readRecording(t *testing.T, name string) (*host.Replay, []truth) {
	t.Helper()
	packed, err := os.ReadFile("../testdata/recordings/" + name + ".json.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	r, err := host.ParseRecording(text)
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile("../testdata/recordings/" + name + ".truth.json")
	if err != nil {
		t.Fatal(err)
	}
	var truths []truth
	if err := json.Unmarshal(known, &truths); err != nil {
		t.Fatal(err)
	}
	return &host.Replay{Recording: r}, truths
}

// leaving returns the connections that a recorded host opened to another.
func leaving(h *host.Replay) []host.Socket {
	return slices.DeleteFunc(slices.Clone(h.Sockets), func(s host.Socket) bool {
		a := s.Remote.Addr().Unmap()
		return s.Protocol != host.TCP || s.Direction != host.Outbound || s.Inode == 0 || a.IsLoopback() || slices.Contains(h.Recording.Facts.Addresses, a)
	})
}

// On recorded hosts, each connection that leaves is traced to whoever made it, and to nobody else.
func TestRecordings(t *testing.T) {
	files, err := filepath.Glob("../testdata/recordings/*.truth.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("recordings %v, %v", files, err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".truth.json")
		h, truths := readRecording(t, name)
		sockets := leaving(h)
		if len(sockets) != len(truths) {
			t.Errorf("%s: %d connections leave the host, of %d it is known who made them", name, len(sockets), len(truths))
		}
		for _, k := range truths {
			t.Run(name+"/"+k.Who, func(t *testing.T) {
				i := slices.IndexFunc(sockets, func(s host.Socket) bool { return s.Local == k.Local && s.Remote == k.Remote })
				if i < 0 {
					t.Fatalf("no connection %s to %s was recorded", k.Local, k.Remote)
				}
				for _, hub := range []int{2, Defaults.Hub, 1000} {
					k.check(t, h, sockets[i], hub)
				}
			})
		}
	}
}

// check traces a connection, and compares whom it finds with whom it should.
func (k truth) check(t *testing.T, h *host.Replay, socket host.Socket, hub int) {
	t.Helper()
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := Defaults
	o.Hub = hub
	r := Run(t.Context(), snap, Question{Socket: socket, Host: h.Recording.Facts}, o)
	var want, got []string
	for _, p := range k.Previous {
		want = append(want, fmt.Sprint(p, " ", host.Inbound))
	}
	for _, p := range r.Previous {
		switch {
		case !p.Corroborated && slices.ContainsFunc(k.Previous, func(a netip.AddrPort) bool { return a.Addr() == p.Remote.Addr() }):
			// A login of the same host that has ended since.
		case p.Direction == host.Outbound && slices.Contains(r.Owners, p.PID):
			// One program with several connections out, such as a browser: each may have led to the other.
		default:
			got = append(got, fmt.Sprint(p.Remote, " ", p.Direction))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hub %d: previous hosts (-want +got):\n%s", hub, d)
	}
	if len(want) == 0 && len(withoutOrigin(r.Gaps)) == len(r.Gaps) {
		t.Errorf("hub %d: nobody is named, and no gap says why: %+v", hub, r.Gaps)
	}
	if len(r.Owners) == 0 || slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.What == "trace" }) {
		t.Errorf("hub %d: owners %v, gaps %+v", hub, r.Owners, r.Gaps)
	}
	t.Logf("hub %d: %d processes of %d, %d channels, %d of them not followed", hub, len(r.Processes), len(h.Processes), len(r.Channels),
		len(slices.DeleteFunc(slices.Clone(r.Channels), func(c Channel) bool { return c.Followed })))
}
