package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd/internal/recorder"
)

// Where what is of each kind ends, in octets, as recorder.bpf.c has it.
const (
	headEnd    = 24 // struct event
	touchEnd   = 32 // struct touch_event
	closedEnd  = 56 // struct closed_event
	openEnd    = 44 // struct open_event up to its ends
	processEnd = 72 // struct process_event up to its path
	jointSize  = 24 // struct joint
)

var errEvent = errors.New("not an event")

// DecodeEvent reads one event, in the machine's order of octets, and returns what follows it. The event has slices of b.
func DecodeEvent(b []byte, ev *recorder.Event) (rest []byte, err error) {
	*ev = recorder.Event{Joints: ev.Joints[:0]}
	if len(b) < headEnd {
		return nil, fmt.Errorf("read event: %w: %d octets", errEvent, len(b))
	}
	e := binary.NativeEndian
	ev.Kind, ev.At = recorder.Kind(b[0]), e.Uint64(b[16:])
	id := recorder.ID{PID: e.Uint32(b[4:]), Start: e.Uint64(b[8:])}
	if id.PID != 0 { // else it is nobody's of ours
		ev.Process.ID = id
	}
	n, length := 0, int(e.Uint16(b[2:]))
	switch ev.Kind {
	case recorder.Forked, recorder.Executed, recorder.Exited, recorder.ProcessMet:
		n = processEnd + length
	case recorder.Connecting, recorder.Touched:
		n = touchEnd
	case recorder.Closed:
		n = closedEnd
	case recorder.Established, recorder.ConnectionMet:
		if n = openEnd + 2*length; length != 4 && length != 16 {
			return nil, fmt.Errorf("read event of kind %d: %w: addresses of %d octets", b[0], errEvent, length)
		}
	case recorder.Held:
		n = headEnd + jointSize*length
	default:
		return nil, fmt.Errorf("read event: %w: kind %d", errEvent, b[0])
	}
	if len(b) < n {
		return nil, fmt.Errorf("read event of kind %d: %w: %d octets of %d", b[0], errEvent, len(b), n)
	}
	c := &ev.Connection
	switch ev.Kind {
	case recorder.Connecting, recorder.Touched:
		c.Cookie = e.Uint64(b[24:])
		if b[1] != 0 && ev.Kind == recorder.Touched {
			c.Closed = ev.At
		}
	case recorder.Closed:
		c.Cookie, c.Sent, c.Received, c.UID = e.Uint64(b[24:]), e.Uint64(b[32:]), e.Uint64(b[40:]), e.Uint32(b[48:])
	case recorder.Established, recorder.ConnectionMet:
		c.Cookie, c.UID, c.NetNS = e.Uint64(b[24:]), e.Uint32(b[32:]), e.Uint32(b[36:])
		c.Direction = recorder.Direction(min(b[1], byte(recorder.Inbound)))
		c.Local, c.Remote = end(b[openEnd:openEnd+length], b[40:]), end(b[openEnd+length:n], b[42:])
	case recorder.Held:
		return b[n:], decodeJoints(b[:n], ev)
	default:
		decodeProcess(b[:n], &ev.Process)
	}
	return b[n:], nil
}

// end is an address and port, in the network's order.
func end(address, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(address) // of 4 octets or of 16
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

func decodeProcess(b []byte, p *recorder.Process) {
	e := binary.NativeEndian
	if pid := e.Uint32(b[24:]); pid != 0 {
		p.Parent = recorder.ID{PID: pid, Start: e.Uint64(b[32:])}
	}
	p.Session = e.Uint32(b[28:])
	p.RUID, p.EUID, p.LoginUID, p.AuditSession = e.Uint32(b[40:]), e.Uint32(b[44:]), e.Uint32(b[48:]), e.Uint32(b[52:])
	p.Name, _, _ = bytes.Cut(b[56:processEnd], []byte{0})
	p.Exe = b[processEnd:]
}

func decodeJoints(b []byte, ev *recorder.Event) error {
	e := binary.NativeEndian
	ev.More = b[1] != 0
	for b = b[headEnd:]; len(b) > 0; b = b[jointSize:] {
		o := recorder.Object{Class: recorder.Class(b[20]), Device: e.Uint32(b[16:]), Number: e.Uint64(b)}
		j := recorder.Joint{Object: o, Peer: o, Mode: recorder.Mode(b[21]) & (recorder.Reads | recorder.Writes | recorder.Passing | recorder.Named | recorder.Inherited)}
		switch o.Class {
		case recorder.Pipe:
		case recorder.Unix:
			if j.Peer.Number = e.Uint64(b[8:]); j.Peer.Number == 0 {
				j.Peer = recorder.Object{}
			}
		case recorder.Master:
			j.Peer.Class = recorder.Slave
		case recorder.Slave:
			j.Peer.Class = recorder.Master
		default:
			return fmt.Errorf("read joint: %w: class %d", errEvent, o.Class)
		}
		ev.Joints = append(ev.Joints, j)
	}
	return nil
}
