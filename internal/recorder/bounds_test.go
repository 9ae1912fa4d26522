package recorder

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestOneSocketAgain: who connects one socket again and again has nobody walk all of it: entries leave an index without a look for them, what is
// older than the bound of an answer is not found, and what is later is.
func TestOneSocketAgain(t *testing.T) {
	h, err := New(16<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := &h.connections
	for name, index := range map[string]*chain{"flows": &c.flows, "cookies": &c.cookies, "holders": &c.holders} {
		if index.prev == nil {
			t.Fatalf("what leaves %s is looked for, from the newest on", name)
		}
	}
	id, n := ID{5, 5}, uint64(h.room())
	at := func(i uint64) uint64 { return 10 * (i + 1) }
	for i := range n {
		h.Apply(Event{Kind: Connecting, At: at(i), Process: Process{ID: id}, Connection: Connection{Cookie: 7}}, opened(7, at(i)+1), closed(7, at(i)+2))
	}
	if n <= visitsAnswer {
		t.Fatalf("there is room for %d", n)
	}
	answers := func(h *History) {
		t.Helper()
		for _, c := range []struct {
			i  uint64
			ok bool
		}{{n - 1, true}, {n - visitsAnswer, true}, {n - visitsAnswer - 1, false}, {0, false}} {
			by := at(c.i) + 1
			one, ok := h.ByCookie(7, by)
			if ok != c.ok || ok && one.Opened != by {
				t.Errorf("by its cookie number %d of %d is %+v, %v", c.i, n, one, ok)
			}
			one, ok = h.Latest(here, there, 1, by)
			if ok != c.ok || ok && one.Opened != by {
				t.Errorf("by its ends number %d of %d is %+v, %v", c.i, n, one, ok)
			}
		}
	}
	answers(h)
	again, err := New(16<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	f := filling{h: again, sum: h.summary(at(n))}
	pieces, _ := h.pieces()
	for i := range pieces {
		if err := f.piece(h.appendConnections(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	f.done(at(n) + 1)
	answers(again)
	for _, h := range []*History{h, again} {
		h.Forget(at(n))
		if f := h.Fill(); f.Connections != 0 {
			t.Errorf("%d are remembered still", f.Connections)
		}
	}
}

// TestManual: the manual says for how many there is room.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../man/stopd.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("64 MiB are room for %d,000 connections and as many processes.", room(64<<20)/1000); !strings.Contains(string(page), want) {
		t.Errorf("the manual does not say %q", want)
	}
}
