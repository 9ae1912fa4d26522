package daemon

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tried is what prove tries.
var tried = []string{"read files", "write files", "write the store", "make sockets of the network", "make UNIX sockets", "make netlink sockets",
	"make raw sockets", "connect sockets", "run programs", "signal other processes", "act as root", "use capabilities"}

// prove tries what a role might do if a stranger had it in his hands, harms nothing, and says what went well.
func prove(t trial) []string {
	var can []string
	try := func(what string, fd int, err error) {
		if err == nil {
			can = append(can, what)
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
	fd, err := unix.Open(t.File, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	try("read files", fd, err)
	for what, dir := range map[string]string{"write files": t.Dir, "write the store": t.Store} {
		path := fmt.Sprintf("%s/stopd-trial.%d", dir, unix.Getpid())
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		try(what, fd, err)
		if err == nil {
			unix.Unlink(path)
		}
	}
	for what, family := range map[string]int{"make sockets of the network": unix.AF_INET, "make UNIX sockets": unix.AF_UNIX, "make netlink sockets": unix.AF_NETLINK, "make raw sockets": unix.AF_PACKET} {
		kind := unix.SOCK_STREAM
		if family == unix.AF_NETLINK || family == unix.AF_PACKET {
			kind = unix.SOCK_RAW
		}
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		try(what, fd, err)
	}
	p, err := os.StartProcess(t.File, []string{"true"}, &os.ProcAttr{}) // no program: it fails later than by permission
	if err == nil {
		p.Wait()
	}
	if err == nil || !strings.Contains(err.Error(), unix.EPERM.Error()) {
		can = append(can, "run programs")
	}
	// No descriptor is -1: what fails by that, and not by permission, may be done to the others.
	err = unix.Connect(-1, &unix.SockaddrInet4{})
	if err2 := unix.Sendto(-1, nil, unix.MSG_FASTOPEN, &unix.SockaddrInet4{}); err != unix.EPERM || err2 != unix.EPERM {
		can = append(can, "connect sockets")
	}
	// The kernel signals who owns a descriptor when there is input (fcntl(2)), and who is over a limit (setrlimit(2)).
	_, err = unix.FcntlInt(^uintptr(0), unix.F_SETOWN, t.PID)
	if unix.Kill(t.PID, 0) == nil || err != unix.EPERM || unix.Prlimit(t.PID, unix.RLIMIT_CPU, nil, nil) == nil {
		can = append(can, "signal other processes")
	}
	if unix.Geteuid() == 0 {
		can = append(can, "act as root")
	}
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		can = append(can, fmt.Sprintf("use capabilities that cannot be told (%v)", err))
	} else if all := uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32; all != 0 {
		can = append(can, "use "+strings.Join(names(all), ", "))
	}
	slices.Sort(can)
	return can
}

var capabilityNames = map[int]string{
	unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE", unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN",
	unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON",
	unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE", unix.CAP_FOWNER: "CAP_FOWNER", unix.CAP_IPC_LOCK: "CAP_IPC_LOCK", unix.CAP_IPC_OWNER: "CAP_IPC_OWNER",
	unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE", unix.CAP_SYS_CHROOT: "CAP_SYS_CHROOT",
	unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETGID: "CAP_SETGID",
}

// names are those of a set of capabilities.
func names(set uint64) (names []string) {
	for c := range 64 {
		if set&(1<<c) == 0 {
			continue
		}
		name, ok := capabilityNames[c]
		if !ok {
			name = fmt.Sprintf("capability %d", c)
		}
		names = append(names, name)
	}
	return names
}
