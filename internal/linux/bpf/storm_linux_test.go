package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// stormEnv is how many connections stormRole makes.
const stormEnv = "STOPD_TEST_STORM"

// perProcess is how many connections it makes for each process.
const perProcess = 20

// stormRole makes connections and processes as fast as it can, when it is told to.
func stormRole() error {
	n, err := strconv.Atoi(os.Getenv(stormEnv))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var octet [1]byte
	for i := range n {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		a, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err = c.Write(octet[:]); err == nil {
			_, err = a.Read(octet[:])
		}
		if err != nil {
			return err
		}
		// Reset, so that ports do not run out.
		a.(*net.TCPConn).SetLinger(0)
		a.Close()
		c.Close()
		if i%perProcess == 0 {
			if err := exec.Command("/bin/true").Run(); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestStorm: of the connections and processes that as many processes make as there are processors, at once and as fast as they can, each is
// remembered from its beginning to its end, or a loss is noted. Of a thousandth neither need be so: the kernel skips some programs without a count of it.
func TestStorm(t *testing.T) {
	alone(t)
	storm(t)
}

// TestStormOfPackets is the same where packets wait for a timer, and so come while a program runs, as they do from a network: the kernel skips that program then.
func TestStormOfPackets(t *testing.T) {
	alone(t)
	if out, err := exec.Command("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "30mbit", "burst", "2000", "limit", "3000000").CombinedOutput(); err != nil {
		t.Skipf("tc: %v: %s", err, out)
	}
	storm(t)
}

func storm(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	r := remember(t)
	netns := inode(t, "/proc/thread-self/ns/net")
	of := map[uint32]bool{}
	var cmds []*exec.Cmd
	var starts []func()
	for range runtime.NumCPU() {
		cmd := role("storm", fmt.Sprint(stormEnv, "=", n))
		in, out := start(t, cmd)
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("a storm says %q, %v", line, err)
		}
		of[uint32(cmd.Process.Pid)] = true
		cmds, starts = append(cmds, cmd), append(starts, func() { fmt.Fprintln(in) })
	}
	ends, processes := map[uint64]bool{}, map[recorder.ID]bool{}
	told := 0 // events
	read := func() {
		err := r.Read(func(evs []recorder.Event) {
			r.Apply(evs...)
			told += len(evs)
			for _, ev := range evs {
				switch ev.Kind {
				case recorder.Closed:
					c, ok := r.ByCookie(ev.Connection.Cookie, 1<<63)
					if ok && c.NetNS == netns && c.Closed != 0 && len(c.Holders) == 1 && of[c.Holders[0].PID] {
						ends[c.Cookie] = true
					}
				case recorder.Exited:
					p, ok := r.Process(ev.Process.PID, ev.Process.Start, ev.Process.Start)
					if ok && of[p.Parent.PID] && p.Exited != 0 && string(p.Exe) == "/bin/true" {
						processes[p.ID] = true
					}
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for r.Wait(time.Now().Add(200*time.Millisecond)) == nil {
			read()
		}
	})
	begun := time.Now()
	for _, start := range starts {
		start()
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	r.Stop()
	reading.Wait()
	all, forks := 2*n*len(cmds), n/perProcess*len(cmds)
	missing := func() int { return all - len(ends) + forks - len(processes) }
	var lost uint64
	var noted []recorder.Loss
	// The last packets may come after those who sent them have ended.
	for quiet := 0; ; time.Sleep(10 * time.Millisecond) {
		before := told
		if read(); told > before || unsent(t) {
			quiet = 0
		} else {
			quiet++
		}
		err := r.CountSkipped()
		if err == nil {
			lost, err = r.Events.Lost()
		}
		if err != nil {
			t.Fatal(err)
		}
		if noted = r.Losses(0, now(t)); missing() == 0 || lost > 0 || len(noted) > 0 {
			break
		}
		if quiet < looks {
			continue
		}
		if missing() > (all+forks)/1000 {
			t.Errorf("of %d ends %d are remembered, of %d processes %d, and no loss is noted", all, len(ends), forks, len(processes))
		} else {
			t.Logf("%d are missing, and no loss is noted", missing())
		}
		break
	}
	t.Logf("of %d ends %d are remembered, of %d processes %d, in %v; %d events were lost, losses are %v", all, len(ends), forks, len(processes), took, lost, noted)
	for _, name := range attached {
		if s, err := r.collection.Programs[name].Stats(); err != nil || s.RecursionMisses > 0 {
			t.Logf("%s was skipped %d times, %v", name, s.RecursionMisses, err)
		}
	}
}

// TestOverflow: what is written while nobody reads is there up to the room that the ring has, and all else is counted.
func TestOverflow(t *testing.T) {
	alone(t)
	r := remember(t)
	tried := 0
	for lost := uint64(0); lost == 0; {
		for range 1000 {
			if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
				c.Close()
				t.Fatal("somebody listens")
			} else if !errors.Is(err, unix.ECONNREFUSED) {
				t.Fatal(err)
			}
			tried++
		}
		var err error
		if lost, err = r.Events.Lost(); err != nil {
			t.Fatal(err)
		}
	}
	r.catchUp(t)
	told := 0
	for _, ev := range r.all {
		if ev.Kind == recorder.Connecting && ev.Process.ID == r.self {
			told++
		}
	}
	lost, _ := r.Events.Lost()
	if told >= tried || uint64(tried-told) > lost {
		t.Errorf("of %d attempts %d are told, and %d events were lost", tried, told, lost)
	}
	r.all = nil
	if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
		c.Close()
	}
	r.catchUp(t)
	if len(r.all) == 0 {
		t.Error("nothing is told after it was read")
	}
}

// looks is how often nothing new is to be found before nothing more is to come.
const looks = 5

// unsent reports whether the namespace has connections that packets may still end: any that does not only wait for its ports to be free (TIME_WAIT, proc_net_tcp.rst).
func unsent(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] != "sl" && f[3] != "06" {
			return true
		}
	}
	return false
}
