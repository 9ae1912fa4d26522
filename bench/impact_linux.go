package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// memoryEnv has this program, executed again, be the memory benchmark.
const memoryEnv = "STOPD_BENCH_MEMORY"

// sieveLength is how many numbers the thesis's benchmark goes through (Appendix C.1).
const sieveLength = 1_000_000

// remember is the memory benchmark of the thesis's Appendix C.1: arithmetic through an array that is larger than caches, and at random
// places of it. For each line of its input it does so many loops, and says by a line what they took: nanoseconds on the wall, and of the processor.
func remember() error {
	sieve := make([]float32, sieveLength)
	random := rand.New(rand.NewSource(123456))
	a, b, c := float32(0.1029384756), float32(9753124680.1470258369), float32(1627.384950)
	in := bufio.NewReader(os.Stdin)
	runtime.LockOSThread()
	for {
		var loops int
		if _, err := fmt.Fscanln(in, &loops); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		began, used := time.Now(), ownTime()
		for range loops {
			a *= b
			a /= c
			b = a - b
			a *= 22.123456789123456789
			for j := range sieve {
				sieve[j] = b*float32(j)/710.9638642 + sieve[(j+2121)%sieveLength]
			}
			for range 20000 {
				sieve[random.Intn(sieveLength)] *= sieve[random.Intn(sieveLength)] / 88442211.99
			}
		}
		fmt.Println(time.Since(began).Nanoseconds(), (ownTime() - used).Nanoseconds())
	}
}

// ownTime is the processor time of this process.
func ownTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // fails for no process of one's own
	return time.Duration(t.Nano())
}

// A memory is the benchmark, running.
type memory struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startMemory(cpu int) (*memory, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), memoryEnv+"=1", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &memory{cmd, in, bufio.NewReader(out)}, onCPU(cpu, cmd.Start)
}

func (m *memory) end() { m.in.Close(); m.cmd.Wait() }

// loop does so many loops.
func (m *memory) loop(n int) (wall, cpu time.Duration, err error) {
	if _, err := fmt.Fprintln(m.in, n); err != nil {
		return 0, 0, err
	}
	_, err = fmt.Fscanln(m.out, &wall, &cpu)
	return wall, cpu, err
}

// impact measures P5: what is left of one processor to the thesis's memory benchmark while stopd, on the same one, answers SV requests.
func (b *bench) impact() error {
	const (
		cpu  = 0
		each = 100 * time.Millisecond // of loops at once: short beside a turn
		turn = 1500 * time.Millisecond
	)
	pairs := 15
	if b.quick {
		pairs = 5
	}
	g, err := grow("login", 0)
	if err != nil {
		return err
	}
	defer g.end()
	c := unbounded()
	c.Limits.RequestsPerConn = 1e6
	d, err := b.startStopd(1161, c, cpu)
	if err != nil {
		return err
	}
	defer d.end()
	m, err := startMemory(cpu)
	if err != nil {
		return err
	}
	defer m.end()
	_, took, err := m.loop(10)
	if err != nil {
		return err
	}
	loops := int(max(1, each*10/max(took, 1)))
	line := fmt.Sprintf("%d , %d : SV : %s", asked[0].Port(), asked[1].Port(), far)
	if _, err := d.ask(line); err != nil {
		return err
	}
	t := table{head: []string{"SV requests a minute", "left, thesis (Linux, OpenBSD)", "left", "the benchmark slower", "stopd's CPU a request", "by the wall"}}
	for _, rate := range []struct {
		perMinute int
		thesis    string
	}{{120, "98.45%, 99.17%"}, {600, "92.99%, 96.11%"}, {3000, "75.85%, 86.96%"}, {6000, "64.08%, 80.80%"}} {
		var left, slower, wall, spent []float64
		for range pairs {
			alone, err := b.turn(m, d, loops, turn, 0, "")
			if err != nil {
				return err
			}
			with, err := b.turn(m, d, loops, turn, rate.perMinute, line)
			if err != nil {
				return err
			}
			left = append(left, alone.cpu/(with.cpu+with.daemon-alone.daemon))
			slower = append(slower, with.cpu/alone.cpu-1)
			wall = append(wall, alone.wall/with.wall)
			spent = append(spent, with.request)
			fmt.Fprintf(b.out, "BenchmarkP5/rate=%d\t%d\t%.0f ns/op\t%.4f left\t%.4f wall\n", rate.perMinute, with.asked, with.request*1e3, left[len(left)-1], wall[len(wall)-1])
		}
		t.add(count(rate.perMinute), rate.thesis, percent(middleOf(left)), percent(middleOf(slower)), fmt.Sprintf("%.2f ms", middleOf(spent)/1e3), percent(middleOf(wall)))
	}
	b.section("P5: what is left of a processor (thesis Table 4.14 and Figure 4.10)", t, "The memory benchmark of Appendix C.1, written anew, and the whole daemon on one processor; each request is about six processes, and what it saves is durable. "+
		"What is left is the processor time that the benchmark takes alone, over what it and stopd take together: other programs on the machine do not count, but what stopd does to caches does. By the wall they do. Medians of pairs of short turns, one after the other; below 120 requests a minute nothing can be told. To reach: 90% at 6,000.")
	return nil
}

func percent(f float64) string { return fmt.Sprintf("%.1f%%", 100*f) }

// A turned is what one turn took, for each loop of the benchmark, and each request, in microseconds.
type turned struct {
	wall, cpu, daemon, request float64
	asked                      int
}

// turn runs the benchmark for a time, and asks so often a minute meanwhile, the first time half an interval after the beginning.
func (b *bench) turn(m *memory, d *identd, loops int, length time.Duration, perMinute int, line string) (t turned, err error) {
	used, began := d.cpu(), time.Now()
	var asking sync.WaitGroup
	var asked, failed atomic.Int64
	stop := make(chan struct{})
	asking.Go(func() {
		for n := 0; perMinute > 0; n++ {
			interval := time.Minute / time.Duration(perMinute)
			select {
			case <-stop:
				return
			case <-time.After(time.Until(began.Add(interval/2 + time.Duration(n)*interval))):
			}
			asking.Go(func() { // none waits for the one before
				if _, err := d.ask(line); err != nil {
					failed.Add(1)
				}
				asked.Add(1)
			})
		}
	})
	n := 0
	for ; time.Since(began) < length && b.ctx.Err() == nil; n += loops {
		wall, cpu, err := m.loop(loops)
		if err != nil {
			return t, err
		}
		t.wall, t.cpu = t.wall+float64(wall.Microseconds()), t.cpu+float64(cpu.Microseconds())
	}
	close(stop)
	asking.Wait()
	if t.asked = int(asked.Load()); failed.Load() > 0 {
		return t, fmt.Errorf("%d of %d requests were not answered; it said %s", failed.Load(), t.asked, d.log)
	}
	spent := float64((d.cpu() - used).Microseconds())
	if t.asked > 0 {
		t.request = spent / float64(t.asked)
	}
	t.wall, t.cpu, t.daemon = t.wall/float64(n), t.cpu/float64(n), spent/float64(n)
	return t, b.ctx.Err()
}
