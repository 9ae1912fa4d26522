package openbsd

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/stopd/stopd/host"
)

// Devices by their major numbers, the same on amd64, arm64, i386 and riscv64 (conf.c).
const (
	majorConsole = 0
	majorOwn     = 1 // /dev/tty: the terminal of the session
	majorSlave   = 5
	majorMaster  = 6
	majorSerial  = 8
	majorDisplay = 12
	majorUSB     = 66
)

// device splits a device number (sys/types.h).
func device(dev uint32) (major, minor uint32) { return dev >> 8 & 0xff, dev&0xff | dev&0xffff0000>>8 }

// isTerminal reports whether a device is a terminal of its own.
func isTerminal(major uint32) bool {
	return major == majorConsole || major == majorSerial || major == majorDisplay || major == majorUSB
}

// Letters of pseudo terminals' names (kern/tty_pty.c).
const (
	ttyLetters  = "pqrstuvwxyzPQRST"
	ttySuffixes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// slaveName is the name of the slave side of a pseudo terminal.
func slaveName(minor uint32) string { return "tty" + ptyLetters(minor) }

func ptyLetters(minor uint32) string {
	i, j := int(minor)/len(ttySuffixes), int(minor)%len(ttySuffixes)
	if i >= len(ttyLetters) {
		return strconv.Itoa(int(minor))
	}
	return ttyLetters[i:i+1] + ttySuffixes[j:j+1]
}

// ttyName names a controlling terminal.
func ttyName(dev uint32) string {
	major, minor := device(dev)
	switch {
	case dev == noDevice:
		return ""
	case major == majorSlave:
		return slaveName(minor)
	case major == majorConsole:
		return "console"
	}
	return fmt.Sprintf("%d,%d", major, minor)
}

// address names what the kernel has at an address; empty where it does not tell.
func address(class string, at uint64) host.Object {
	if at == 0 || at == hidden {
		return ""
	}
	return host.Object(fmt.Sprintf("%s:[%x]", class, at))
}

// object names a socket: by its PCB. Who is not root is told no addresses; a TCP connection is one thing by its ends, of which the
// kernel has no two in one routing table (in_pcbconnect).
func (s socket) object() host.Object {
	if s.pcb == hidden && s.protocol() == host.TCP && s.remote.IsValid() {
		return host.Object(fmt.Sprintf("tcp:[%d %s %s]", s.table, s.local, s.remote))
	}
	return address("socket", s.pcb)
}

func numbered(class string, n uint32) host.Object {
	return host.Object(fmt.Sprintf("%s:[%d]", class, n))
}

// object names a file or FIFO.
func (v vnode) object(class string) host.Object {
	if v.id == 0 {
		return ""
	}
	return host.Object(fmt.Sprintf("%s:[%x:%d]", class, v.fsid, v.id))
}

// protocol is the kind of an internet socket; empty for any other.
func (s socket) protocol() host.Kind {
	switch {
	case s.family != familyInet && s.family != familyInet6:
		return ""
	case s.kind == socketRaw:
		return host.Raw
	case s.kind == socketStream && s.proto == protoTCP:
		return host.TCP
	case s.kind == socketDatagram && s.proto == protoUDP:
		return host.UDP
	}
	return ""
}

// tcpStates are the states of TCP (netinet/tcp_fsm.h).
var tcpStates = []string{"CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-1", "CLOSING", "LAST-ACK", "FIN-WAIT-2", "TIME-WAIT"}

// stateName names the state of an internet socket; a datagram socket has one where it is connected.
func (s socket) stateName() string {
	switch {
	case s.protocol() != host.TCP && s.remote.IsValid():
		return "ESTABLISHED"
	case s.protocol() == host.TCP && int(s.tcp) < len(tcpStates):
		return tcpStates[s.tcp]
	}
	return ""
}

// direction tells who opened a connection (thesis section 4.5.2): the kernel marks what was opened from here, but for
// datagram and raw sockets, which are connected from here alone.
func (s socket) direction() (host.Direction, host.Source) {
	switch {
	case !s.remote.IsValid():
		return "", ""
	case s.protocol() != host.TCP:
		return host.Outbound, host.FromAddress
	case s.state&stateConnectOut != 0:
		return host.Outbound, host.FromKernel
	}
	return host.Inbound, host.FromKernel
}

// mode is what may pass through a descriptor of a socket that is shut down on no side, or one.
func (s socket) mode() host.Mode {
	switch {
	case s.family != familyUnix:
		return host.ReadWrite
	case s.state&stateSendClosed != 0 && s.state&stateReceiveClosed == 0:
		return host.Read
	case s.state&stateReceiveClosed != 0 && s.state&stateSendClosed == 0:
		return host.Write
	}
	return host.ReadWrite
}

// ends is a connection in one routing domain, to find its other end by.
type ends struct {
	kind          host.Kind
	domain        uint32
	local, remote netip.AddrPort
}
