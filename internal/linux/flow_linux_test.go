package linux

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
	"github.com/stopd/stopd/trace"
)

// relays are ways to relay between connections: what comes by an end of a pair leaves by the other. They return once it goes on.
var relays = map[string]func(pairs [][2]int) error{
	"goroutines":  goroutines(func(to, from *net.TCPConn) { io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}) }),
	"splice":      goroutines(func(to, from *net.TCPConn) { io.Copy(to, from) }),
	"transforms":  goroutines(func(to, from *net.TCPConn) { io.Copy(doubler{to}, struct{ io.Reader }{from}) }),
	"threads":     threads,
	"loop":        loop(1, 0),
	"batches":     loop(64, 0),
	"late by one": loop(1, 1),
	"late by ten": loop(1, 10),
	"handed on":   handed,
}

func relayRole() (string, error) {
	var pairs [][2]int
	n, err := strconv.Atoi(os.Getenv("STOPD_TEST_PAIRS"))
	if err != nil {
		return "", err
	}
	for i := range n {
		pairs = append(pairs, [2]int{3 + 2*i, 4 + 2*i})
	}
	return "", relays[os.Getenv("STOPD_TEST_RELAY")](pairs)
}

// doubler writes everything twice.
type doubler struct{ io.Writer }

func (d doubler) Write(b []byte) (int, error) {
	_, err := d.Writer.Write(bytes.Repeat(b, 2))
	return len(b), err
}

// kept files are not closed when nothing uses them any more: by their numbers the test knows what is what.
var kept []*os.File

// goroutines have two for each pair.
func goroutines(relay func(to, from *net.TCPConn)) func([][2]int) error {
	return func(pairs [][2]int) error {
		for _, p := range pairs {
			var ends [2]*net.TCPConn
			for i, fd := range p {
				f := os.NewFile(uintptr(fd), "")
				kept = append(kept, f)
				c, err := net.FileConn(f) // a copy
				if err != nil {
					return err
				}
				ends[i] = c.(*net.TCPConn)
			}
			go relay(ends[0], ends[1])
			go relay(ends[1], ends[0])
		}
		return nil
	}
}

// threads has one for each direction of each pair.
func threads(pairs [][2]int) error {
	for _, p := range pairs {
		for i := range p {
			go func() {
				runtime.LockOSThread()
				b := make([]byte, 4096)
				for {
					n, err := unix.Read(p[i], b)
					if err != nil || n <= 0 {
						return
					}
					unix.Write(p[1-i], b[:n])
				}
			}()
		}
	}
	return nil
}

// A piece is what is to be sent.
type piece struct {
	to int
	b  []byte
}

// loop is one thread that takes from at most so many at once and then sends that, later by so many pieces.
func loop(most, late int) func([][2]int) error {
	return func(pairs [][2]int) error {
		ready, other, err := poll(pairs)
		if err != nil {
			return err
		}
		go func() {
			runtime.LockOSThread()
			var queue []piece
			for {
				for _, fd := range ready(most) {
					b := make([]byte, 4096)
					if n, err := unix.Read(fd, b); err == nil && n > 0 {
						queue = append(queue, piece{other[fd], b[:n]})
					}
				}
				for len(queue) > late {
					unix.Write(queue[0].to, queue[0].b)
					queue = queue[1:]
				}
			}
		}()
		return nil
	}
}

// handed has one thread that takes, and one that sends.
func handed(pairs [][2]int) error {
	ready, other, err := poll(pairs)
	if err != nil {
		return err
	}
	queue := make(chan piece, 1000)
	go func() {
		runtime.LockOSThread()
		for {
			for _, fd := range ready(64) {
				b := make([]byte, 4096)
				if n, err := unix.Read(fd, b); err == nil && n > 0 {
					queue <- piece{other[fd], b[:n]}
				}
			}
		}
	}()
	go func() {
		runtime.LockOSThread()
		for p := range queue {
			unix.Write(p.to, p.b)
		}
	}()
	return nil
}

// poll returns a function that waits until at least one connection can be taken from, and gives at most so many, and the other
// end of each pair.
func poll(pairs [][2]int) (ready func(most int) []int, other map[int]int, err error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	other = map[int]int{}
	for _, p := range pairs {
		for i, fd := range p {
			other[fd] = p[1-i]
			if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
				return nil, nil, err
			}
		}
	}
	return func(most int) (fds []int) {
		events := make([]unix.EpollEvent, most)
		n, _ := unix.EpollWait(set, events, -1)
		for _, e := range events[:max(n, 0)] {
			fds = append(fds, int(e.Fd))
		}
		return fds
	}, other, nil
}

// TestRelays: of fifty clients of one process, all talking at once, nobody is taken for another, however the process is built.
func TestRelays(t *testing.T) {
	const clients, rounds = 50, 40
	// How many of the clients are told for certain, at least and at most. Which thread Go lets go on with what another took is up to it.
	want := map[string][2]int{
		"goroutines": {1, clients}, "splice": {1, clients}, "threads": {45, clients}, "loop": {45, clients},
		"transforms": {0, 0}, "batches": {0, clients}, "late by one": {0, 0}, "late by ten": {0, 0}, "handed on": {0, 0},
	}
	for name := range relays {
		t.Run(name, func(t *testing.T) {
			certain, supported := relayed(t, name, clients, rounds)
			t.Logf("%d of %d certain, %d supported", certain, clients, supported)
			if certain < want[name][0] || certain > want[name][1] {
				t.Errorf("%d are certain, and there are to be %v", certain, want[name])
			}
		})
	}
}

// relayed has clients talk through a relay that is watched, and holds what is told against who talked to whom.
func relayed(t *testing.T, relay string, clients, rounds int) (certain, supported int) {
	h := openHost(t)
	outer, pid := startRelay(t, relay, clients)
	w, err := bpf.OpenWatch(pid)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	talk(t, outer, rounds, map[string]int{"transforms": 2}[relay], strings.HasPrefix(relay, "late"))
	calls, whole, err := w.Stop()
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	p, err := openSnapshot(t, h).Process(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	by := map[int]host.Descriptor{}
	for _, d := range p.Descriptors {
		for _, fd := range d.FDs {
			by[fd] = d
		}
	}
	watched := trace.Watched{Transfers: transfers(calls)}
	for i := range clients {
		watched.Candidates = append(watched.Candidates, by[3+2*i])
	}
	for i := range clients {
		watched.Asked, watched.Others = by[4+2*i], nil
		for j := range clients {
			if j != i {
				watched.Others = append(watched.Others, by[4+2*j])
			}
		}
		for j, f := range watched.Feeds(map[uint64]bool{}) {
			switch {
			case f.Grade == trace.Certain && j != i:
				t.Errorf("candidate %d is certain for the connection of %d: %+v", j, i, f)
			case f.Grade == trace.Certain:
				certain++
			case j == i && f.Grade == trace.Supported:
				supported++
			}
		}
	}
	return certain, supported
}

// talk has all talk at once, each client and whom it talks to in turn; what is said has another length each time, which the relay may
// multiply. Late relays keep some of it for ever: who waits for that says more. All others are waited for, however slow they are.
func talk(t *testing.T, outer [][2]*net.TCPConn, rounds, times int, loses bool) {
	var all sync.WaitGroup
	for _, pair := range outer {
		all.Go(func() {
			b := make([]byte, 4096)
			for round := range 2 * rounds {
				from, to := pair[round%2], pair[1-round%2]
				n := 1 + rand.IntN(500)
				if _, err := from.Write(b[:n]); err != nil {
					t.Error(err)
					return
				}
				for n *= max(times, 1); n > 0; {
					if loses {
						to.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					}
					m, err := to.Read(b)
					n -= m
					if errors.Is(err, os.ErrDeadlineExceeded) {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

func TestWatch(t *testing.T) {
	h := openHost(t)
	c := start(t, "hold", nil, nil)
	p, err := openSnapshot(t, h).Process(t.Context(), c.pid)
	if err != nil {
		t.Fatal(err)
	}
	ts, err := h.Watch(t.Context(), p.ID(), time.Millisecond)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if len(ts) > 0 || err != nil {
		t.Errorf("of a process that does nothing: %v, %v", ts, err)
	}
	if _, err := h.Watch(t.Context(), host.ID{PID: c.pid, Start: p.StartTicks + 1}, 0); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("another with the same number: %v", err)
	}
	c.end()
	if _, err := h.Watch(t.Context(), p.ID(), 0); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("one that has ended: %v", err)
	}
}

// When data last came and were sent is told of a process's connections.
func TestLast(t *testing.T) {
	h := openHost(t)
	l := loopback(t)
	began := time.Now()
	a, b := connection(t, l)
	const pause, rounding = 50 * time.Millisecond, 20 * time.Millisecond
	time.Sleep(pause) // what is measured
	sent := time.Now()
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	came := time.Now()
	p, err := openSnapshot(t, h).Process(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range p.Descriptors {
		if d.Kind != host.TCP || d.Listening() || d.Remote.String() != a.LocalAddr().String() && d.Local.String() != a.LocalAddr().String() {
			continue
		}
		now, before := d.Last.Sent, d.Last.Received
		if d.Direction == host.Inbound {
			now, before = before, now
		}
		if now.Before(sent.Add(-rounding)) || now.After(came.Add(rounding)) || before.Before(began.Add(-rounding)) || before.After(sent.Add(rounding-pause)) {
			t.Errorf("%s: %+v; it was opened at %s, and the octet was sent between %s and %s", d.Direction, d.Last, began, sent, came)
		}
	}
}

// BenchmarkLook is one look at a process after it was watched, by how many TCP connections it has: as many again are what one look takes.
func BenchmarkLook(b *testing.B) {
	for _, descriptors := range []int{100, 2_000, 19_000} { // 20,000 is the usual bound
		b.Run(strconv.Itoa(descriptors), func(b *testing.B) {
			h := openHost(b)
			if err := h.Accelerate(); err != nil {
				b.Log(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for range descriptors / 2 {
				near, far := connection(b, l)
				near.SetLinger(0) // it leaves nothing behind
				defer near.Close()
				defer far.Close()
			}
			for b.Loop() {
				s, err := h.Snapshot(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				p, err := s.Process(b.Context(), os.Getpid())
				if err != nil {
					b.Fatal(err)
				}
				var w trace.Watched
				for _, d := range p.Descriptors {
					if d.Kind == host.TCP && d.Direction == host.Inbound {
						w.Candidates = append(w.Candidates, d)
					} else if d.Kind == host.TCP {
						w.Asked, w.Others = d, append(w.Others, d)
					}
				}
				if _, err := s.Holders(b.Context(), w.Asked.Object); err != nil {
					b.Fatal(err)
				}
				w.Feeds(map[uint64]bool{})
				s.Close()
			}
		})
	}
}
