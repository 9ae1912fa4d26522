package selftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptmGet is what PTMGET of /dev/ptm answers (ptm(4), sys/tty.h).
type ptmGet struct {
	master, slave         int32
	masterName, slaveName [16]byte
}

const ptmGetRequest = 0x40287401 // _IOR('t', 1, struct ptmget)

// openTerminal opens a pseudo terminal: its master and its slave side. Where there is no /dev, as beside a bare init, it makes the
// devices for itself.
func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return madeTerminal()
	}
	defer unix.Close(fd)
	var got ptmGet
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ptmGetRequest, uintptr(unsafe.Pointer(&got))); errno != 0 {
		return madeTerminal()
	}
	unix.CloseOnExec(int(got.master))
	unix.CloseOnExec(int(got.slave))
	return os.NewFile(uintptr(got.master), "pty"), os.NewFile(uintptr(got.slave), "tty"), nil
}

// Devices of pseudo terminals: see internal/openbsd.
const (
	majorSlave  = 5
	majorMaster = 6
	maxMinor    = 16
)

func madeTerminal() (master, slave *os.File, err error) {
	dir, err := os.MkdirTemp("/", "stopd-selftest-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	for minor := range maxMinor {
		open := func(name string, major int) (*os.File, error) {
			path := filepath.Join(dir, fmt.Sprint(name, minor))
			if err := unix.Mknod(path, unix.S_IFCHR|0o600, major<<8|minor); err != nil {
				return nil, fmt.Errorf("make device: %w", err)
			}
			return os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
		}
		if master, err = open("pty", majorMaster); errors.Is(err, unix.EIO) {
			continue // somebody has it
		}
		if err != nil {
			return nil, nil, err
		}
		if slave, err = open("tty", majorSlave); err != nil {
			master.Close()
			return nil, nil, err
		}
		return master, slave, nil
	}
	return nil, nil, err
}
