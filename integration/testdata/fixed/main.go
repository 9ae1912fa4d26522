// Fixed passes on what comes to a port to another host's: fixed PORT ADDRESS PORT. Both connections are in the
// table of an io_uring instance, and in no descriptor of any process (io_uring(7)).
package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	in, err := accept(port)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	to, err := netip.ParseAddrPort(os.Args[2] + ":" + os.Args[3])
	if err != nil {
		return err
	}
	out, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(out, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	r, err := newRing()
	if err != nil {
		return err
	}
	files := []int32{int32(in), int32(out)}
	const registerFiles = 2 // IORING_REGISTER_FILES
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerFiles, uintptr(unsafe.Pointer(&files[0])), 2, 0, 0); e != 0 {
		return os.NewSyscallError("io_uring_register", e)
	}
	unix.Close(in)
	unix.Close(out)
	const opRead, opWrite = 22, 23 // IORING_OP_READ, IORING_OP_WRITE
	buf := make([]byte, 4096)
	for {
		n, err := r.do(opRead, 0, buf)
		if err != nil || n == 0 {
			return err
		}
		if _, err := r.do(opWrite, 1, buf[:n]); err != nil {
			return err
		}
	}
}

func accept(port int) (int, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(l)
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: port}); err != nil {
		return -1, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return -1, err
	}
	c, _, err := unix.Accept(l)
	return c, err
}

// A ring does one thing at a time, so all positions are 0 but the tails.
type ring struct {
	fd                           int
	queue, completions, requests []byte
	params                       [120]byte // struct io_uring_params of linux/io_uring.h
}

func newRing() (*ring, error) {
	r := &ring{}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&r.params[0])), 0)
	if e != 0 {
		return nil, os.NewSyscallError("io_uring_setup", e)
	}
	r.fd = int(fd)
	for _, m := range []struct {
		to     *[]byte
		offset int64
	}{{&r.queue, 0}, {&r.completions, 0x8000000}, {&r.requests, 0x10000000}} {
		b, err := unix.Mmap(r.fd, m.offset, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("mmap: %w", err)
		}
		*m.to = b
	}
	return r, nil
}

// at returns the word of a queue whose offset stands in the parameters.
func (r *ring) at(queue []byte, param int) *uint32 {
	return (*uint32)(unsafe.Pointer(&queue[binary.NativeEndian.Uint32(r.params[param:])]))
}

// do reads or writes a file of the table.
func (r *ring) do(op byte, file int32, buf []byte) (int, error) {
	const submission, completion = 40, 80 // sq_off, cq_off: head, tail, ring_mask, ring_entries, ...
	request := r.requests[:64]            // struct io_uring_sqe
	clear(request)
	request[0], request[1] = op, 1 // IOSQE_FIXED_FILE
	binary.NativeEndian.PutUint32(request[4:], uint32(file))
	binary.NativeEndian.PutUint64(request[16:], uint64(uintptr(unsafe.Pointer(&buf[0]))))
	binary.NativeEndian.PutUint32(request[24:], uint32(len(buf)))
	*r.at(r.queue, submission+4)++ // the array of indices is all 0
	const getEvents = 1            // IORING_ENTER_GETEVENTS
	for {
		_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, getEvents, 0, 0)
		if e == 0 {
			break
		}
		if e != unix.EINTR {
			return 0, os.NewSyscallError("io_uring_enter", e)
		}
	}
	head := r.at(r.completions, completion)
	mask := *r.at(r.completions, completion+8)
	entries := binary.NativeEndian.Uint32(r.params[completion+20:]) // cqes
	done := r.completions[entries+16*(*head&mask):]                 // struct io_uring_cqe
	result := int32(binary.NativeEndian.Uint32(done[8:]))
	*head++
	if result < 0 {
		return 0, unix.Errno(-result)
	}
	return int(result), nil
}
