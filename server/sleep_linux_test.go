package server

import (
	"testing"
	"time"
)

// The other tests make time up, which the kernel does not: without room to wait exactly, Go's timers are used.
func init() { exact = nil }

func TestSleepUntil(t *testing.T) {
	exact = make(chan struct{}, 1)
	defer func() { exact = nil }()
	for i := range 20 {
		at := time.Now().Add(time.Duration(i*100) * time.Microsecond)
		sleepUntil(at)
		if early := time.Until(at); early > 0 {
			t.Errorf("%s too early", early)
		}
	}
	if len(exact) != 0 {
		t.Error("a place is still taken")
	}
}
