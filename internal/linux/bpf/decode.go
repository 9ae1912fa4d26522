package bpf

import "encoding/binary"

// A Record is one descriptor, as struct record of files.bpf.c has it.
type Record struct {
	// PID and TID are as the reader's PID namespace counts.
	PID, TID, FD uint32
	// Mode is the lowest bits of f_mode: 1 may read, 2 may write; or Cut.
	Mode uint32
	// File, Inode and Table are kernel addresses of the open file, of its inode and of the table of
	// descriptors. They only serve to be compared.
	File, Inode, Table uint64
	// Number is the inode's, of a master side the terminal's.
	Number uint64
	// Magic is the type of the file system (linux/magic.h).
	Magic uint64
	// Device is of the file system; of a master side, of that which the slave is on. Rdev is of a device.
	// Both are as the kernel counts, 12 and 20 bits.
	Device, Rdev uint32
	// Type is the inode's mode (inode(7)), 0 of an anonymous file.
	Type uint16
	// Plain says that stat(2) shows device and inode number as they are.
	Plain bool
	Kind  Kind
	// References are to the open file, and Waiters how many of them are of calls that wait for it.
	References, Waiters uint32
	// Files is how many open files a socket or pipe has; else 0.
	Files uint32
}

// A Kind says what Number is.
type Kind uint8

// Kinds.
const (
	Inode Kind = iota
	Master
)

// Cut is the mode of a record that stands for itself and all further descriptors of its table, because
// there are more than were asked for.
const Cut = 4

const recordSize = 80

// Decode reads records, in the machine's order of octets, and returns what is left of an unfinished one.
func Decode(b []byte, each func(*Record)) []byte {
	var r Record
	e := binary.NativeEndian
	for len(b) >= recordSize {
		r = Record{
			PID: e.Uint32(b), TID: e.Uint32(b[4:]), FD: e.Uint32(b[8:]), Mode: e.Uint32(b[12:]),
			File: e.Uint64(b[16:]), Inode: e.Uint64(b[24:]), Table: e.Uint64(b[32:]), Number: e.Uint64(b[40:]), Magic: e.Uint64(b[48:]),
			Device: e.Uint32(b[56:]), Rdev: e.Uint32(b[60:]), Type: e.Uint16(b[64:]), Plain: b[66] != 0, Kind: Kind(b[67]),
			References: e.Uint32(b[68:]), Waiters: e.Uint32(b[72:]), Files: e.Uint32(b[76:]),
		}
		each(&r)
		b = b[recordSize:]
	}
	return b
}
