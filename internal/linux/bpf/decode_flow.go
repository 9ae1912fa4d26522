package bpf

import (
	"encoding/binary"
	"fmt"
)

// A Call is one by which a thread took something from a socket or sent by it, as struct call of flow.bpf.c has it.
type Call struct {
	// At is nanoseconds of CLOCK_BOOTTIME.
	At uint64
	// Socket is the number of its inode.
	Socket uint64
	// Thread is as the first PID namespace counts; it only serves to be compared.
	Thread uint32
	// Octets were taken or sent; 0 where they were only looked at, and of Advanced.
	Octets uint32
	// Taken is the sequence number up to which all octets of the connection were taken; of Advanced alone.
	Taken uint32
	// Waits is how often the thread had waited for something so far.
	Waits uint32
	Kind  CallKind
}

// A CallKind says what a call did.
type CallKind uint8

// Kinds of calls.
const (
	// Took is a call that took octets of another socket than TCP's, or looked at some of any.
	Took CallKind = 1 + iota
	Sent
	// Advanced is a call that took octets of a TCP connection up to Taken, or found none to take. One call may be several of it.
	Advanced
)

const callSize = 40

// DecodeCall reads one call, in the machine's order of octets.
func DecodeCall(b []byte) (Call, error) {
	if len(b) < callSize {
		return Call{}, fmt.Errorf("read call: %d octets of %d", len(b), callSize)
	}
	e := binary.NativeEndian
	c := Call{At: e.Uint64(b), Socket: e.Uint64(b[8:]), Thread: e.Uint32(b[16:]), Octets: e.Uint32(b[20:]),
		Taken: e.Uint32(b[24:]), Waits: e.Uint32(b[28:]), Kind: CallKind(b[32])}
	if c.Kind < Took || c.Kind > Advanced {
		return Call{}, fmt.Errorf("read call: kind %d", c.Kind)
	}
	return c, nil
}
