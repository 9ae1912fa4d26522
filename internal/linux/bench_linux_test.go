package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// crowd starts processes that have nothing to do with anything, each with six descriptors: three standard,
// two of a pipe and a file (thesis section 4.7.1).
func crowd(b *testing.B, n int) {
	c := start(b, "crowd", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(n)) })
	b.Cleanup(func() {
		c.stdin.Close()
		c.cmd.Wait() // for it to have waited for all of them
	})
}

// crowdRole is the parent of a crowd. It ends, like all others, with its input.
func crowdRole() (string, error) {
	n, err := strconv.Atoi(os.Getenv("STOPD_TEST_COUNT"))
	if err != nil {
		return "", err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	runtime.LockOSThread() // they end with the thread that started them, even if it is killed
	var pids []int
	for range n {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return "", err
		}
		f, err := unix.Open("/etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(p[0]), uintptr(p[1]), uintptr(f)}
		pid, err := syscall.ForkExec("/usr/bin/sleep", []string{"sleep", "1000"},
			&syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
		if err != nil {
			return "", err
		}
		pids = append(pids, pid)
		for _, fd := range []int{p[0], p[1], f} {
			unix.Close(fd)
		}
	}
	say("")
	io.Copy(io.Discard, os.Stdin)
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return "", err
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			return "", err
		}
	}
	os.Exit(0)
	return "", nil
}

// tree starts a process that holds a connection, and four more that are joined to it by pipes, one after
// the other; with this process they are six. It returns the connection's flow.
func tree(b *testing.B) host.Flow {
	l := listen(b, unix.AF_INET, loopback4, 0, 1)
	c, s := dial(b, l, unix.AF_INET, loopback4, 0)
	f := host.Flow{Protocol: host.TCP, Local: localOf(b, c), Remote: remoteOf(b, c)}
	files := []*os.File{c}
	for range 5 {
		r, w := pipe(b)
		start(b, "hold", append(files, w), nil)
		for _, f := range files {
			f.Close()
		}
		w.Close()
		files = []*os.File{r}
	}
	files[0].Close()
	b.Cleanup(func() { s.Close() })
	return f
}

func BenchmarkFind(b *testing.B) {
	h := openHost(b)
	f := tree(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Find(context.Background(), f); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMiss is a look for a connection that does not exist, by turns without the recorder and with it; busy after another one has come and
// gone, as the asker's own does.
func BenchmarkMiss(b *testing.B) {
	h := openHost(b)
	if err := h.Remember(Recorder{Memory: 64 << 20, Keep: time.Hour}); err != nil {
		b.Skip(err)
	}
	p := h.past.Load()
	defer h.past.Store(p)
	l := listen(b, unix.AF_INET, loopback4, 0, 1)
	local := localOf(b, l)
	f := host.Flow{Protocol: host.TCP, Local: netip.AddrPortFrom(local.Addr(), 1), Remote: local}
	for _, busy := range []bool{false, true} {
		b.Run(fmt.Sprintf("busy=%v", busy), func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				for on, past := range []*past{nil, p} {
					if busy {
						c, s := dial(b, l, unix.AF_INET, loopback4, 0)
						c.Close()
						s.Close()
					}
					h.past.Store(past)
					begun := time.Now()
					if _, err := h.Find(context.Background(), f); !errors.Is(err, host.ErrNotFound) {
						b.Fatal(err)
					}
					took[on] = append(took[on], time.Since(begun))
				}
			}
			b.ReportMetric(0, "ns/op")
			for on, name := range []string{"off-ns", "on-ns"} {
				slices.Sort(took[on])
				b.ReportMetric(float64(took[on][len(took[on])/2]), name)
			}
		})
	}
}

func BenchmarkFacts(b *testing.B) {
	h := openHost(b)
	b.ReportAllocs()
	for b.Loop() {
		h.Facts(context.Background())
	}
}

func BenchmarkScan(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		b.Run(strconv.Itoa(others), func(b *testing.B) {
			crowd(b, others)
			s := openSnapshot(b, openHost(b))
			b.ReportAllocs()
			for b.Loop() {
				scan(context.Background(), s.root, s.pipeDev)
			}
		})
	}
}

// traceOnce finds a connection and traces it.
func traceOnce(b *testing.B, h *Host, f host.Flow) trace.Result {
	b.Helper()
	ctx := context.Background()
	sock, err := h.Find(ctx, f)
	if err != nil {
		b.Fatal(err)
	}
	facts, _ := h.Facts(ctx)
	s, err := h.Snapshot(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	return trace.Run(ctx, s, trace.Question{Socket: sock, Host: facts}, trace.Defaults)
}

// BenchmarkTrace is a whole trace of six processes (thesis table 4.12), beside others (table 4.13).
func BenchmarkTrace(b *testing.B) {
	for _, others := range []int{0, 100, 1000} {
		b.Run(strconv.Itoa(others), func(b *testing.B) {
			crowd(b, others)
			h := openHost(b)
			f := tree(b)
			b.ReportAllocs()
			for b.Loop() {
				r := traceOnce(b, h, f)
				if len(r.Processes) < 6 || len(r.Channels) < 4 {
					b.Fatalf("%d processes, %d channels", len(r.Processes), len(r.Channels))
				}
			}
		})
	}
}
