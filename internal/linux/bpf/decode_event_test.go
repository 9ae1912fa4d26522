package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd/internal/recorder"
)

// encodeEvent is the inverse of DecodeEvent.
func encodeEvent(ev recorder.Event) []byte {
	e := binary.NativeEndian
	p, c := ev.Process, ev.Connection
	beside, n := byte(c.Direction), len(p.Exe)
	if ev.Kind == recorder.Touched && ev.Connection.Closed != 0 {
		beside = 1
	}
	if ev.Kind == recorder.Held {
		if n = len(ev.Joints); ev.More {
			beside = 1
		}
	}
	b := e.AppendUint16([]byte{byte(ev.Kind), beside}, uint16(n))
	b = e.AppendUint32(b, p.PID)
	b = e.AppendUint64(e.AppendUint64(b, p.Start), ev.At)
	switch ev.Kind {
	case recorder.Forked, recorder.Executed, recorder.Exited, recorder.ProcessMet:
		b = e.AppendUint32(e.AppendUint32(b, p.Parent.PID), p.Session)
		b = e.AppendUint64(b, p.Parent.Start)
		for _, n := range []uint32{p.RUID, p.EUID, p.LoginUID, p.AuditSession} {
			b = e.AppendUint32(b, n)
		}
		name := [16]byte{}
		copy(name[:], p.Name)
		return append(append(b, name[:]...), p.Exe...)
	case recorder.Held:
		for _, j := range ev.Joints {
			b = e.AppendUint64(e.AppendUint64(b, j.Object.Number), j.Peer.Number)
			b = append(e.AppendUint32(b, j.Object.Device), byte(j.Object.Class), byte(j.Mode), 0, 0)
		}
		return b
	}
	b = e.AppendUint64(b, c.Cookie)
	switch ev.Kind {
	case recorder.Connecting, recorder.Touched:
		return b
	case recorder.Closed:
		return e.AppendUint32(e.AppendUint32(e.AppendUint64(e.AppendUint64(b, c.Sent), c.Received), c.UID), 0)
	}
	l, r := c.Local.Addr().AsSlice(), c.Remote.Addr().AsSlice()
	if len(l) != len(r) { // one is mapped
		long := func(a netip.Addr) []byte { b := a.As16(); return b[:] }
		l, r = long(c.Local.Addr()), long(c.Remote.Addr())
	}
	e.PutUint16(b[2:], uint16(len(l)))
	b = e.AppendUint32(e.AppendUint32(b, c.UID), c.NetNS)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, c.Local.Port()), c.Remote.Port())
	return append(append(b, l...), r...)
}

var events = []recorder.Event{
	{Kind: recorder.Forked, At: 1, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}, Parent: recorder.ID{PID: 4, Start: 5}, Session: 6,
		RUID: 7, EUID: 8, LoginUID: 9, AuditSession: 10, Name: []byte("a name of 15 oc")}},
	{Kind: recorder.Executed, At: 1, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}, Name: []byte("x"), Exe: []byte("/bin/x")}},
	{Kind: recorder.Exited, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}}},
	{Kind: recorder.ProcessMet, Process: recorder.Process{ID: recorder.ID{PID: 1<<32 - 1, Start: 1<<64 - 1}}},
	{Kind: recorder.Connecting, At: 1, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}}, Connection: recorder.Connection{Cookie: 4}},
	{Kind: recorder.Touched, At: 1, Connection: recorder.Connection{Cookie: 4}},
	{Kind: recorder.Touched, At: 1, Connection: recorder.Connection{Cookie: 4, Closed: 1}},
	{Kind: recorder.Closed, At: 1, Connection: recorder.Connection{Cookie: 4, Sent: 7, Received: 8, UID: 9}},
	{Kind: recorder.Established, At: 1, Connection: recorder.Connection{Cookie: 4, UID: 5, NetNS: 6, Direction: recorder.Inbound,
		Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("198.51.100.2:1025")}},
	{Kind: recorder.ConnectionMet, At: 1, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}}, Connection: recorder.Connection{Cookie: 4,
		Direction: recorder.Outbound, UID: 1<<32 - 1, Local: netip.MustParseAddrPort("[2001:db8::1]:1"), Remote: netip.MustParseAddrPort("[2001:db8::2]:65535")}},
	{Kind: recorder.Held, At: 1, Process: recorder.Process{ID: recorder.ID{PID: 2, Start: 3}}, More: true, Joints: []recorder.Joint{
		{Object: recorder.Object{Class: recorder.Pipe, Device: 4, Number: 5}, Peer: recorder.Object{Class: recorder.Pipe, Device: 4, Number: 5}, Mode: recorder.Reads},
		{Object: recorder.Object{Class: recorder.Unix, Number: 6}, Peer: recorder.Object{Class: recorder.Unix, Number: 7}, Mode: recorder.Reads | recorder.Writes | recorder.Named},
		{Object: recorder.Object{Class: recorder.Unix, Number: 6}, Mode: recorder.Reads | recorder.Writes | recorder.Passing},
		{Object: recorder.Object{Class: recorder.Master, Device: 8, Number: 9}, Peer: recorder.Object{Class: recorder.Slave, Device: 8, Number: 9}},
		{Object: recorder.Object{Class: recorder.Slave, Device: 8, Number: 9}, Peer: recorder.Object{Class: recorder.Master, Device: 8, Number: 9}}}},
	{Kind: recorder.Held},
}

var sameEvent = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})}

func TestDecodeEvent(t *testing.T) {
	for _, want := range events {
		b := encodeEvent(want)
		var got recorder.Event
		rest, err := DecodeEvent(append(b, "rest"...), &got)
		if err != nil || string(rest) != "rest" {
			t.Errorf("kind %d: %v, %q is left", want.Kind, err, rest)
		}
		if d := cmp.Diff(want, got, sameEvent); d != "" {
			t.Errorf("kind %d (-want +got):\n%s", want.Kind, d)
		}
		for n := range b {
			if _, err := DecodeEvent(b[:n], &got); !errors.Is(err, errEvent) {
				t.Errorf("kind %d: %d octets of %d are an event: %v", want.Kind, n, len(b), err)
			}
		}
	}
	for _, ends := range []string{"192.0.2.1", "::ffff:192.0.2.1"} { // as a socket of IPv6 has them
		var got recorder.Event
		b := encodeEvent(recorder.Event{Kind: recorder.Established, Connection: recorder.Connection{
			Local: netip.AddrPortFrom(netip.MustParseAddr("::1"), 1), Remote: netip.AddrPortFrom(netip.MustParseAddr(ends), 2)}})
		if _, err := DecodeEvent(b, &got); err != nil || got.Connection.Remote != netip.MustParseAddrPort("192.0.2.1:2") {
			t.Errorf("an end at %s is %v, %v", ends, got.Connection.Remote, err)
		}
	}
	for length := range byte(255) {
		var got recorder.Event
		b := append([]byte{byte(recorder.Established), 0}, binary.NativeEndian.AppendUint16(nil, uint16(length))...)
		if _, err := DecodeEvent(append(b, make([]byte, 600)...), &got); (err == nil) != (length == 4 || length == 16) {
			t.Errorf("addresses of %d octets: %v", length, err)
		}
	}
	for _, kind := range []byte{0, byte(recorder.Held) + 1, 255} {
		var got recorder.Event
		if _, err := DecodeEvent(append([]byte{kind}, make([]byte, 500)...), &got); !errors.Is(err, errEvent) {
			t.Errorf("kind %d is an event: %+v, %v", kind, got, err)
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, ev := range events {
		f.Add(encodeEvent(ev))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var ev, again recorder.Event
		rest, err := DecodeEvent(b, &ev)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("an event takes nothing")
		}
		if _, err := DecodeEvent(encodeEvent(ev), &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(ev, again, sameEvent); d != "" {
			t.Errorf("read again (-want +got):\n%s", d)
		}
	})
}
