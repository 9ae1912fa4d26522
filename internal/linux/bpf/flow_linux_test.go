package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// watch begins to watch a process.
func watch(t testing.TB, pid int) *Watch {
	t.Helper()
	w, err := OpenWatch(pid)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// stop returns what was written.
func stop(t testing.TB, w *Watch) []Call {
	t.Helper()
	calls, whole, err := w.Stop()
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	return calls
}

// must is for calls that cannot fail but for a broken test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sockets are two connections, one of TCP and one of UNIX, and pairs of UDP.
type sockets struct {
	tcp, unix, udp [2]int
	names          map[uint64]string // by inode number
}

func newSockets(t testing.TB) *sockets {
	t.Helper()
	alone(t)
	s := &sockets{names: map[uint64]string{}}
	for i, pair := range []*[2]int{&s.tcp, &s.udp} {
		kind := []int{unix.SOCK_STREAM, unix.SOCK_DGRAM}[i]
		pair[0], pair[1] = must(unix.Socket(unix.AF_INET, kind, 0)), must(unix.Socket(unix.AF_INET, kind, 0))
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		must(0, unix.Bind(pair[1], to))
		if kind == unix.SOCK_STREAM {
			must(0, unix.Listen(pair[1], 1))
		}
		must(0, unix.Connect(pair[0], must(unix.Getsockname(pair[1]))))
		if kind == unix.SOCK_STREAM {
			l := pair[1]
			pair[1], _ = must2(unix.Accept(l))
			unix.Close(l)
		}
	}
	s.unix = must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	for name, pair := range map[string][2]int{"tcp": s.tcp, "udp": s.udp, "unix": s.unix} {
		for i, fd := range pair {
			t.Cleanup(func() { unix.Close(fd) })
			s.names[inodeOf(fd)] = fmt.Sprint(name, i)
		}
	}
	return s
}

func must2[A, B any](a A, b B, err error) (A, B) {
	must(0, err)
	return a, b
}

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	must(0, unix.Fstat(fd, &st))
	return st.Ino
}

// say gives calls as text: "tcp0 sent 3". Of what was taken of TCP the octets are from the second on.
func (s *sockets) say(calls []Call) (said []string) {
	taken := map[uint64]uint32{}
	for _, c := range calls {
		octets, did := fmt.Sprint(c.Octets), map[CallKind]string{Took: "took", Sent: "sent", Advanced: "advanced"}[c.Kind]
		if c.Kind == Advanced {
			octets = "?"
			if before, known := taken[c.Socket]; known {
				octets = fmt.Sprint(c.Taken - before)
			}
			taken[c.Socket] = c.Taken
		}
		said = append(said, s.names[c.Socket]+" "+did+" "+octets)
	}
	return said
}

// Whatever way something is taken from a socket or sent by one, it is written down.
func TestWatch(t *testing.T) {
	s := newSockets(t)
	pipe := make([]int, 2)
	must(0, unix.Pipe2(pipe, unix.O_CLOEXEC))
	file := must(os.CreateTemp(t.TempDir(), ""))
	must(file.WriteString("0123456789"))
	ring := newRing(t)
	b := make([]byte, 64)
	send := func(fd, n int) { must(unix.Write(fd, b[:n])) }
	w := watch(t, os.Getpid())

	send(s.tcp[0], 1) // so that the place is known
	must(unix.Read(s.tcp[1], b))
	send(s.tcp[0], 2)
	must(unix.Readv(s.tcp[1], [][]byte{b[:1], b[1:]}))
	must(0, unix.Sendto(s.tcp[0], b[:3], 0, nil))
	_, _ = must2(unix.Recvfrom(s.tcp[1], b, unix.MSG_PEEK))
	_, _ = must2(unix.Recvfrom(s.tcp[1], b, 0))
	must(unix.SendmsgN(s.tcp[0], b[:4], nil, nil, 0))
	_, _, _, _, err := unix.Recvmsg(s.tcp[1], b, nil, 0)
	must(0, err)
	must(0, file.Sync())
	must(unix.Sendfile(s.tcp[0], int(file.Fd()), new(int64), 5))
	must(unix.Splice(s.tcp[1], nil, pipe[1], nil, 64, 0))
	must(unix.Splice(pipe[0], nil, s.tcp[0], nil, 64, 0))
	must(unix.Splice(s.tcp[1], nil, pipe[1], nil, 64, 0))
	must(0, unix.SetNonblock(s.tcp[1], true))
	if _, err := unix.Splice(s.tcp[1], nil, pipe[1], nil, 64, 0); err != unix.EAGAIN {
		t.Fatal(err)
	}
	send(s.tcp[0], 6)
	ring.submit(27, s.tcp[1], b[:6]) // IORING_OP_RECV
	ring.submit(26, s.tcp[1], b[:7]) // IORING_OP_SEND
	must(unix.Read(s.tcp[0], b))
	if _, err := unix.Read(s.tcp[1], b); err != unix.EAGAIN {
		t.Fatal(err)
	}
	send(s.unix[0], 8)
	must(unix.Read(s.unix[1], b))
	send(s.udp[0], 9)
	must(unix.Read(s.udp[1], b))
	must(0, unix.Shutdown(s.tcp[0], unix.SHUT_WR))
	if n := must(unix.Read(s.tcp[1], b)); n != 0 {
		t.Fatal(n)
	}
	calls := stop(t, w)

	want := strings.Split(`tcp0 sent 1
tcp1 advanced ?
tcp0 sent 2
tcp1 advanced 2
tcp0 sent 3
tcp1 advanced 0
tcp1 took 0
tcp1 advanced 3
tcp0 sent 4
tcp1 advanced 4
tcp0 sent 5
tcp1 advanced 5
tcp1 advanced 0
tcp0 sent 5
tcp1 advanced 5
tcp1 advanced 0
tcp1 advanced 0
tcp0 sent 6
tcp1 advanced 6
tcp1 sent 7
tcp0 advanced ?
unix0 sent 8
unix1 took 8
udp0 sent 9
udp1 took 9`, "\n")
	if d := cmp.Diff(want, s.say(calls)); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	for i, c := range calls[1:] {
		if c.Thread != calls[0].Thread || c.At < calls[i].At || c.Waits < calls[i].Waits {
			t.Errorf("call %+v after %+v", c, calls[i])
		}
	}
}

// A ring is an instance of io_uring(7).
type ring struct {
	fd            int
	queue, places []byte
	tail, array   uint32
}

func newRing(t testing.TB) *ring {
	t.Helper()
	var params [120]byte // struct io_uring_params of linux/io_uring.h
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
	if e != 0 {
		t.Fatal(os.NewSyscallError("io_uring_setup", e))
	}
	at := func(i int) uint32 { return *(*uint32)(unsafe.Pointer(&params[i])) }
	r := &ring{fd: int(fd), tail: at(44), array: at(64)} // sq_off.tail, sq_off.array
	r.queue = must(unix.Mmap(r.fd, 0, int(r.array)+4*4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	r.places = must(unix.Mmap(r.fd, 0x10000000, 4*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)) // IORING_OFF_SQES
	t.Cleanup(func() { unix.Close(r.fd); unix.Munmap(r.queue); unix.Munmap(r.places) })
	return r
}

// submit has one request done, and waits for it.
func (r *ring) submit(opcode byte, fd int, b []byte) {
	tail := (*uint32)(unsafe.Pointer(&r.queue[r.tail]))
	i := *tail & 3
	e := r.places[64*i : 64*i+64] // struct io_uring_sqe
	clear(e)
	e[0] = opcode
	*(*int32)(unsafe.Pointer(&e[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&e[16])) = uint64(uintptr(unsafe.Pointer(&b[0])))
	*(*uint32)(unsafe.Pointer(&e[24])) = uint32(len(b))
	*(*uint32)(unsafe.Pointer(&r.queue[r.array+4*i])) = i
	*tail++
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, 1, 0, 0); e != 0 { // IORING_ENTER_GETEVENTS
		panic(e)
	}
	runtime.KeepAlive(b)
}

// A thread is told from another, and whether it has waited.
func TestWatchThreads(t *testing.T) {
	s := newSockets(t)
	w := watch(t, os.Getpid())
	b := make([]byte, 64)
	must(unix.Write(s.tcp[0], b[:1]))
	must(unix.Read(s.tcp[1], b))
	must(unix.Write(s.unix[0], b[:2])) // without having waited
	time.Sleep(time.Millisecond)
	unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // the thread's own, not the runtime's
	must(unix.Write(s.unix[0], b[:3]))
	var other sync.WaitGroup
	other.Go(func() {
		runtime.LockOSThread() // the test has its own for itself
		must(unix.Write(s.unix[0], b[:4]))
	})
	other.Wait()
	var took, sent2, sent3, sent4 Call
	for _, c := range stop(t, w) {
		switch {
		case c.Kind == Advanced:
			took = c
		case c.Octets == 2:
			sent2 = c
		case c.Octets == 3:
			sent3 = c
		case c.Octets == 4:
			sent4 = c
		}
	}
	if took.Thread != sent2.Thread || took.Waits != sent2.Waits {
		t.Errorf("waited between %+v and %+v", took, sent2)
	}
	if sent3.Thread != took.Thread || sent3.Waits <= sent2.Waits {
		t.Errorf("did not wait between %+v and %+v", sent2, sent3)
	}
	if sent4.Octets == 0 || sent4.Thread == took.Thread {
		t.Errorf("the same thread: %+v, %+v", took, sent4)
	}
}

// What other processes do is not written, and one that has ended is none.
func TestWatchOthers(t *testing.T) {
	s := newSockets(t)
	cmd := exec.Command("/bin/sleep", "1000")
	must(0, cmd.Start())
	w := watch(t, cmd.Process.Pid)
	must(unix.Write(s.unix[0], []byte("x")))
	if calls := stop(t, w); len(calls) > 0 {
		t.Errorf("calls of a process that sleeps: %q", s.say(calls))
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := OpenWatch(cmd.Process.Pid); !errors.Is(err, ErrNoProcess) {
		t.Errorf("watch a process that has ended: %v", err)
	}
}

// Beyond what there is room for nothing is written, so that what is there has no holes.
func TestWatchFull(t *testing.T) {
	s := newSockets(t)
	w := watch(t, os.Getpid())
	b := make([]byte, 1)
	for range 150_000 { // two calls each
		must(unix.Write(s.unix[0], b))
		must(unix.Read(s.unix[1], b))
	}
	calls, whole, err := w.Stop()
	if err != nil || whole {
		t.Fatalf("%d calls, whole %t, %v", len(calls), whole, err)
	}
	for i, c := range calls {
		if want := []CallKind{Sent, Took}[i%2]; c.Kind != want {
			t.Fatalf("call %d: %+v", i, c)
		}
	}
	if len(calls) < 80_000 {
		t.Errorf("%d calls", len(calls))
	}
}

// BenchmarkWatch is the cost of a round trip on a UNIX socket: with nobody watched, another process, and this one.
func BenchmarkWatch(b *testing.B) {
	round := func(b *testing.B) {
		pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		octet := make([]byte, 1)
		before := spent()
		b.ResetTimer()
		for range b.N {
			must(unix.Write(pair[0], octet))
			must(unix.Read(pair[1], octet))
		}
		b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
	}
	b.Run("off", round)
	b.Run("another", func(b *testing.B) {
		watch(b, os.Getppid())
		round(b)
	})
	b.Run("this", func(b *testing.B) {
		watch(b, os.Getpid())
		round(b)
	})
	b.Run("begin-and-end", func(b *testing.B) {
		before := spent()
		for range b.N {
			w, err := OpenWatch(os.Getpid())
			if err != nil {
				b.Fatal(err)
			}
			w.Close()
		}
		b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
	})
}
