package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
	"github.com/stopd/stopd/internal/posix"
)

// A Host is this machine.
type Host struct {
	diag      *diag
	conntrack *conntracker
	rtnetlink *rtnetlink
	netns     uint64
	cookie    uint64       // of the network namespace; 0 where the kernel has none
	boot      atomic.Int64 // when the host was started, in nanoseconds since 1970, as its clock says now: see readClock
	names     *posix.Accounts
	exes      *executables
	// uids and gids tell which ids the kernel can show in the daemon's user namespace.
	uids, gids idMap
	// records is what processes logged as they let somebody in.
	records records
	files   atomic.Pointer[bpf.Files] // nil where descriptors are read by /proc alone
	past    atomic.Pointer[past]      // nil where nothing is remembered

	mu        sync.Mutex
	facts     host.Facts // what does not change
	gaps      []host.Gap
	addrs     []netip.Addr
	links     map[netip.Addr][]uint32 // those that have an address
	addrsRead time.Time

	seen      sparing[map[uint64]string] // see spaces
	elsewhere sparing[elsewhere]
	stacked   sparing[[]stackedLink]
	zones     zones

	passed    *passed // nil where nothing is remembered; see Track
	untrack   context.CancelFunc
	listening sync.WaitGroup
}

// addressesAge is how old the list of the host's own addresses may be.
const addressesAge = time.Second

// Open prepares to look at this machine.
func Open() (*Host, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	h := &Host{diag: newDiag(0), conntrack: newConntracker(0), rtnetlink: newRTNetlink(0), netns: st.Ino, names: posix.NewAccounts(), exes: newExecutables()}
	if err := h.diag.check(context.Background()); err != nil {
		return nil, err
	}
	h.cookie, _ = namespaceCookie()
	h.uids, h.gids = readIDMap("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"), readIDMap("/proc/self/gid_map", "/proc/sys/kernel/overflowgid")
	h.readClock()
	h.readFacts()
	return h, nil
}

// Close frees what the host holds.
func (h *Host) Close() error {
	h.diag.close()
	if f := h.files.Swap(nil); f != nil {
		f.Close()
	}
	if p := h.past.Swap(nil); p != nil {
		p.close()
	}
	h.conntrack.close()
	h.rtnetlink.close()
	if h.untrack != nil {
		h.untrack()
		h.listening.Wait()
	}
	return nil
}

// readIDMap reads which ids the daemon's user namespace has. A kernel without such namespaces has one.
func readIDMap(ids, overflow string) idMap {
	m, err := os.ReadFile(ids)
	if err != nil {
		return idMap{all: true}
	}
	o, _ := os.ReadFile(overflow)
	return parseIDMap(m, o)
}

// namespaceCookie returns the cookie of the daemon's own network namespace.
func namespaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// UserName returns the name of a user; empty where it is not known.
func (h *Host) UserName(ctx context.Context, uid uint32) string { return h.names.UserName(ctx, uid) }

// Account returns the account of a user; without a name where none is known.
func (h *Host) Account(ctx context.Context, uid uint32) posix.Account { return h.names.Of(ctx, uid) }

// sameTime is how exactly that is read. The same adjustments are made to both clocks (clock_gettime(2), CLOCK_MONOTONIC), so that it changes only where
// the time is set.
const sameTime = time.Millisecond

// readClock notes when the host was started, as its clock says now: that may have been set since.
func (h *Host) readClock() {
	var since, now, after unix.Timespec
	for range 5 { // until nothing came between
		unix.ClockGettime(unix.CLOCK_BOOTTIME, &since) // they cannot fail
		unix.ClockGettime(unix.CLOCK_REALTIME, &now)
		unix.ClockGettime(unix.CLOCK_BOOTTIME, &after)
		if after.Nano()-since.Nano() < int64(sameTime)/10 {
			break
		}
	}
	boot := now.Nano() - since.Nano()
	if was := h.boot.Load(); time.Duration(boot-was).Abs() > sameTime {
		h.boot.Store(boot)
	}
}

// at is the date of a time since the host was started.
func (h *Host) at(since time.Duration) time.Time { return time.Unix(0, h.boot.Load()).UTC().Add(since) }

func (h *Host) readFacts() {
	h.facts = host.Facts{Arch: runtime.GOARCH}
	read := func(what, path string, set func([]byte)) {
		b, err := os.ReadFile(path)
		if err != nil {
			h.gaps = append(h.gaps, host.Gap{What: what, Why: err.Error()})
			return
		}
		set(b)
	}
	read("kernel version", "/proc/version", func(b []byte) { h.facts.Kernel = strings.TrimSpace(text(b)) })
	read("kernel release", "/proc/sys/kernel/osrelease", func(b []byte) { h.facts.Release = strings.TrimSpace(text(b)) })
	read("boot id", "/proc/sys/kernel/random/boot_id", func(b []byte) { h.facts.BootID = strings.TrimSpace(text(b)) })
	read("operating system", "/etc/os-release", func(b []byte) { h.facts.OS = parseOSRelease(b) })
}

// Facts returns what identifies this host.
func (h *Host) Facts(context.Context) (host.Facts, []host.Gap) {
	f, gaps := h.facts, slices.Clone(h.gaps)
	f.NetNS, f.BootTime = h.netns, h.at(0)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		gaps = append(gaps, host.Gap{What: "host name", Why: err.Error()})
	} else {
		f.Name = unix.ByteSliceToString(u.Nodename[:])
	}
	var err error
	if f.Addresses, _, err = h.addresses(); err != nil {
		gaps = append(gaps, host.Gap{What: "addresses", Why: err.Error()})
	}
	if f.Clock, err = clock(); err != nil {
		gaps = append(gaps, host.Gap{What: "clock", Why: err.Error()})
	}
	return f, gaps
}

// clock asks the kernel how well the clock is disciplined (adjtimex(2)).
func clock() (*host.Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return nil, fmt.Errorf("adjtimex: %w", err)
	}
	unit := 1e-6
	if t.Status&unix.STA_NANO != 0 {
		unit = 1e-9
	}
	return &host.Clock{
		Synchronised: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		Offset:       float64(t.Offset) * unit,
		Error:        float64(t.Maxerror) * 1e-6,
	}, nil
}

// addresses returns the host's own addresses, ascending, and the indexes of the links that have each.
func (h *Host) addresses() ([]netip.Addr, map[netip.Addr][]uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.addrsRead) < addressesAge {
		return h.addrs, h.links, nil
	}
	b, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	ms, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	h.addrs, h.links = nil, map[netip.Addr][]uint32{}
	for _, m := range ms {
		if a, link, ok := parseAddress(m.Data); ok && m.Header.Type == syscall.RTM_NEWADDR {
			h.addrs = append(h.addrs, a)
			h.links[a] = append(h.links[a], link)
		}
	}
	slices.SortFunc(h.addrs, netip.Addr.Compare)
	h.addrs = slices.Compact(h.addrs)
	h.addrsRead = time.Now()
	return h.addrs, h.links, nil
}

// Find looks a flow up in the host's own network namespace, and where it is not there, in the one that its
// packets come to. What is closed there may be remembered.
func (h *Host) Find(ctx context.Context, f host.Flow) (host.Socket, error) {
	h.readClock()
	s, err := h.findOpen(ctx, f)
	ended := err == nil && s.Inode == 0 && s.Object == ""
	passed := (*host.ForwardedError)(nil)
	switch {
	case errors.As(err, &passed):
		passed.Own = cmp.Or(h.ownBefore(f), passed.Own)
	case ended && errors.As(h.passedBefore(ctx, s.Outside()), &passed):
		passed.Own = cmp.Or(h.ownBefore(f), &s)
		return host.Socket{}, passed
	case ended || errors.Is(err, host.ErrNotFound):
		if past, e := h.recall(f); e == nil {
			return past, nil
		}
	}
	if err == nil {
		s.Opened, s.Since = h.opened(s.Cookie)
	}
	return s, err
}

func (h *Host) findOpen(ctx context.Context, f host.Flow) (host.Socket, error) {
	if f.Local.Addr().IsUnspecified() {
		return h.findAnywhere(ctx, f)
	}
	s, err := h.find(ctx, f)
	if errors.Is(err, host.ErrNotFound) && f.Protocol == host.TCP {
		set := h.newSpaces()
		defer set.close()
		return set.find(ctx, f)
	}
	return s, err
}

func (h *Host) findAnywhere(ctx context.Context, f host.Flow) (host.Socket, error) {
	addrs, _, err := h.addresses()
	if err != nil {
		return host.Socket{}, err
	}
	set := h.newSpaces()
	defer set.close()
	among := func(find func(f host.Flow) (host.Socket, error)) (host.Socket, error) {
		for _, a := range addrs {
			if a.Is4() != f.Remote.Addr().Unmap().Is4() {
				continue
			}
			f := f
			f.Local = netip.AddrPortFrom(a, f.Local.Port())
			if s, err := find(f); !errors.Is(err, host.ErrNotFound) {
				return s, err
			}
		}
		return host.Socket{}, host.ErrNotFound
	}
	s, err := among(func(f host.Flow) (host.Socket, error) { return h.find(ctx, f) })
	if f.Protocol != host.TCP || !errors.Is(err, host.ErrNotFound) {
		return s, err
	}
	beyond := func(f host.Flow) (host.Socket, error) { return set.find(ctx, f) }
	if s, err = among(beyond); !errors.Is(err, host.ErrNotFound) {
		return s, err
	}
	if s, err = h.findHidden(ctx, set, f); err == nil {
		return s, nil
	}
	// It may be newer than the lists.
	if err := set.renew(ctx); err != nil {
		return host.Socket{}, err
	}
	if s, err = among(beyond); !errors.Is(err, host.ErrNotFound) {
		return s, err
	}
	return h.findHidden(ctx, set, f)
}

// find looks a flow up, first among sockets that are bound to no link, then among those bound to a link that
// has the local address.
func (h *Host) find(ctx context.Context, f host.Flow) (host.Socket, error) {
	s, dir, err := h.diag.settled(ctx, f, 0)
	if errors.Is(err, host.ErrNotFound) {
		_, links, lerr := h.addresses()
		if lerr != nil {
			return host.Socket{}, lerr
		}
		for _, l := range links[f.Local.Addr().WithZone("")] {
			if s, dir, err = h.diag.settled(ctx, f, l); !errors.Is(err, host.ErrNotFound) {
				break
			}
		}
	}
	if err != nil {
		return host.Socket{}, err
	}
	return socketOf(s, dir, h.netns), nil
}

func socketOf(s inetSocket, dir host.Direction, netns uint64) host.Socket {
	out := host.Socket{Protocol: s.kind, Local: s.local, Remote: s.remote, State: stateName(s.kind, s.state),
		UID: s.uid, Inode: s.inode, Cookie: s.cookie, NetNS: netns}
	if s.inode != 0 {
		out.Object = object{socketObject, 0, s.inode}.name()
	}
	out.Direction, out.DirectionSource = told(s.kind, dir)
	if s.hasInfo {
		out.Bytes = s.info.bytes()
	}
	return out
}

// told adds what told a direction.
func told(kind host.Kind, dir host.Direction) (host.Direction, host.Source) {
	switch {
	case kind != host.TCP:
		return host.Outbound, host.FromAddress
	case dir == host.Outbound || dir == host.Inbound:
		return dir, host.FromCounters
	}
	return host.UnknownDirection, ""
}
