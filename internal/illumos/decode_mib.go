package illumos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Levels and names of what the network stack answers (inet/mib2.h), and where its records have what is read.
const (
	levelTCP  = 262
	levelTCP6 = 270
	nameTable = 0 // of the level itself: mib2_tcp_t
	nameConns = 13
	nameConn6 = 14

	// mib2_tcp_t says how long the records of connections are, which differs from release to release.
	tcpConnSize  = 48
	tcp6ConnSize = 208
	tcpTable     = 212

	connState   = 0
	connLocal   = 4
	connLPort   = 8
	connRemote  = 12
	connRPort   = 16
	connCreator = 160
	connMin     = 164

	conn6Local   = 0
	conn6LPort   = 16
	conn6Remote  = 20
	conn6RPort   = 36
	conn6State   = 44
	conn6Creator = 188
	conn6Min     = 192
)

// The message that asks for all of it, and its answers (sys/tihdr.h, sys/tpi.h, sys/socket.h).
const (
	optMgmtRequest = 9  // T_SVR4_OPTMGMT_REQ
	optMgmtAck     = 22 // T_OPTMGMT_ACK
	errorAck       = 18 // T_ERROR_ACK
	flagCurrent    = 128
	levelAll       = 1028 // EXPER_IP_AND_ALL_IRES

	requestHeader = 16
	optionHeader  = 12
)

// A message is one answer: data of one level and name.
type message struct {
	level, name uint32
	data        []byte
}

// A connection is what the network stack says of a TCP socket, listening ones too.
type connection struct {
	local, remote netip.AddrPort
	state         int
	creator       int // the process that made it, or for which it was accepted; 0 is not known
}

// formatRequest makes the message that asks for all tables.
func formatRequest() []byte {
	b := make([]byte, requestHeader+optionHeader)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(0, optMgmtRequest)
	put(4, optionHeader)
	put(8, requestHeader)
	put(12, flagCurrent)
	put(requestHeader, levelAll)
	return b
}

// parseAck parses the control part of an answer: what its data is of, and how much that is. Level 0 ends the answers.
func parseAck(b []byte) (level, name, size uint32, err error) {
	if len(b) < requestHeader {
		return 0, 0, 0, fmt.Errorf("parse answer of the network stack: %d octets", len(b))
	}
	switch kind := u32(b, 0); kind {
	case optMgmtAck:
	case errorAck:
		return 0, 0, 0, errors.New("the network stack refused the question")
	default:
		return 0, 0, 0, fmt.Errorf("parse answer of the network stack: it is of type %d", kind)
	}
	at := int(u32(b, 8))
	if u32(b, 4) < optionHeader || at < requestHeader || at > len(b)-optionHeader {
		return 0, 0, 0, nil
	}
	return u32(b, at), u32(b, at+4), u32(b, at+8), nil
}

// parseConnections parses the connections out of all answers.
func parseConnections(ms []message) ([]connection, error) {
	size4, size6 := 0, 0
	for _, m := range ms {
		if m.level == levelTCP && m.name == nameTable && len(m.data) >= tcpTable {
			size4, size6 = int(u32(m.data, tcpConnSize)), int(u32(m.data, tcp6ConnSize))
		}
	}
	if size4 < connMin || size6 < conn6Min {
		return nil, fmt.Errorf("parse connections: records of %d and %d octets", size4, size6)
	}
	var cs []connection
	for _, m := range ms {
		switch {
		case m.level == levelTCP && m.name == nameConns:
			for b := m.data; len(b) >= size4; b = b[size4:] {
				cs = append(cs, connection{local: end4(b, connLocal, connLPort), remote: end4(b, connRemote, connRPort), state: int(u32(b, connState)),
					creator: int(int32(u32(b, connCreator)))})
			}
		case m.level == levelTCP6 && m.name == nameConn6:
			for b := m.data; len(b) >= size6; b = b[size6:] {
				cs = append(cs, connection{local: end6(b, conn6Local, conn6LPort), remote: end6(b, conn6Remote, conn6RPort), state: int(u32(b, conn6State)),
					creator: int(int32(u32(b, conn6Creator)))})
			}
		}
	}
	return cs, nil
}

func end4(b []byte, addr, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[addr:addr+4])), uint16(u32(b, port)))
}

func end6(b []byte, addr, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[addr:addr+16])).Unmap(), uint16(u32(b, port)))
}

// tcpStates are the states of TCP (inet/mib2.h).
var tcpStates = map[int]string{1: "CLOSED", 2: "LISTEN", 3: "SYN-SENT", 4: "SYN-RECEIVED", 5: "ESTABLISHED", 6: "FIN-WAIT-1", 7: "FIN-WAIT-2", 8: "CLOSE-WAIT",
	9: "LAST-ACK", 10: "CLOSING", 11: "TIME-WAIT"}

const stateListen = 2
