package recorder

import (
	"encoding/binary"
	"errors"
	"slices"
)

// What a piece of a history that is kept begins with. Numbers are big-endian.
const (
	keptSummary     = 1
	keptConnections = 2
	keptProcesses   = 3
)

// How many octets each has; a process's path follows it, and losses a summary.
const (
	summarySize    = 1 + 4*8
	lossSize       = 17
	connectionSize = 5*8 + holdersKept*12 + 2*4 + 2*18 + 2
	processSize    = 3*8 + 7*4 + 15 + 1 + 1
)

var errKept = errors.New("no piece of a history")

// A summary is what there is once of a history that is kept.
type summary struct {
	at     uint64 // until when all is in it
	losses losses
}

func appendSummary(b []byte, s summary) []byte {
	b = append(b, keptSummary)
	b = appendNumbers(b, s.at, s.losses.begun, s.losses.reach, s.losses.unjoined)
	for _, list := range s.losses.lists {
		for _, l := range list {
			b = appendNumbers(append(b, byte(l.Kind)), l.From, l.To)
		}
	}
	return b
}

func parseSummary(b []byte) (s summary, err error) {
	if len(b) < summarySize || b[0] != keptSummary || (len(b)-summarySize)%lossSize != 0 || len(b)-summarySize > len(s.losses.lists)*maxLosses*lossSize {
		return summary{}, errKept
	}
	n := numbersOf(b[1:])
	s = summary{n(), losses{begun: n(), reach: n(), unjoined: n()}}
	for c := range slices.Chunk(b[summarySize:], lossSize) {
		k := LossKind(c[0])
		if int(k) >= len(s.losses.lists) || k == 0 || len(s.losses.lists[k]) == maxLosses {
			return summary{}, errKept
		}
		n := numbersOf(c[1:])
		s.losses.lists[k] = append(s.losses.lists[k], Loss{k, n(), n()})
	}
	return s, nil
}

// keptFlags are those that are kept of an entry.
const keptFlags = met | unsure | more | partial | unjoined

func appendConnection(b []byte, s *connection) []byte {
	b = appendNumbers(b, s.cookie, s.opened, s.closed, s.pending, s.received)
	for i := range holdersKept {
		b = appendNumbers(b, s.starts[i])
		b = append32(b, s.pids[i])
	}
	b = append32(b, s.netns, s.uid)
	b = append(append(b, s.local[:]...), s.remote[:]...)
	b = binary.BigEndian.AppendUint16(b, s.localPort)
	b = binary.BigEndian.AppendUint16(b, s.remotePort)
	return append(b, s.flags&keptFlags, byte(s.direction))
}

// parseConnections calls each with the connections of a piece.
func parseConnections(b []byte, each func(connection)) error {
	if len(b) == 0 || b[0] != keptConnections || (len(b)-1)%connectionSize != 0 {
		return errKept
	}
	for c := range slices.Chunk(b[1:], connectionSize) {
		n := numbersOf(c)
		s := connection{cookie: n(), opened: n(), closed: n(), pending: n(), received: n()}
		c = c[5*8:]
		for i := range holdersKept {
			s.starts[i], s.pids[i] = binary.BigEndian.Uint64(c), binary.BigEndian.Uint32(c[8:])
			c = c[12:]
		}
		s.netns, s.uid = binary.BigEndian.Uint32(c), binary.BigEndian.Uint32(c[4:])
		s.local, s.remote = [16]byte(c[8:]), [16]byte(c[24:])
		s.localPort, s.remotePort = binary.BigEndian.Uint16(c[40:]), binary.BigEndian.Uint16(c[42:])
		s.flags, s.direction = c[44], Direction(c[45])
		if s.cookie == 0 || s.opened == 0 || s.flags&^keptFlags != 0 || s.direction > Inbound {
			return errKept
		}
		each(s)
	}
	return nil
}

func appendProcess(b []byte, s *process, flags uint8, path []byte) []byte {
	b = appendNumbers(b, s.start, s.parentStart, s.exited)
	b = append32(b, s.pid, s.parent, s.ruid, s.euid, s.loginUID, s.auditSession, s.session)
	b = append(append(b, s.name[:]...), flags, byte(len(path)))
	return append(b, path...)
}

// parseProcesses calls each with the processes of a piece, and with their paths, which are valid as long as b is.
func parseProcesses(b []byte, each func(s process, path []byte)) error {
	if len(b) == 0 || b[0] != keptProcesses {
		return errKept
	}
	for b = b[1:]; len(b) > 0; {
		if len(b) < processSize || len(b) < processSize+int(b[processSize-1]) {
			return errKept
		}
		n := numbersOf(b)
		s := process{start: n(), parentStart: n(), exited: n()}
		for i, f := range []*uint32{&s.pid, &s.parent, &s.ruid, &s.euid, &s.loginUID, &s.auditSession, &s.session} {
			*f = binary.BigEndian.Uint32(b[24+4*i:])
		}
		s.name, s.flags = [15]byte(b[52:]), b[67]
		if s.pid == 0 || s.flags&^keptFlags != 0 {
			return errKept
		}
		end := processSize + int(b[processSize-1])
		each(s, b[processSize:end])
		b = b[end:]
	}
	return nil
}

func appendNumbers(b []byte, ns ...uint64) []byte {
	for _, n := range ns {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func append32(b []byte, ns ...uint32) []byte {
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// numbersOf returns what reads the next of the numbers that b begins with.
func numbersOf(b []byte) func() uint64 {
	return func() uint64 {
		n := binary.BigEndian.Uint64(b)
		b = b[8:]
		return n
	}
}
