package conntrack

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/nlattr"
)

func TestParseEvent(t *testing.T) {
	e := Entry{Original: flowOf("10.0.0.2:5555", "192.0.2.3:80"), Reply: flowOf("192.0.2.3:80", "192.0.2.2:61000")}
	for name, c := range map[string]struct {
		typ, flags uint16
		want       Kind
	}{"new": {MessageNew, 0x600, New}, "updated": {MessageNew, 0, Updated}, "destroyed": {MessageDelete, 0, Destroyed}} {
		if got, ok, err := ParseEvent(c.typ, c.flags, entryOf(e)); got != (Event{c.want, e}) || !ok || err != nil {
			t.Errorf("%s: %+v, %t, %v", name, got, ok, err)
		}
	}
	if _, ok, err := ParseEvent(MessageStats, 0, entryOf(e)); ok || !errors.Is(err, nlattr.ErrSyntax) {
		t.Errorf("another message: %t, %v", ok, err)
	}
	// Most events are of the names that hosts look up.
	proto := nlattr.Append(nil, ctaTupleProto|nlattr.Nested, nlattr.Append(nil, ctaProtoNum, []byte{17}))
	udp := nlattr.Append([]byte{afInet, 0, 0, 0}, OriginalTuple|nlattr.Nested, proto)
	if got, ok, err := ParseEvent(MessageNew, 0x600, udp); got != (Event{}) || ok || err != nil {
		t.Errorf("UDP: %+v, %t, %v", got, ok, err)
	}
	if _, ok, err := ParseEvent(MessageDelete, 0, entryOf(e)[:50]); ok || err == nil {
		t.Errorf("cut: %t, %v", ok, err)
	}
}

func TestParseTimesAndState(t *testing.T) {
	e := Entry{Original: flowOf("10.0.0.2:5555", "192.0.2.3:80"), Reply: flowOf("192.0.2.3:80", "192.0.2.2:61000"), Replied: true, Assured: true, State: "TIME-WAIT",
		Begun: time.Unix(1700000000, 5).UTC(), Ended: time.Unix(1700000009, 6).UTC()}
	b := nlattr.Append(entryOf(e), ctaStatus, []byte{0, 0, 1, 0x8e})
	b = nlattr.Append(b, ctaProtoInfo|nlattr.Nested, nlattr.Append(nil, ctaProtoInfoTCP|nlattr.Nested, nlattr.Append(nil, ctaTCPState, []byte{7})))
	times := func(begun, ended int64) []byte {
		v := nlattr.Append(nil, ctaTimestampStart, binary.BigEndian.AppendUint64(nil, uint64(begun)))
		return nlattr.Append(v, ctaTimestampStop, binary.BigEndian.AppendUint64(nil, uint64(ended)))
	}
	b = nlattr.Append(b, ctaTimestamp|nlattr.Nested, times(e.Begun.UnixNano(), e.Ended.UnixNano()))
	if got, err := ParseEntry(b); got != e || err != nil {
		t.Errorf("%+v, %v, want %+v", got, err, e)
	}
	// What the kernel has not noted, and what no time is.
	b = nlattr.Append(entryOf(e), ctaTimestamp|nlattr.Nested, times(0, -1))
	if got, err := ParseEntry(b); !got.Begun.IsZero() || !got.Ended.IsZero() || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	// A state that this version does not know.
	b = nlattr.Append(entryOf(e), ctaProtoInfo|nlattr.Nested, nlattr.Append(nil, ctaProtoInfoTCP|nlattr.Nested, nlattr.Append(nil, ctaTCPState, []byte{77})))
	if got, err := ParseEntry(b); got.State != "" || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
