package main

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
)

// owners measures what a look at all descriptors takes, the one part of a trace that grows with the host:
// who holds the asked connection, beside what an administrator would ask.
func (b *bench) owners() error {
	g, err := grow("login", 0)
	if err != nil {
		return err
	}
	defer g.end()
	h, bpf, err := b.hosts()
	if err != nil {
		return err
	}
	defer closeHosts(h, bpf)
	sides := []side{b.owner(ours, h)}
	if bpf != nil {
		sides = append(sides, b.owner(withBPF, bpf))
	}
	sides = append(sides, b.tools()...)
	t := table{head: []string{"others", "descriptors", "with BPF", "by /proc", "lsof", "ss", "lsof / with BPF", "ss / with BPF"}}
	for _, c := range []struct {
		what                            string
		processes, sockets, descriptors int
	}{
		{"100 processes", 100, 0, 600},
		{"1,000 processes", 1000, 0, 6000},
		{"10,000 processes", 10000, 0, 60000},
		{"few processes with 10,000 sockets", 0, 10000, 10000},
		{"few processes with 100,000 sockets", 0, 100000, 100000},
	} {
		if b.quick && c.descriptors > 10000 {
			continue
		}
		var gs []*garden
		if c.sockets > 0 {
			gs, err = b.sockets(c.sockets)
		} else {
			var o *garden
			if o, err = grow("others", fitting(c.processes)); err == nil {
				gs = []*garden{o}
			}
		}
		if err != nil {
			return err
		}
		f, err := measure(b.out, fmt.Sprintf("owner/processes=%d/descriptors=%d", c.processes, c.descriptors), sides...)
		end(gs)
		if err != nil {
			return err
		}
		o := f[withBPF].median()
		t.add(c.what, count(c.descriptors), format(o), format(f[ours].median()), format(f["lsof"].median()), format(f["ss"].median()),
			times(f["lsof"].median(), o), times(f["ss"].median(), o))
	}
	b.section("Who holds one connection", t, "One pass over all descriptors, which each trace takes once; lsof -nP -iTCP:PORT and ss -tnpH sport = :PORT start a program each time.")
	return nil
}

// owner finds the holder of the asked connection.
func (b *bench) owner(name string, h *linux.Host) side {
	return side{name: name, run: func() error {
		s, err := h.Find(b.ctx, host.Flow{Protocol: host.TCP, Local: asked[0], Remote: asked[1]})
		if err != nil {
			return err
		}
		snap, err := h.Snapshot(b.ctx)
		if err != nil {
			return err
		}
		defer snap.Close()
		hs, err := snap.Holders(b.ctx, s.Object)
		if err == nil && len(hs) != 1 {
			err = fmt.Errorf("find holder: %v", hs)
		}
		return err
	}}
}

// tools are what an administrator would ask for the owner of the asked connection.
func (b *bench) tools() []side {
	var sides []side
	for _, argv := range [][]string{
		{"lsof", "-nP", "-iTCP:" + fmt.Sprint(asked[0].Port())},
		{"ss", "-tnpH", "sport", "=", fmt.Sprintf(":%d", asked[0].Port())},
	} {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			fmt.Fprintln(b.out, "# not measured:", err)
			continue
		}
		sides = append(sides, side{name: argv[0], run: func() error {
			out, err := exec.CommandContext(b.ctx, path, argv[1:]...).Output()
			if err == nil && !strings.Contains(string(out), fmt.Sprint(asked[1].Port())) {
				err = fmt.Errorf("%s does not know the connection: %q", argv[0], out)
			}
			return err
		}})
	}
	return sides
}
