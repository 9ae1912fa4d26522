package conntrack

import (
	"errors"
	"fmt"

	"github.com/stopd/stopd/internal/nlattr"
)

// A Kind is what has happened to an entry.
type Kind uint8

// Kinds of events.
const (
	New       Kind = iota + 1 // the entry was made: the first packet has passed
	Updated                   // such as its state
	Destroyed                 // it was removed: the connection has ended some time ago, or was silent for long
)

// An Event says what has happened to an entry.
type Event struct {
	Kind  Kind
	Entry Entry
}

// Flags of a message that tells of a new entry (net/netfilter/nf_conntrack_netlink.c, ctnetlink_conntrack_event): NLM_F_EXCL and
// NLM_F_CREATE of linux/netlink.h.
const createFlags = 0x200 | 0x400

// ParseEvent parses a message that the kernel sends by itself, with its type and flags. False is for events that are of no TCP connection.
func ParseEvent(typ, flags uint16, b []byte) (Event, bool, error) {
	var v Event
	switch {
	case typ == MessageNew && flags&createFlags != 0:
		v.Kind = New
	case typ == MessageNew:
		v.Kind = Updated
	case typ == MessageDelete:
		v.Kind = Destroyed
	default:
		return Event{}, false, fmt.Errorf("parse event of connection tracking: type %#x: %w", typ, nlattr.ErrSyntax)
	}
	var err error
	if v.Entry, err = ParseEntry(b); err != nil {
		if errors.Is(err, errNotTCP) {
			err = nil
		}
		return Event{}, false, err
	}
	return v, true, nil
}
