package daemon

import "github.com/stopd/stopd/internal/openbsd"

func openSystem() (system, error) {
	h, err := openbsd.Open()
	if err != nil {
		return system{}, err
	}
	return systemOf(h, func() error { return nil }), nil
}

// keepProcesses has nothing to keep.
func keepProcesses() error { return nil }

// abilities says what the daemon can see of this machine.
func abilities() []string {
	h, err := openbsd.Open()
	if err != nil {
		return []string{"processes and descriptors by sysctl: no: " + err.Error()}
	}
	return h.Abilities()
}
