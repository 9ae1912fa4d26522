package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// beside starts a process in a role that ends with this one, and returns its pid once it is ready.
func beside(role string, env []string, files ...*os.File) (int, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if _, err := cmd.StdinPipe(); err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // it dies with the thread that started it
		if err := cmd.Start(); err != nil {
			ready <- err
			return
		}
		_, err := out.Read(make([]byte, 1024))
		ready <- err
		select {}
	}()
	if err := <-ready; err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// ipcRole makes a queue and semaphores and uses them, as does a process beside it.
func ipcRole() (string, error) {
	q, _, e := unix.Syscall(unix.SYS_MSGGET, unix.IPC_PRIVATE, unix.IPC_CREAT|0o600, 0)
	if e != 0 {
		return "", os.NewSyscallError("msgget", e)
	}
	set, _, e := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 2, unix.IPC_CREAT|0o600)
	if e != 0 {
		return "", os.NewSyscallError("semget", e)
	}
	m := struct {
		kind int
		text byte
	}{kind: 1}
	if _, _, e := unix.Syscall6(unix.SYS_MSGSND, q, uintptr(unsafe.Pointer(&m)), 1, 0, 0, 0); e != 0 {
		return "", os.NewSyscallError("msgsnd", e)
	}
	if err := post(int(set), 0); err != nil {
		return "", err
	}
	pid, err := beside("memory", []string{fmt.Sprintf("STOPD_TEST_MEMORY=receive and post %d %d", q, set)})
	if err != nil {
		return "", err
	}
	return report{PID: pid}.line()
}

// ttyRole holds its controlling terminal, which it has at descriptor 3, by /dev/tty alone. In mode "leave" a
// process in a session of its own does, beside it.
func ttyRole() (string, error) {
	tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Close(3); err != nil || os.Getenv("STOPD_TEST_MODE") != "leave" {
		return "", err
	}
	pid, err := beside("session", nil, os.NewFile(uintptr(tty), "tty"))
	if err != nil {
		return "", err
	}
	return report{PID: pid}.line()
}

// sessionRole leaves the session that it was started in.
func sessionRole() (string, error) {
	_, err := unix.Setsid()
	return "", err
}

// ringRole puts descriptors 3 and following in the table of an io_uring instance, which a process beside it
// inherits, and closes them.
func ringRole() (string, error) {
	var params [120]byte // struct io_uring_params of linux/io_uring.h
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
	if e != 0 {
		return "", os.NewSyscallError("io_uring_setup", e)
	}
	files := []int32{-1}
	for n := 3; n < int(fd); n++ {
		if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(n)); err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			files = append(files, int32(n))
		}
	}
	const registerFiles = 2 // IORING_REGISTER_FILES
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, registerFiles, uintptr(unsafe.Pointer(&files[0])), uintptr(len(files)), 0, 0); e != 0 {
		return "", os.NewSyscallError("io_uring_register", e)
	}
	for _, n := range files[1:] {
		if err := unix.Close(int(n)); err != nil {
			return "", err
		}
	}
	pid, err := beside("hold", nil, os.NewFile(fd, "ring"))
	if err != nil {
		return "", err
	}
	return report{PID: pid}.line()
}

// tracerRole traces a process, in a thread that is not the first.
func tracerRole() (string, error) {
	pid, err := strconv.Atoi(os.Getenv("STOPD_TEST_COUNT"))
	if err != nil {
		return "", err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- errors.New("this is the first thread")
			return
		}
		done <- unix.PtraceSeize(pid)
		select {} // the thread must stay
	}()
	return "", <-done
}

// serverRole serves a file system whose root is a file, which a process beside it has open.
func serverRole() (string, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	path := os.Getenv("STOPD_TEST_DIR")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if err := unix.Mount("test", path, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0,allow_other", dev)); err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	go serveFUSE(dev)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	pid, err := beside("hold", nil, f)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return report{PID: pid}.line()
}

// serveFUSE answers the kernel's first request, and every other one by that it is not known, which lets files be
// opened (struct fuse_in_header and fuse_init_out of linux/fuse.h).
func serveFUSE(dev int) {
	in := make([]byte, 1<<17)
	for {
		n, err := unix.Read(dev, in)
		if err != nil || n < 40 {
			return
		}
		const initOp, forget = 26, 2
		var out []byte
		switch binary.NativeEndian.Uint32(in[4:]) {
		case forget:
			continue
		case initOp:
			out = make([]byte, 16+64)
			binary.NativeEndian.PutUint32(out[16:], 7)
			binary.NativeEndian.PutUint32(out[20:], 31)
			binary.NativeEndian.PutUint32(out[16+20:], 4096) // max_write
		default:
			out = make([]byte, 16)
			errno := -int32(unix.ENOSYS)
			binary.NativeEndian.PutUint32(out[4:], uint32(errno))
		}
		binary.NativeEndian.PutUint32(out, uint32(len(out)))
		copy(out[8:16], in[8:16]) // the request's number
		if _, err := unix.Write(dev, out); err != nil {
			return
		}
	}
}

// namedRole holds descriptors that join nobody.
func namedRole() (string, error) {
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	req, err := unix.NewIfreq("stopd-test")
	if err != nil {
		return "", err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	_, err1 := unix.PidfdOpen(os.Getpid(), 0)
	_, err2 := unix.Signalfd(-1, &unix.Sigset_t{}, unix.SFD_CLOEXEC)
	_, err3 := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	_, err4 := unix.InotifyInit1(unix.IN_CLOEXEC)
	nl, err5 := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK)
	err6 := unix.Bind(nl, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 4711})
	_, err7 := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	return "", errors.Join(unix.IoctlIfreq(tun, unix.TUNSETIFF, req), err1, err2, err3, err4, err5, err6, err7)
}

// restlessRole changes its name all the time.
func restlessRole() (string, error) {
	say("")
	go waitInput()
	for i := 0; ; i++ {
		name := append(strconv.AppendInt(nil, int64(i), 10), 0)
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			return "", err
		}
	}
}
