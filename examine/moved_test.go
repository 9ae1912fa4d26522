package examine

import (
	"context"
	"slices"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// A movingHost is looked at while the asked connection is handed on: in so many looks the owner has it no more once it is read.
type movingHost struct {
	host.Host
	looks, unlucky int
	gone           bool // then nobody has it at all
}

func (h *movingHost) Snapshot(ctx context.Context) (host.Snapshot, error) {
	s, err := h.Host.Snapshot(ctx)
	if h.looks++; h.looks <= h.unlucky {
		return emptyHanded{s}, err
	}
	if h.gone {
		return nobodys{s}, err
	}
	return s, err
}

// nobodys is a snapshot that finds no holder of anything.
type nobodys struct{ host.Snapshot }

func (nobodys) Holders(context.Context, host.Object) ([]host.Holder, error) { return nil, nil }

// emptyHanded is a snapshot whose processes hold nothing any more.
type emptyHanded struct{ host.Snapshot }

func (s emptyHanded) Process(ctx context.Context, pid int) (host.Process, error) {
	p, err := s.Snapshot.Process(ctx, pid)
	p.Descriptors = nil
	return p, err
}

// Where the owner has handed the connection on, the host is looked at again, but not for ever.
func TestMoved(t *testing.T) {
	for _, tt := range []struct{ unlucky, looks, previous int }{{0, 1, 1}, {2, 3, 1}, {maxLooks, maxLooks, 0}} {
		x, k := examiner(t)
		h := &movingHost{Host: x.Host, unlucky: tt.unlucky}
		x.Host = h
		if _, err := x.Examine(t.Context(), question(t, "968,23:SV")); err != nil {
			t.Fatal(err)
		}
		r, err := report.Decode(k.reports[0])
		if err != nil {
			t.Fatal(err)
		}
		corroborated := 0
		for _, p := range r.Previous {
			if p.Corroborated {
				corroborated++
			}
		}
		changed := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.Why == "they changed while the process was looked at" })
		if h.looks != tt.looks || corroborated != tt.previous || changed != (tt.previous == 0) {
			t.Errorf("after %d unlucky looks: %d looks, %d previous hosts, gaps %+v; want %d and %d", tt.unlucky, h.looks, corroborated, r.Gaps, tt.looks, tt.previous)
		}
	}
}

// What one look found is not lost where the next finds nobody.
func TestMovedAway(t *testing.T) {
	x, k := examiner(t)
	h := &movingHost{Host: x.Host, unlucky: 1, gone: true}
	x.Host = h
	if _, err := x.Examine(t.Context(), question(t, "968,23:SV")); err != nil {
		t.Fatal(err)
	}
	r, err := report.Decode(k.reports[0])
	if err != nil {
		t.Fatal(err)
	}
	if h.looks != maxLooks || len(r.Connection.Owners) == 0 || len(r.Processes) == 0 {
		t.Errorf("after %d looks: owners %v, %d processes", h.looks, r.Connection.Owners, len(r.Processes))
	}
}
