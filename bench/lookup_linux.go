package main

import (
	"errors"
	"fmt"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/bench/thesis"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
)

// flows is how many connections are asked about in turn: the thesis finds one early in /proc/net/tcp and another late.
const flows = 16

// lookUp measures P1, the look-up of the user of a connection, among so many other sockets.
func (b *bench) lookUp() error {
	h, err := linux.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	// Each flow has a listener of its own, since those of one stand beside each other in the kernel's table.
	var fs []host.Flow
	for range flows {
		local, remote, close, err := loopbackConnection()
		if err != nil {
			return err
		}
		defer close()
		fs = append(fs, host.Flow{Protocol: host.TCP, Local: local, Remote: remote})
	}
	sides, err := b.lookers(h, fs)
	if err != nil {
		return err
	}
	t := table{head: []string{"other sockets", "stopd, whole ID request", "stopd, look-up alone", "T", "T / request", "T / look-up"}}
	var first, last map[string]figure
	var at10000 string
	for _, n := range []int{10, 100, 1000, 10000, 100000} {
		if b.quick && n > 10000 {
			break
		}
		g, err := b.sockets(n)
		if err != nil {
			fmt.Fprintln(b.out, "# not measured:", err)
			t.add(count(n), "not measured", "", "", "", "")
			continue
		}
		f, err := measure(b.out, fmt.Sprintf("P1/sockets=%d", n), sides...)
		end(g)
		if err != nil {
			return err
		}
		if first == nil {
			first = f
		}
		last = f
		o, find, thesis := f[ours].median(), f["stopd-find"].median(), f[base].median()
		t.add(count(n), format(o), format(find), format(thesis), times(thesis, o), times(thesis, find))
		if n == 10000 {
			at10000 = times(thesis, o)
		}
	}
	b.section("P1: look-up of a connection's user", t,
		fmt.Sprintf("From the fewest to the most sockets stopd takes %s as long for a request, %s for the look-up alone, T %s. To reach: at most 1.5×; and at 10,000 sockets T / request 100× (here %s).",
			times(last[ours].median(), first[ours].median()), times(last["stopd-find"].median(), first["stopd-find"].median()),
			times(last[base].median(), first[base].median()), at10000))
	return nil
}

// lookers are who looks the user of each flow up, in turn. All must find the same.
func (b *bench) lookers(h *linux.Host, fs []host.Flow) ([]side, error) {
	look, exam := thesis.New(), examiner(h, noKeeper{})
	var turns [3]int
	next := func(i int) host.Flow { turns[i]++; return fs[turns[i]%flows] }
	sides := []side{
		{name: ours, run: func() error {
			f := next(0)
			_, err := exam.Examine(b.ctx, question(stop.ID, f.Local, f.Remote))
			return err
		}},
		{name: "stopd-find", run: func() error {
			_, err := h.Find(b.ctx, next(1))
			return err
		}},
		{name: base, least: flows, run: func() error {
			f := next(2)
			_, err := look.ID(f.Local, f.Remote)
			return err
		}},
	}
	for _, f := range fs {
		s, err := h.Find(b.ctx, f)
		uid, err2 := look.ID(f.Local, f.Remote)
		if err := errors.Join(err, err2); err != nil || s.UID != uid {
			return nil, fmt.Errorf("both must find the same user: %d, %d: %w", s.UID, uid, err)
		}
	}
	return sides, nil
}
