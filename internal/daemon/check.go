package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/stopd/stopd/evidence"
)

// Check says what a daemon with this configuration would do and see on this machine. The error, before a word
// is written, is why it would not start.
func Check(cfg Config, w io.Writer) error {
	c, err := storeConfig(cfg, nil)
	if err != nil {
		return err
	}
	if err := evidence.Check(cfg.Store, c); err != nil {
		return err
	}
	fmt.Fprintf(w, "listen: %s\n", list(cfg.Listen))
	fmt.Fprintf(w, "store: %s, sealed to %d recipient(s), at most %d octets\n", cfg.Store, len(cfg.Recipients), cfg.Limits.StoreBytes)
	if _, err := os.Stat(filepath.Dir(filepath.Clean(cfg.Store))); err != nil {
		fmt.Fprintf(w, "store: its directory cannot be read yet: %v\n", err)
	}
	fmt.Fprintf(w, "log: %s\n", cfg.vouching())
	if evidence.KeysErased {
		fmt.Fprintln(w, "keys: a batch's key and what is derived from it are erased from memory when the batch closes")
	} else {
		fmt.Fprintln(w, "keys: a batch's key is erased when the batch closes, but not what was derived from it: this build has not GOEXPERIMENT=runtimesecret")
	}
	fmt.Fprintf(w, "on behalf of other hosts: %s\n", whom(cfg.OnBehalf, "nobody may ask"))
	fmt.Fprintf(w, "previous hosts: asked on port %d in %s, at most %d a request; where this host connected itself: %s\n",
		cfg.Traceback.Port, whom(cfg.Traceback.To, "no network"), cfg.Traceback.MaxPrevious, whom(cfg.Traceback.OutboundTo, "never"))
	return checkProcesses(cfg, w)
}

// checkProcesses starts each process as the daemon would, has it try what a stranger would, and says what the collector sees
// and what each can.
func checkProcesses(cfg Config, w io.Writer) error {
	if len(tried) == 0 {
		for _, a := range abilities() {
			fmt.Fprintln(w, a)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "stopd-check-")
	if err != nil {
		return fmt.Errorf("try processes: %w", err)
	}
	defer os.RemoveAll(dir)
	cfg.Store = filepath.Join(dir, "store")
	s := &supervisor{log: slog.New(slog.NewTextHandler(io.Discard, nil)), cfg: cfg}
	can := map[role][]string{}
	for _, r := range roles {
		c, sees, err := s.try(r)
		if err != nil {
			return err
		}
		if r == collector {
			for _, a := range sees {
				fmt.Fprintln(w, a)
			}
		}
		if can[r] = c; len(c) == 0 {
			can[r] = []string{"none of it"}
		}
	}
	fmt.Fprintf(w, "tried in each process: %s\n", strings.Join(tried, ", "))
	for _, r := range []role{front, tracer, collector, keeper} {
		fmt.Fprintf(w, "%s can: %s\n", r, strings.Join(can[r], ", "))
	}
	return nil
}

// try starts a process as the daemon would, but for what it is to do, and returns what it can and what it sees of this machine.
func (s *supervisor) try(r role) (can, sees []string, err error) {
	e, err := joinAll()
	if err != nil {
		return nil, nil, err
	}
	defer e.close()
	c, err := s.launch(r, e)
	if err != nil {
		return nil, nil, err
	}
	g := &group{processes: map[role]*child{r: c}}
	defer g.end(endTime)
	if can, err = s.tell(c, started{Trial: new(s.trial())}); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if sees, err = ask[[]string](ctx, c.control, callAbilities, none{}); err != nil {
		return nil, nil, fmt.Errorf("ask the %s what it sees: %w", r, err)
	}
	return can, sees, nil
}

// trial is what is tried.
func (s *supervisor) trial() trial {
	return trial{File: "/etc/passwd", Dir: "/var/tmp", Store: s.cfg.Store, PID: os.Getpid()}
}

// vouching says who would notice that the store was changed.
func (c Config) vouching() string {
	n := c.Quorum
	if n == 0 {
		n = len(c.Witnesses)
	}
	if n == 0 {
		return "shown to no witness: who has its key can write it anew, and only reports that others hold speak against it"
	}
	return fmt.Sprintf("shown to %d witness(es), of which %d have to cosign it", len(c.Witnesses), n)
}

func whom(ps []netip.Prefix, none string) string {
	if len(ps) == 0 {
		return none
	}
	return list(ps)
}
