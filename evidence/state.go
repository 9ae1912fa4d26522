package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// A state is what a store has to remember of segments that are gone, and of records that must stay. Every
// segment begins with a record of it, and every change is a record, so the newest segment has the last word.
type state struct {
	// Expired are the numbers of the records that are gone, as spans in order.
	Expired []span `json:"expired"`
	Holds   []held `json:"holds"`
}

// A span is the record numbers from First, and before Next.
type span struct {
	First uint64 `json:"first"`
	Next  uint64 `json:"next"`
}

// A held is evidence that does not expire: that of a token, which its report's locator stands for. Segments
// with records between From and To stay.
type held struct {
	Locator string    `json:"locator"` // hexadecimal
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

// maxHolds bounds what every segment begins with.
const maxHolds = 4096

func (s state) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encode state: %v", err)) // it holds nothing that JSON refuses
	}
	return b
}

// decodeState decodes the payload of a state or expiry record. On failure it is empty.
func decodeState(b []byte) (state, error) {
	var s state
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return state{}, fmt.Errorf("decode state: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return state{}, errors.New("decode state: more than one value")
	}
	var behind uint64
	for i, e := range s.Expired {
		if e.First >= e.Next || i > 0 && e.First <= behind {
			return state{}, fmt.Errorf("decode state: expired %d to %d is out of order", e.First, e.Next)
		}
		behind = e.Next
	}
	if len(s.Holds) > maxHolds {
		return state{}, fmt.Errorf("decode state: %d holds", len(s.Holds))
	}
	for _, h := range s.Holds {
		if b, err := hex.DecodeString(h.Locator); err != nil || len(b) != len(locator{}) || h.To.Before(h.From) {
			return state{}, fmt.Errorf("decode state: hold %q", h.Locator)
		}
	}
	return s, nil
}

func (s state) clone() state { return state{slices.Clone(s.Expired), slices.Clone(s.Holds)} }

// expire adds a span of records that go.
func (s *state) expire(e span) {
	s.Expired = append(s.Expired, e)
	slices.SortFunc(s.Expired, func(a, b span) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	merged := s.Expired[:1]
	for _, e := range s.Expired[1:] {
		if last := &merged[len(merged)-1]; e.First <= last.Next {
			last.Next = max(last.Next, e.Next)
		} else {
			merged = append(merged, e)
		}
	}
	s.Expired = merged
}

// expired tells whether all of a span is gone by right.
func (s state) expired(e span) bool {
	for _, x := range s.Expired {
		if x.First <= e.First && e.Next <= x.Next {
			return true
		}
	}
	return false
}

// hold pins the evidence of a report's locator, release lets it go. They report whether that changed anything.
func (s *state) hold(l locator, from, to time.Time) bool {
	name := hex.EncodeToString(l[:])
	if slices.ContainsFunc(s.Holds, func(h held) bool { return h.Locator == name }) {
		return false
	}
	s.Holds = append(s.Holds, held{name, from.UTC(), to.UTC()})
	return true
}

func (s *state) release(l locator) bool {
	name, n := hex.EncodeToString(l[:]), len(s.Holds)
	s.Holds = slices.DeleteFunc(s.Holds, func(h held) bool { return h.Locator == name })
	return len(s.Holds) < n
}

// pins tells whether a segment with records between two times has to stay.
func (s state) pins(made, last int64) bool {
	for _, h := range s.Holds {
		if made <= h.To.UnixNano() && last >= h.From.UnixNano() {
			return true
		}
	}
	return false
}
