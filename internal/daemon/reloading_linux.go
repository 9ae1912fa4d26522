package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reloading tells a service manager that a reload begins, and since when (sd_notify(3), systemd.service(5), notify-reload).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}
