package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/trace"
)

// Names of the sides.
const (
	ours    = "stopd"
	withBPF = "stopd-bpf"
	base    = "T"
)

// deadline is how long a daemon that was told nothing else lets one trace take. Where whole answers are compared
// there is more time, so that what is measured does not end before it on a busy machine.
const (
	deadline = time.Second
	patience = 20 * time.Second
)

type bench struct {
	ctx   context.Context
	out   io.Writer
	quick bool
	dir   string
	text  strings.Builder // tables
}

// examiner is what answers in the daemon, without the daemon.
func examiner(h *linux.Host, k examine.Keeper) *examine.Examiner {
	return &examine.Examiner{Host: h, Keeper: k, Name: "stopd", Version: "bench", Sources: h.Sources,
		Deadline: patience, Trace: trace.Defaults, Save: examine.AllGroups, UserName: h.UserName}
}

// hosts opens this machine twice: as it is read by /proc alone, and by BPF. The second is nil where the kernel
// does not let it.
func (b *bench) hosts() (proc, bpf *linux.Host, err error) {
	if proc, err = linux.Open(); err != nil {
		return nil, nil, err
	}
	if bpf, err = linux.Open(); err != nil {
		proc.Close()
		return nil, nil, err
	}
	if err := bpf.Accelerate(); err != nil {
		fmt.Fprintln(b.out, "# BPF is not measured:", err)
		bpf.Close()
		bpf = nil
	}
	return proc, bpf, nil
}

func closeHosts(hs ...*linux.Host) {
	for _, h := range hs {
		if h != nil {
			h.Close()
		}
	}
}

// noKeeper makes the token and keeps nothing.
type noKeeper struct{}

func (noKeeper) Keep(_ context.Context, report []byte, _ stop.Payer) (stop.Token, error) {
	return stop.TokenOf(report), nil
}

func question(typ stop.Type, local, remote netip.AddrPort) stop.Question {
	r := stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: typ}
	return r.About(remote.Addr(), local.Addr(), time.Now())
}

// sockets has processes hold so many sockets, as many each as a process may.
func (b *bench) sockets(n int) ([]*garden, error) {
	var gs []*garden
	for left := n; left > 0; {
		part := min(left, maxFiles-1000)
		g, err := grow("connections", part)
		if err != nil {
			end(gs)
			return nil, err
		}
		gs = append(gs, g)
		left -= part
	}
	return gs, nil
}

func end(gs []*garden) {
	for _, g := range gs {
		g.end()
	}
}

// emptyStore opens an empty store in a new directory, which the caller removes.
func (b *bench) emptyStore() (dir string, _ *evidence.Store, err error) {
	if dir, err = os.MkdirTemp(b.dir, ".bench-"); err != nil {
		return "", nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	store, err := evidence.Open(filepath.Join(dir, "store"), evidence.Config{Recipients: []age.Recipient{id.Recipient()}})
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, store, nil
}

// fitting returns how many of so many small processes the machine has room for.
func fitting(n int) int {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return n
	}
	const each = 200 << 10 // octets: stack, page tables and what the fork copied
	return min(n, int(s.Freeram*uint64(s.Unit)/2/each))
}

// section adds a table to the text.
func (b *bench) section(title string, t table, below string) {
	fmt.Fprintf(&b.text, "### %s\n\n%s\n%s\n\n", title, t.markdown(), below)
}

// count writes a number with separators.
func count(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
	}
	return fmt.Sprint(n)
}
