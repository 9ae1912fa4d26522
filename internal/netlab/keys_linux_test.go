package netlab

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeysDropped: what a host's programs left in the keyring ends with the host, and no other host's does.
func TestKeysDropped(t *testing.T) {
	_, _, hosts := newLab(t, 2)
	ids := make([]int, 2)
	for i, h := range hosts {
		pidns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.PID))
		if err != nil {
			t.Fatal(err)
		}
		if ids[i], err = unix.AddKey("user", "netlab test in "+pidns, []byte("secret"), unix.KEY_SPEC_USER_KEYRING); err != nil {
			t.Skip(err)
		}
		defer unix.KeyctlInt(unix.KEYCTL_UNLINK, ids[i], unix.KEY_SPEC_USER_KEYRING, 0, 0)
	}
	there := func(id int) bool {
		return unix.KeyctlSetperm(id, 0x3f3f0000) == nil // the owner may, of what is linked anywhere
	}
	if err := hosts[0].Close(); err != nil {
		t.Fatal(err)
	}
	if there(ids[0]) {
		t.Error("it is there after the host has ended")
	}
	if !there(ids[1]) {
		t.Error("the other host's is gone")
	}
}
