package main

import "testing"

// Who begins a trace-back takes a session number that nobody can guess, of 32 bits.
func TestRandomSession(t *testing.T) {
	const times = 64
	seen := map[uint64]bool{}
	var ones uint64
	for range times {
		r, err := requestOf("SV_REC", "", "", "968", "23")
		if err != nil || r.SID >= 1<<32 {
			t.Fatalf("%+v, %v", r, err)
		}
		seen[r.SID] = true
		ones |= r.SID
	}
	if len(seen) < times-1 || ones != 1<<32-1 { // one of some two million runs has a pair that is alike
		t.Errorf("%d numbers of %d differ; their bits are %x", len(seen), times, ones)
	}
}
