package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// oidentd is Debian's.
const oidentd = "oidentd"

// An identd is a daemon that answers, with the processes that it consists of.
type identd struct {
	name string
	at   netip.AddrPort
	cmd  *exec.Cmd
	dir  string // removed at its end
	log  *bytes.Buffer

	began, first time.Time // when it was started, and when the first answer came
}

// noGrid are slots too short to wait for.
var noGrid = daemon.Slots{ID: daemon.Duration{Duration: time.Microsecond}, IDRec: daemon.Duration{Duration: time.Microsecond},
	SV: daemon.Duration{Duration: time.Microsecond}, SVRec: daemon.Duration{Duration: time.Microsecond}}

// unbounded is a configuration as it is by default, but that nothing of what is measured meets a bound, and without the recorder: several
// daemons run at once, and each would record what is asked of the others.
func unbounded() daemon.Config {
	c := daemon.Defaults()
	l := &c.Limits
	l.PerSourcePerSecond, l.Burst, l.PerUserPerSecond, l.UserBurst, l.RequestsPerConn = 1e6, 1e6, 1e6, 1e6, 1e6
	c.Recorder.Mode = "off"
	c.OnBehalf = []daemon.Network{{Prefix: netip.PrefixFrom(loopback, 32)}}
	return c
}

// startStopd starts the daemon that was built, with a store of its own, and waits for its first answer. A CPU of 0 or more is
// the only one that it may use.
func (b *bench) startStopd(port uint16, c daemon.Config, cpu int) (*identd, error) {
	programs, err := site.Programs()
	if err != nil {
		return nil, err
	}
	base := b.dir
	if base == "" {
		base = "."
	}
	if base, err = filepath.Abs(base); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, ".bench-")
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(loopback, port)
	id, err := age.GenerateX25519Identity()
	key, err2 := translog.GenerateKey("bench.example")
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	c.Store, c.Listen, c.Recipients = filepath.Join(dir, "store"), []string{at.String()}, []string{id.Recipient().String()}
	config := filepath.Join(dir, "stopd.toml")
	if err := errors.Join(os.WriteFile(config, daemon.Template(c), 0o600), os.WriteFile(filepath.Join(dir, "log.key"), key, 0o600)); err != nil {
		return nil, err
	}
	return b.startIdentd(&identd{name: ours, at: at, dir: dir, cmd: exec.Command(filepath.Join(programs, "stopd"), "-config", config)}, cpu)
}

// startOidentd starts oidentd from its Debian package, with more options than those that keep it in the foreground, without a log and on its
// port.
func (b *bench) startOidentd(port uint16, more ...string) (*identd, error) {
	root, err := netlab.Packages(b.ctx, oidentd) // main has fetched it
	if err != nil {
		return nil, err
	}
	args := []string{"-i", "-S", "-u", "65534", "-g", "65534", "-p", strconv.Itoa(int(port))}
	cmd := exec.Command(filepath.Join(root, "usr/sbin", oidentd), append(args, more...)...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(root, "usr/lib", multiarch[runtime.GOARCH]))
	return b.startIdentd(&identd{name: oidentd, at: netip.AddrPortFrom(loopback, port), cmd: cmd}, -1)
}

// multiarch is Debian's name for an architecture's libraries.
var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

func (b *bench) startIdentd(d *identd, cpu int) (*identd, error) {
	d.log = new(bytes.Buffer)
	d.cmd.Stderr = d.log
	d.began = time.Now()
	if err := onCPU(cpu, d.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	for {
		_, err := d.ask("1 , 1")
		if err == nil {
			d.first = time.Now()
			return d, nil
		}
		if time.Since(d.began) > 20*time.Second || b.ctx.Err() != nil {
			d.end()
			return nil, fmt.Errorf("wait for %s: %w: %s", d.name, err, d.log)
		}
		time.Sleep(time.Millisecond)
	}
}

// onCPU does something, and what it starts, on one CPU; a negative one is any.
func onCPU(cpu int, do func() error) error {
	if cpu < 0 {
		return do()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	return errors.Join(do(), unix.SchedSetaffinity(0, &before))
}

// end ends the daemon and removes what it kept. It may have ended already.
func (d *identd) end() {
	d.cmd.Process.Signal(unix.SIGTERM)
	late := time.AfterFunc(30*time.Second, func() { d.cmd.Process.Kill() })
	d.cmd.Wait()
	late.Stop()
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// ask asks on a connection of its own, as most clients do, and returns the line that comes.
func (d *identd) ask(line string) (string, error) {
	c, err := d.dial(context.Background(), loopback)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte(line + "\r\n")); err != nil {
		return "", err
	}
	return bufio.NewReaderSize(c, 512).ReadString('\n')
}

// dial connects from an address and a port below 1024, from which may be asked on behalf of others. The connection leaves
// no trace (TIME-WAIT), so that ports do not run out.
func (d *identd) dial(ctx context.Context, from netip.Addr) (net.Conn, error) {
	var c net.Conn
	err := error(syscall.EADDRINUSE)
	for port := 1023; errors.Is(err, syscall.EADDRINUSE) && port > 0; port-- {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice(), Port: port}, Timeout: 10 * time.Second}
		c, err = dialer.DialContext(ctx, "tcp", d.at.String())
	}
	if err != nil {
		return nil, err
	}
	c.(*net.TCPConn).SetLinger(0)
	return c, nil
}

// pids are the daemon's processes.
func (d *identd) pids() []int {
	all := []int{d.cmd.Process.Pid}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		f, err := statFields(dir)
		pid, err2 := strconv.Atoi(filepath.Base(dir))
		if err == nil && err2 == nil && len(f) > 1 && f[1] == strconv.Itoa(d.cmd.Process.Pid) {
			all = append(all, pid)
		}
	}
	return all
}

// statFields are those of proc_pid_stat(5) after the name: the state is the first.
func statFields(dir string) ([]string, error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])), nil
}

// cpu is what the daemon used of processors, with its children that have ended.
func (d *identd) cpu() time.Duration {
	var ticks int64
	for _, pid := range d.pids() {
		f, err := statFields(fmt.Sprintf("/proc/%d", pid))
		if err != nil || len(f) < 15 {
			continue // a child that has ended: its parent has its time
		}
		for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f[i], 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

// held is what the daemon holds: its share of memory (PSS, proc_pid_smaps(5)) in octets, and open files.
func (d *identd) held() (pss int64, files int, err error) {
	for _, pid := range d.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, err
		}
		_, rest, ok := strings.Cut(string(b), "\nPss:")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			return 0, 0, fmt.Errorf("read memory of %d: %q", pid, b)
		}
		kilobytes, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return 0, 0, err
		}
		pss, files = pss+kilobytes<<10, files+len(fds)
	}
	return pss, files, nil
}
