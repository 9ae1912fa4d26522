package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// lookName is what this program is called on the hosts, where it looks at a connection by /proc and by BPF
// and prints in what the reports differ.
const lookName = "/usr/local/bin/look-both-ways"

// lookBothWays is the program.
func lookBothWays() {
	if len(os.Args) != 3 || os.Args[0] != lookName {
		return
	}
	if err := bothWays(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
	}
	os.Exit(0)
}

// bothWays returns an error that says what differs.
func bothWays(local, remote string) error {
	if err := linux.KeepProc(); err != nil { // as the daemon does
		return err
	}
	l, err := netip.ParseAddrPort(local)
	r, err2 := netip.ParseAddrPort(remote)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	request := stop.Request{Local: uint64(l.Port()), Remote: uint64(r.Port()), Type: stop.SV}
	q := request.About(r.Addr(), l.Addr(), time.Now())
	// What other people do on the host meanwhile may differ, and what there was no time for, but not again and again.
	var d string
	for began, tries := time.Now(), 0; tries < 5 || time.Since(began) < time.Minute; tries++ {
		if d, err = difference(q); err != nil || d == "" {
			return err
		}
	}
	return fmt.Errorf("the reports differ (-/proc +BPF):\n%s", d)
}

// difference returns in what two reports differ, as they would be saved.
func difference(q stop.Question) (string, error) {
	h, err := linux.Open()
	if err != nil {
		return "", err
	}
	defer h.Close()
	x := examine.Examiner{Host: h, Name: "stopd", Sources: h.Sources, PIDs: []int{os.Getpid()}, Deadline: 30 * time.Second, Trace: trace.Defaults,
		Save: examine.AllGroups, UserName: h.UserName}
	var looks [2]any
	for i, sources := range [][]string{{"netlink", "proc"}, {"netlink", "proc", "bpf"}} {
		if i == 1 {
			if err := h.Accelerate(); err != nil {
				return "", fmt.Errorf("BPF: %w", err)
			}
		}
		r, err := x.Look(context.Background(), q)
		if err != nil {
			return "", err
		}
		// Where addresses are translated there is one more.
		if had := slices.DeleteFunc(r.Tool.Sources, func(s string) bool { return s == "conntrack" }); !slices.Equal(had, sources) {
			return "", fmt.Errorf("sources are %v, want %v", had, sources)
		}
		// When and by what it was looked is not what was seen.
		r.Salt, r.Tool, r.Host.Clock = "", report.Tool{}, nil
		if r.Connection != nil {
			r.Connection.Bytes = host.Bytes{}
		}
		for i := range r.Previous {
			r.Previous[i].Bytes = host.Bytes{}
		}
		if err := json.Unmarshal(report.Encode(r), &looks[i]); err != nil {
			return "", err
		}
	}
	return cmp.Diff(looks[0], looks[1]), nil
}

// alike looks at a connection both ways, on the host whose end of it is given.
func (s *stage) alike(c connection) {
	s.t.Helper()
	if s.busy {
		return
	}
	for _, at := range s.sites() {
		if !s.of(at, c.local.Addr()) {
			continue
		}
		out, err := at.Host.Run(s.ctx, lookName, c.local.String(), c.remote.String())
		s.must(err)
		if text := strings.TrimSpace(string(out)); text != "" {
			s.t.Errorf("%s: %s", at.Host.Name, text)
		}
	}
}
