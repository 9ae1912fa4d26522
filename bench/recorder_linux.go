package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// recorderRounds is how many pairs of turns there are, without the recorder and with it.
const recorderRounds = 40

// A turn does something for a while, and returns what each time took of the processor, and the daemon beside it.
type turn struct {
	name string
	run  func(d *identd) (cpu, beside time.Duration, err error)
}

// recorder measures P6: what other programs and requests take with the daemon's recorder, and without it.
func (b *bench) recorder() error {
	local, remote, close, err := loopbackConnection()
	if err != nil {
		return err
	}
	defer close()
	l, to, err := listen(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		return err
	}
	defer unix.Close(l)
	var octet [1]byte
	turns := []turn{
		work("connect, accept, an octet each way, close", 2000, func() error {
			out, in, err := connect(l, netip.AddrPort{}, to)
			if err != nil {
				return err
			}
			for _, way := range [][2]int{{out, in}, {in, out}} {
				_, err1 := unix.Write(way[0], octet[:])
				_, err2 := unix.Read(way[1], octet[:])
				err = errors.Join(err, err1, err2)
			}
			return errors.Join(err, unix.Close(in), unix.Close(out))
		}),
		work("fork, exec, exit of true(1)", 100, func() error {
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
			if err == nil {
				_, err = syscall.Wait4(pid, nil, 0, nil)
			}
			return err
		}),
		b.asked("ID, hit, 16 clients", fmt.Sprintf("%d , %d", local.Port(), remote.Port()), false),
		b.asked("ID, miss, 16 clients", fmt.Sprintf("1 , %d", remote.Port()), true),
	}
	rounds := recorderRounds
	if b.quick {
		rounds = 10
	}
	type figures struct{ off, on, left, beside []float64 }
	took := make([]figures, len(turns))
	modes := []string{"off", "require"}
	for range rounds {
		for _, mode := range modes {
			err := b.recorded(mode, func(d *identd) error {
				for i, t := range turns {
					cpu, beside, err := t.run(d)
					if err != nil {
						return err
					}
					f := &took[i]
					if mode == "off" {
						f.off = append(f.off, float64(cpu))
					} else {
						f.on, f.beside = append(f.on, float64(cpu)), append(f.beside, float64(beside))
					}
					fmt.Fprintf(b.out, "BenchmarkP6/%s/recorder=%s-%d\t1\t%d cpu-ns/op\n", strings.NewReplacer(" ", "-", ",", "").Replace(t.name), mode, runtime.GOMAXPROCS(0), cpu)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		slices.Reverse(modes)
	}
	tab := table{head: []string{"processor time", "without", "with", "left", "the daemon's beside it"}}
	for i, t := range turns {
		f := took[i]
		for j := range f.off {
			f.left = append(f.left, f.off[j]/f.on[j])
		}
		beside := ""
		if x := mean(f.beside); x > 0 {
			beside = format(time.Duration(x))
		}
		tab.add(t.name, format(time.Duration(middleOf(f.off))), format(time.Duration(middleOf(f.on))), fmt.Sprintf("%.1f%%", 100*middleOf(f.left)), beside)
	}
	b.section("P6: what the recorder costs others", tab, "Medians of pairs of turns, for each of which the whole daemon is started: the load's own time in the first two rows, the whole daemon's in the others. "+
		"By the clock, what other programs do would count. What the daemon takes beside the first two, it takes on another processor if there is one. To reach: 95%.")
	return nil
}

func mean(fs []float64) (m float64) {
	for _, f := range fs {
		m += f / float64(len(fs))
	}
	return m
}

// work is a turn of something that this program does.
func work(name string, n int, once func() error) turn {
	return turn{name, func(d *identd) (cpu, beside time.Duration, err error) {
		used, own := d.cpu(), spent()
		for range n {
			if err := once(); err != nil {
				return 0, 0, err
			}
		}
		cpu = spent() - own
		time.Sleep(300 * time.Millisecond) // in which the daemon reads what was written
		return cpu / time.Duration(n), (d.cpu() - used) / time.Duration(n), nil
	}}
}

// asked is a turn of requests.
func (b *bench) asked(name, line string, isError bool) turn {
	return turn{name, func(d *identd) (cpu, beside time.Duration, err error) {
		var f load
		if err := b.askAll(d, line, isError, 16, &f); err != nil {
			return 0, 0, err
		}
		return time.Duration(1e3 * f.cpu[0]), 0, nil
	}}
}

// spent is the processor time of this program and of the children that it has waited for.
func spent() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		unix.Getrusage(who, &u) // it cannot fail
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}

// recorded starts a daemon with a mode of the recorder, waits until it records where it does, and has something done.
func (b *bench) recorded(mode string, do func(*identd) error) error {
	c := unbounded()
	c.Reply.Slots, c.Recorder.Mode = noGrid, mode
	d, err := b.startStopd(1161, c, -1)
	if err != nil {
		return err
	}
	defer d.end()
	for mode != "off" {
		local, remote, close, err := loopbackConnection()
		if err != nil {
			return err
		}
		close()
		line, err := d.ask(fmt.Sprintf("%d , %d", local.Port(), remote.Port()))
		if err != nil {
			return err
		}
		if strings.Contains(line, "USERID") {
			break // though it is closed
		}
	}
	return do(d)
}
