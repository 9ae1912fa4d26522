package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/recorder"
)

// TestDue: what is remembered is written again where enough has happened, or something has and long ago; on a host where nothing happens never.
func TestDue(t *testing.T) {
	saved := time.Unix(1e9, 0)
	for name, c := range map[string]struct {
		events uint64
		after  time.Duration
		failed bool
		want   bool
	}{
		"nothing happened":           {1000, 1000 * time.Hour, false, false},
		"little happened":            {1062, keepEvery, false, false},
		"little happened, long ago":  {1001, keepAge, false, true},
		"much happened":              {1063, keepEvery, false, true},
		"it could not be saved last": {1000, keepEvery, true, true},
	} {
		k := &keptPast{saved: saved, events: 1000, failed: c.failed}
		if got := k.due(recorder.Fill{Connections: 600, Processes: 408, Events: c.events}, saved.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestSavedOnceDue: a history to which nothing has happened is not handed to the keeper, but at the end.
func TestSavedOnceDue(t *testing.T) {
	h, err := recorder.New(recorder.Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	handed := 0
	keeper, _ := linked(t, func(context.Context, call, []byte) ([]byte, error) { handed++; return nil, nil })
	k := &keptPast{keeper: keeper, seal: recorder.Seal{Key: make([]byte, recorder.KeySize)}, saved: time.Now()}
	k.keep = func(keep func(h *recorder.History, at uint64) error) error { return keep(h, 1) }
	k.restored.Store(true)
	save := func(last bool) int {
		t.Helper()
		before := handed
		if k.save(t.Context(), last); k.failed {
			t.Fatal("it cannot be saved")
		}
		return handed - before
	}
	if n := save(false); n != 0 {
		t.Errorf("nothing has happened: %d calls", n)
	}
	h.Apply(recorder.Event{Kind: recorder.Forked, At: 5, Process: recorder.Process{ID: recorder.ID{PID: 7, Start: 5}}})
	if n := save(false); n == 0 {
		t.Error("something has happened, and it is not kept")
	}
	if n := save(false); n != 0 {
		t.Errorf("nothing has happened since: %d calls", n)
	}
	if n := save(true); n == 0 {
		t.Error("it is not kept at the end")
	}
}
