package recorder

import (
	"slices"
	"testing"
)

// TestUnmet: what a sweep did not meet, since no process has a descriptor of it (it waits to be accepted, or is sent to somebody), may go on.
func TestUnmet(t *testing.T) {
	h := small(10)
	h.Apply(opened(7, 10))
	h.Sweep(20)
	h.Swept(21)
	h.Apply(Event{Kind: Touched, At: 30, Process: Process{ID: ID{5, 1}}, Connection: Connection{Cookie: 7}}, closed(7, 40))
	c, _ := h.Latest(here, there, 1, 50)
	if c.Closed != 40 || c.Unsure || !slices.Equal(c.Holders, []ID{{5, 1}}) {
		t.Errorf("remembered is %+v", c)
	}
}

// TestConnectingUnmet: a sweep while a connection is being established takes nothing from it.
func TestConnectingUnmet(t *testing.T) {
	h := small(10)
	connecting := Event{Kind: Connecting, At: 10, Process: Process{ID: ID{5, 1}}, Connection: Connection{Cookie: 7}}
	h.Apply(connecting)
	h.Sweep(20)
	h.Apply(connecting) // is met
	h.Swept(21)
	h.Apply(opened(7, 30), closed(7, 40))
	if c, _ := h.Latest(here, there, 1, 50); !slices.Equal(c.Holders, []ID{{5, 1}}) {
		t.Errorf("remembered is %+v", c)
	}
}

// TestCookieAgain: a socket that was disconnected and is connected again is another connection.
func TestCookieAgain(t *testing.T) {
	h := small(10)
	connecting := func(at uint64, id ID) Event {
		return Event{Kind: Connecting, At: at, Process: Process{ID: id}, Connection: Connection{Cookie: 7}}
	}
	h.Apply(connecting(10, ID{5, 1}), opened(7, 11), closed(7, 12), connecting(20, ID{6, 1}), opened(7, 21), closed(7, 22))
	c, _ := h.Latest(here, there, 1, 50)
	if c.Opened != 21 || c.Closed != 22 || !slices.Equal(c.Holders, []ID{{6, 1}}) {
		t.Errorf("the second is %+v", c)
	}
	c, _ = h.Latest(here, there, 1, 20)
	if c.Opened != 11 || c.Closed != 12 || !slices.Equal(c.Holders, []ID{{5, 1}}) {
		t.Errorf("the first is %+v", c)
	}
}
