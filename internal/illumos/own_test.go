package illumos

import (
	"errors"
	"net/netip"
	"testing"
)

// Records are taken as they are laid out where other calls say the same of this process, and refused where one thing differs.
func TestOwn(t *testing.T) {
	of := func(name string) info {
		i, err := parseInfo(record(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	socket, terminal := of("8339-fdinfo-3"), of("8338-fdinfo-0")
	right := own{fd: 3, mode: socket.mode, inode: socket.inode, dev: uint64(socket.major)<<32 | uint64(socket.minor), rdev: 9, access: 2, kind: socketStream,
		local: netip.MustParseAddrPort("192.0.2.2:968"), remote: netip.MustParseAddrPort("203.0.113.3:23")}
	if err := right.compare(socket); err != nil {
		t.Error(err)
	}
	device := own{fd: 0, mode: terminal.mode, inode: terminal.inode, dev: uint64(terminal.major)<<32 | uint64(terminal.minor), rdev: 24<<32 | 3, access: 2}
	if err := device.compare(terminal); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(o *own){
		"descriptor": func(o *own) { o.fd++ }, "mode": func(o *own) { o.mode++ }, "inode": func(o *own) { o.inode++ }, "major": func(o *own) { o.dev += 1 << 32 },
		"minor": func(o *own) { o.dev++ }, "access": func(o *own) { o.access = 0 }, "type": func(o *own) { o.kind = 1 },
		"name": func(o *own) { o.local = o.remote }, "peer": func(o *own) { o.remote = netip.AddrPort{} },
	} {
		wrong := right
		change(&wrong)
		if err := wrong.compare(socket); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	device.rdev++
	if err := device.compare(terminal); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another device: %v", err)
	}
	p, err := parsePsinfo(record(t, "8339-psinfo"))
	if err != nil {
		t.Fatal(err)
	}
	ids := psinfo{pid: 8339, ppid: 8338, pgid: p.pgid, sid: 8338, ruid: 1000, euid: 1000, rgid: 1000, egid: 1000}
	if err := p.compareIDs(ids); err != nil {
		t.Error(err)
	}
	ids.egid = 0
	if err := p.compareIDs(ids); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another group: %v", err)
	}
}
