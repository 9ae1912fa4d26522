package bpf

import (
	"cmp"
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
func spent(b *testing.B) time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}

func median[T cmp.Ordered](s []T) T {
	slices.Sort(s)
	return s[len(s)/2]
}

// offAndOn runs short turns of a load without the recorder and with it, its reader included, one after the other and in
// changing order. It reports medians: what an operation takes, by the clock and of the processor, and of each two turns
// the rate that is left. What the programs in the kernel take is measured after that, since measuring it takes longer.
func offAndOn(b *testing.B, turn int, load func(n int)) {
	r := remember(b)
	r.detach()
	var reading sync.WaitGroup
	ended := make(chan struct{})
	events := 0
	read := func() {
		if err := r.Read(time.Now().Add(50*time.Millisecond), func(ev *recorder.Event) { events++; r.Apply(*ev) }); err != nil {
			b.Error(err)
		}
	}
	reading.Go(func() {
		for {
			read()
			select {
			case <-ended:
				return
			default:
			}
		}
	})
	run := func(on bool) (wall, cpu float64) {
		if on {
			if err := r.attach(); err != nil {
				b.Fatal(err)
			}
			defer r.detach()
		}
		cpu0, begun := spent(b), time.Now()
		load(turn)
		wall = float64(time.Since(begun)) / float64(turn)
		for r.reader.AvailableBytes() > 0 {
			r.Flush()
			time.Sleep(time.Millisecond)
		}
		return wall, float64(spent(b)-cpu0) / float64(turn)
	}
	var walls, cpus [2][]float64
	var wallRates, cpuRates []float64
	first := 0
	for b.Loop() {
		var wall, cpu [2]float64
		for _, on := range []int{first, 1 - first} {
			wall[on], cpu[on] = run(on == 1)
			walls[on], cpus[on] = append(walls[on], wall[on]), append(cpus[on], cpu[on])
		}
		wallRates, cpuRates = append(wallRates, wall[0]/wall[1]), append(cpuRates, cpu[0]/cpu[1])
		first = 1 - first
	}
	b.ReportMetric(0, "ns/op")
	for on, name := range []string{"off", "on"} {
		b.ReportMetric(median(walls[on]), name+"-ns")
		b.ReportMetric(median(cpus[on]), name+"-cpu-ns")
	}
	b.ReportMetric(median(wallRates), "rate")
	b.ReportMetric(median(cpuRates), "cpu-rate")

	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	run(true)
	close(ended)
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

// BenchmarkConnection: a connection within the host, of which both ends are remembered; an octet each way.
func BenchmarkConnection(b *testing.B) {
	alone(b)
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(err)
	defer unix.Close(l)
	must(unix.Bind(l, &unix.SockaddrInet4{}))
	must(unix.Listen(l, 128))
	name, err := unix.Getsockname(l)
	must(err)
	to := &unix.SockaddrInet4{Port: name.(*unix.SockaddrInet4).Port, Addr: [4]byte{127, 1, 0, 1}}
	var octet [1]byte
	pass := func(from, to int) {
		_, err := unix.Write(from, octet[:])
		must(err)
		_, err = unix.Read(to, octet[:])
		must(err)
	}
	offAndOn(b, 200, func(n int) {
		for range n {
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			must(err)
			must(unix.Connect(c, to))
			a, _, err := unix.Accept(l)
			must(err)
			pass(c, a)
			pass(a, c)
			must(unix.Close(c))
			must(unix.Close(a))
		}
		to.Addr[2]++ // ports do not run out, though each is waited for
	})
}

func BenchmarkProcess(b *testing.B) {
	offAndOn(b, 20, func(n int) {
		for range n {
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
			if err != nil {
				b.Fatal(err)
			}
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
