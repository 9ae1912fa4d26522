package selftest

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the master of a pseudo terminal is asked to do (sys/ptms.h): to let the slave be opened, and whose it is.
const (
	unlockSlave = 'P'<<8 | 2
	ownSlave    = 'P'<<8 | 5
)

// owner is pt_own_t.
type owner struct{ uid, gid uint32 }

// openTerminal opens a pseudo terminal: its master and its slave side (ptm(4D), pts(4D)).
func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "pty")
	own := owner{uint32(os.Getuid()), uint32(os.Getgid())}
	_, err = unix.IoctlSetStrioctlRetInt(fd, unix.I_STR, &unix.Strioctl{Cmd: ownSlave, Len: int32(unsafe.Sizeof(own)), Dp: (*int8)(unsafe.Pointer(&own))})
	if err == nil {
		_, err = unix.IoctlSetStrioctlRetInt(fd, unix.I_STR, &unix.Strioctl{Cmd: unlockSlave})
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", uint32(st.Rdev)), os.O_RDWR|unix.O_NOCTTY, 0) // its minor number
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	return master, slave, nil
}
