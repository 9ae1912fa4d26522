package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// notify tells the service manager about the daemon (sd_notify(3)), if there is one.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}

// firstPassed is the first descriptor that a service manager passes (SD_LISTEN_FDS_START).
const firstPassed = 3

// passed returns the sockets that the service manager passed to this process.
func passed() ([]net.Listener, error) {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS is %q: not a number", os.Getenv("LISTEN_FDS"))
	}
	os.Unsetenv("LISTEN_PID")
	os.Unsetenv("LISTEN_FDS")
	var ls []net.Listener
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("use passed socket %d: %w", fd, err)
		}
		if _, ok := l.Addr().(*net.TCPAddr); !ok {
			return nil, fmt.Errorf("use passed socket %d: it listens on %s, not on TCP", fd, l.Addr().Network())
		}
		ls = append(ls, l)
	}
	return ls, nil
}
