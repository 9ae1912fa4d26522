package linux

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// families are the kinds of sockets that join no two processes as far as the kernel tells (socket(2)).
var families = map[int]string{unix.AF_NETLINK: "netlink", unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_ALG: "alg",
	unix.AF_XDP: "xdp", unix.AF_TIPC: "tipc", unix.AF_SMC: "smc", unix.AF_KCM: "kcm", unix.AF_BLUETOOTH: "bluetooth", unix.AF_CAN: "can",
	unix.AF_RDS: "rds", unix.AF_QIPCRTR: "qrtr", unix.AF_RXRPC: "rxrpc"}

// otherFamily names a socket that is neither of the internet nor a UNIX one, with its addresses where these are
// known here. One that may speak with another process is a gap: which one, the kernel does not tell.
func (s *snapshot) otherFamily(d *host.Descriptor, fd, domain int, what string, r *reading) {
	d.Name = families[domain]
	if d.Name == "" {
		d.Name = "family " + strconv.Itoa(domain)
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		local = nil
	}
	remote, err := unix.Getpeername(fd)
	if err != nil && !errors.Is(err, unix.ENOTCONN) {
		remote = nil
	}
	joins := false
	switch domain {
	case unix.AF_NETLINK:
		l, ok := local.(*unix.SockaddrNetlink)
		to, ok2 := remote.(*unix.SockaddrNetlink)
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if !ok || err != nil {
			break
		}
		d.Name += fmt.Sprintf(" protocol %d port %d", protocol, l.Pid)
		joins = protocol == unix.NETLINK_USERSOCK
		if ok2 && to.Pid != 0 { // 0 is the kernel
			d.Name, joins = d.Name+fmt.Sprintf(" to %d", to.Pid), true
		}
	case unix.AF_VSOCK:
		if l, ok := local.(*unix.SockaddrVM); ok {
			d.Name += fmt.Sprintf(" %d:%d", l.CID, l.Port)
		}
		if to, ok := remote.(*unix.SockaddrVM); ok {
			d.Name, joins = d.Name+fmt.Sprintf(" to %d:%d", to.CID, to.Port), true
		}
	case unix.AF_TIPC, unix.AF_SMC, unix.AF_KCM:
		joins = true
	}
	if joins {
		r.gap("other end of "+what, "the kernel does not tell who has it: "+d.Name)
	}
}
