package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/optin"
	"github.com/stopd/stopd/internal/selftest"
)

// Check says what a daemon with this configuration would do and see on this machine. The error, before a word
// is written, is why it would not start.
func Check(cfg Config, w io.Writer) error {
	if err := unseen(runtime.GOOS); err != nil {
		return err
	}
	c, err := storeConfig(cfg, nil)
	if err != nil {
		return err
	}
	if err := evidence.Check(cfg.Store, c); err != nil {
		return err
	}
	if _, err := LogKey(cfg.Store); err != nil && !errors.Is(err, fs.ErrPermission) { // whoever checks may not be who will run it
		return err
	}
	key, missing, err := checkKey(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "listen: %s\n", list(cfg.Listen))
	fmt.Fprintf(w, "store: %s, sealed to %d recipient(s), at most %d octets\n", cfg.Store, len(cfg.Recipients), cfg.Limits.StoreBytes)
	if _, err := os.Stat(filepath.Dir(filepath.Clean(cfg.Store))); err != nil {
		fmt.Fprintf(w, "store: its directory cannot be read yet: %v\n", err)
	}
	if t, err := evidence.MeasureSync(cfg.Store); err == nil {
		fmt.Fprintf(w, "store: a write is durable after %s, the longest of %d after %s: replies wait for that\n", rounded(t.Median), t.Writes, rounded(t.Longest))
	} else {
		fmt.Fprintf(w, "store: how long a write takes until it is durable is not known: %v\n", err)
	}
	fmt.Fprintf(w, "log: %s\n", cfg.vouching())
	if evidence.KeysErased {
		fmt.Fprintln(w, "keys: a batch's key and what is derived from it are erased from memory when the batch closes")
	} else {
		fmt.Fprintln(w, "keys: a batch's key is erased when the batch closes, but not what was derived from it: this build has not GOEXPERIMENT=runtimesecret")
	}
	checkTLS(cfg, w, key, missing)
	fmt.Fprintf(w, "on behalf of other hosts: %s\n", whom(cfg.OnBehalf, "nobody may ask"))
	if len(cfg.OnBehalf) > 0 {
		fmt.Fprintln(w, "on behalf of other hosts: in plain from a port below 1024, by TLS with a pinned key")
	}
	fmt.Fprintf(w, "previous hosts: asked on port %d in %s, at most %d a request; where this host connected itself: %s\n",
		cfg.Traceback.Port, whom(cfg.Traceback.To, "no network"), cfg.Traceback.MaxPrevious, whom(cfg.Traceback.OutboundTo, "never"))
	if n := cfg.NAT; n.Answer {
		fmt.Fprintf(w, "connections that this host passes on: answered for, and for %s after their end; at most %d are remembered\n", n.Keep, n.Connections)
		if !bindsLow() {
			fmt.Fprintf(w, "connections that this host passes on: the machines are asked by TLS alone, where their keys are pinned: %v\n", errLowPorts)
		}
	} else {
		fmt.Fprintln(w, "connections that this host passes on: recorded; machines that have them with other hosts are not asked")
	}
	fmt.Fprintf(w, "names of users: %s\n", cfg.telling())
	if cfg.Recorder.Mode != recorderOff {
		if err := tryKeyring(); errors.Is(err, errUnrecorded) {
			fmt.Fprintf(w, "connections and processes that have ended: no: %v; they are not remembered\n", err)
		} else if err != nil {
			fmt.Fprintf(w, "what is remembered, over a restart: lost: the user's keyring cannot be used: %v\n", err)
		} else {
			fmt.Fprintln(w, "what is remembered, over a restart: kept, until this host is started anew")
		}
	}
	return checkProcesses(cfg, w)
}

// SelfTest makes on this machine what reports are about, checks that the daemon's own host sees each, and writes a line for each.
// The error says that something is not seen, or could not be made.
func SelfTest(ctx context.Context, w io.Writer) error {
	if err := unseen(runtime.GOOS); err != nil {
		return err
	}
	for _, a := range abilities() {
		fmt.Fprintln(w, a)
	}
	_ = keepProcesses() // where it cannot, the system's own view has to do
	sys, err := openSystem()
	if err != nil {
		return err
	}
	defer sys.close()
	return selftest.Run(ctx, sys.Host, func() *exec.Cmd {
		return &exec.Cmd{Path: self, Args: []string{"stopd", string(tested)}, Env: append(inheritable(), roleVariable+"="+string(tested))}
	}, w)
}

// checkKey reads the host's TLS key as the daemon would, which starts without one, but not with one that is none.
func checkKey(cfg Config) (key *tls.Certificate, missing, err error) {
	path, err := TLSKeyPath(cfg.Store)
	if err != nil {
		return nil, nil, err
	}
	key, err = ReadTLSKey(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, err, nil
	}
	return key, nil, err
}

// checkTLS says who is answered by TLS.
func checkTLS(cfg Config, w io.Writer, key *tls.Certificate, missing error) {
	var pinned []Network
	for _, p := range cfg.Peers {
		if p.Pin != "" {
			pinned = append(pinned, p.Hosts...)
		}
	}
	never := "TLS: never in plain"
	if key != nil {
		fmt.Fprintf(w, "TLS: this host's pin is %s\n", stop.PinOf(key.Leaf))
	} else {
		fmt.Fprintf(w, "TLS: refused: %v\n", missing)
		never += ", and so never answered"
	}
	if len(pinned) > 0 {
		fmt.Fprintf(w, "%s: %s\n", never, list(pinned))
	}
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
	if !cfg.tellsNames() {
		return nil
	}
	c, err := s.tryReader()
	if err != nil {
		return err
	}
	if len(c) == 0 {
		c = []string{"none of it"}
	}
	fmt.Fprintf(w, "%s, as a user, can: %s\n", reader, strings.Join(c, ", "))
	return nil
}

// tryReader starts a reader as the daemon would, for a user without a home, and returns what it can.
func (s *supervisor) tryReader() ([]string, error) {
	uid := unprivileged()
	if uid < 0 {
		uid = os.Geteuid()
	}
	q := optin.Question{UID: uint32(uid), GID: uint32(uid)}
	b, err := readBy(readerAsked{q, new(s.trial())}, s.cfg, time.Now().Add(endTime), func() {})
	if err != nil {
		return nil, fmt.Errorf("try the %s: %w", reader, err)
	}
	said, err := parseSaid(b)
	return said.Can, err
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

// telling says who gets names of users.
func (c Config) telling() string {
	var to []Network
	for _, p := range c.Peers {
		if p.Names {
			to = append(to, p.Hosts...)
		}
	}
	var told []string
	if len(to) > 0 {
		told = append(told, "told to "+list(to)+" unless a user's files hide him")
	}
	if c.Reply.OptIn {
		told = append(told, "told to those that a user's ~/.ident lists")
	}
	if len(told) == 0 {
		return "told to nobody"
	}
	return strings.Join(told, "; ")
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

func whom(ns []Network, none string) string {
	if len(ns) == 0 {
		return none
	}
	return list(ns)
}
