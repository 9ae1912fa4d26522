package bpf

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// spent is the processor time of this program and of the children that it has waited for: it tells more than the time on a
// machine that does other things as well.
func spent() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		unix.Getrusage(who, &u) // it cannot fail
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}

// loadEnv is what loadRole does.
const loadEnv = "STOPD_TEST_LOAD"

// loadRole does something as often as each line that it reads says, and says how long that took, by the clock and of the processor.
func loadRole() error {
	var once func() error
	switch os.Getenv(loadEnv) {
	case "connection":
		l, to, err := listen()
		if err != nil {
			return err
		}
		once = func() error { return opened(l, to) }
	case "process":
		once = process
	}
	in := bufio.NewReader(os.Stdin)
	for {
		var n int
		if _, err := fmt.Fscanln(in, &n); err != nil {
			return nil
		}
		cpu, begun := spent(), time.Now()
		for range n {
			if err := once(); err != nil {
				return err
			}
		}
		fmt.Println(int64(time.Since(begun)), int64(spent()-cpu))
	}
}

func listen() (l int, to unix.Sockaddr, err error) {
	if l, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		return
	}
	if err = unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return
	}
	if err = unix.Listen(l, 128); err != nil {
		return
	}
	to, err = unix.Getsockname(l)
	return
}

var octet [1]byte

// opened makes a connection within the host, of which both ends are remembered, sends an octet each way, and closes it.
func opened(l int, to unix.Sockaddr) error {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c) // last: so TIME_WAIT has the listener's port, and ports do not run out
	if err := unix.Connect(c, to); err != nil {
		return err
	}
	a, _, err := unix.Accept(l)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	for _, way := range [][2]int{{c, a}, {a, c}} {
		if _, err := unix.Write(way[0], octet[:]); err != nil {
			return err
		}
		if _, err := unix.Read(way[1], octet[:]); err != nil {
			return err
		}
	}
	return nil
}

// process makes a process that runs a program, and waits for its end.
func process() error {
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
	if err != nil {
		return err
	}
	_, err = syscall.Wait4(pid, nil, 0, nil)
	return err
}

// turns has a load do short turns without the recorder and with it, one after the other and in changing order. It reports
// medians: what one operation takes of the processor, and the reader for it; of each two turns the rate that is left, by the clock and
// by the processor's time. What the programs in the kernel take is
// measured after that, since to measure it takes time as well.
func turns(b *testing.B, load string, turn int) {
	alone(b)
	r := remember(b)
	r.detach()
	cmd := role("load", loadEnv+"="+load)
	in, out := start(b, cmd)
	b.Cleanup(func() { in.Close(); cmd.Wait() })

	var mu sync.Mutex
	events := 0
	read := func() {
		mu.Lock()
		defer mu.Unlock()
		if err := r.Read(func(evs []recorder.Event) { events += len(evs); r.Apply(evs...) }); err != nil {
			b.Error(err)
		}
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for r.Wait(time.Now().Add(200*time.Millisecond)) == nil {
			read()
		}
	})
	// run does one turn, and returns what an operation takes in nanoseconds: by the clock, of the processor, and the reader's of the processor.
	run := func(on bool) (took [3]float64) {
		if on {
			if err := r.attach(); err != nil {
				b.Fatal(err)
			}
			defer r.detach()
		}
		before := spent()
		io.WriteString(in, fmt.Sprintln(turn))
		if _, err := fmt.Fscanln(out, &took[0], &took[1]); err != nil {
			b.Fatal(err)
		}
		if on {
			read()
			took[2] = float64(spent() - before)
		}
		for i := range took {
			took[i] /= float64(turn)
		}
		return took
	}
	run(false)
	var all [6][]float64
	first := 0
	for b.Loop() {
		var took [2][3]float64
		for _, on := range []int{first, 1 - first} {
			took[on] = run(on == 1)
		}
		first = 1 - first
		off, on := took[0], took[1]
		for i, x := range []float64{off[1], on[1], on[2], off[0] / on[0], off[1] / on[1], off[1] / (on[1] + on[2])} {
			all[i] = append(all[i], x)
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"off-ns", "on-ns", "reader-ns", "clock-rate", "rate", "rate-with-reader"} {
		b.ReportMetric(median(all[i]), name)
	}

	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	run(true)
	r.Stop()
	reading.Wait()
	for name, p := range r.collection.Programs {
		s, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		if s.RunCount > 0 {
			b.Logf("%-10s %6.2f runs %6.0f ns", name, float64(s.RunCount)/float64(turn), float64(s.Runtime)/float64(s.RunCount))
		}
	}
	b.Logf("%.1f events an operation", float64(events)/float64(turn*(b.N+1)))
	if lost, err := r.Events.Lost(); err != nil || lost > 0 {
		b.Errorf("%d events were lost, %v", lost, err)
	}
}

func median[T cmp.Ordered](s []T) T {
	slices.Sort(s)
	return s[len(s)/2]
}

func BenchmarkConnection(b *testing.B) { turns(b, "connection", 4000) }

func BenchmarkProcess(b *testing.B) { turns(b, "process", 150) }
