package bpf

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// spent is the processor time of this program and of the children that it has waited for, in nanoseconds: it tells more than the
// time on a machine that does other things as well.
func spent(b *testing.B) int64 {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return sum
}

// offAndOn runs a load without the recorder and with it, its reader included: the second is to reach 95% of the first's rate.
func offAndOn(b *testing.B, run func(b *testing.B)) {
	load := func(b *testing.B) {
		before := spent(b)
		run(b)
		b.ReportMetric(float64(spent(b)-before)/float64(b.N), "cpu-ns/op")
	}
	b.Run("off", load)
	b.Run("on", func(b *testing.B) {
		r := remember(b)
		ended := make(chan struct{})
		var reading sync.WaitGroup
		reading.Go(func() {
			for {
				r.Read(time.Now().Add(50*time.Millisecond), func(ev *recorder.Event) { r.Apply(*ev) })
				select {
				case <-ended:
					return
				default:
				}
			}
		})
		load(b)
		b.StopTimer()
		close(ended)
		reading.Wait()
		lost, _ := r.Events.Lost()
		b.ReportMetric(float64(lost), "lost")
	})
}

func BenchmarkConnection(b *testing.B) {
	offAndOn(b, func(b *testing.B) {
		alone(b)
		must := func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		must(err)
		defer unix.Close(l)
		must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		must(unix.Listen(l, 128))
		to, err := unix.Getsockname(l)
		must(err)
		var octet [1]byte
		b.ResetTimer()
		for range b.N {
			c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			must(err)
			must(unix.Connect(c, to))
			a, _, err := unix.Accept(l)
			must(err)
			_, err = unix.Write(c, octet[:])
			must(err)
			_, err = unix.Read(a, octet[:])
			must(err)
			// Reset, so that ports do not run out.
			must(unix.SetsockoptLinger(a, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			unix.Close(a)
			unix.Close(c)
		}
	})
}

func BenchmarkProcess(b *testing.B) {
	offAndOn(b, func(b *testing.B) {
		for range b.N {
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
