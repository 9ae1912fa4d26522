package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// dir is where a site's stopd lives on its host.
const dir = "/srv/stopd"

// Where a site's configuration is, its evidence, and the key that opens it.
const (
	Config   = dir + "/stopd.toml"
	Store    = dir + "/store"
	Identity = dir + "/admin.key"
)

// A Site is a host of a lab with stopd on port 113.
type Site struct {
	Host   *netlab.Host
	Daemon *netlab.Daemon
}

// Dir is where stopd and stopctl are, for who knows: tests have built them. Empty means to look for them.
var Dir string

// Programs finds stopd and stopctl: in Dir, else beside the running program, else in bin/ of the checkout
// that the working directory is in.
func Programs() (string, error) {
	if Dir != "" {
		return Dir, nil
	}
	var tried []string
	if exe, err := os.Executable(); err == nil {
		tried = append(tried, filepath.Dir(exe))
	}
	if wd, err := os.Getwd(); err == nil {
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			tried = append(tried, filepath.Join(d, "bin"))
		}
	}
	for _, d := range tried {
		_, err := os.Stat(filepath.Join(d, "stopd"))
		_, err2 := os.Stat(filepath.Join(d, "stopctl"))
		if err == nil && err2 == nil {
			return d, nil
		}
	}
	return "", errors.New("find stopd and stopctl: not beside this program, nor in bin/ (run make build)")
}

// Install puts stopd and stopctl on a host and makes a configuration, without starting anything.
func Install(ctx context.Context, h *netlab.Host, initFlags ...string) (*Site, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	for _, p := range []string{"stopd", "stopctl"} {
		if err := h.Install(filepath.Join(programs, p), "/usr/local/bin/"+p); err != nil {
			return nil, err
		}
	}
	if _, err := h.Run(ctx, "/usr/local/bin/stopctl", append([]string{"init", "-dir", dir}, initFlags...)...); err != nil {
		return nil, err
	}
	s := &Site{Host: h}
	// A trace-back is recorded that long after its reply, and a bit.
	return s, s.Configure("timeout", `timeout = "3s"`)
}

// Start installs stopd on a host and starts it; it returns once the daemon answers.
func Start(ctx context.Context, h *netlab.Host, initFlags ...string) (*Site, error) {
	s, err := Install(ctx, h, initFlags...)
	if err != nil {
		return nil, err
	}
	return s, s.Run(ctx)
}

// Run starts the site's daemon.
func (s *Site) Run(ctx context.Context) error {
	var err error
	if s.Daemon, err = s.Host.Start("/usr/local/bin/stopd", "-config", Config); err != nil {
		return err
	}
	if err := s.Host.WaitListen(ctx, 113); err != nil {
		log, _ := s.Daemon.Log()
		return fmt.Errorf("start stopd on %s: %w: %s", s.Host.Name, err, log)
	}
	return nil
}

// Configure replaces a line of the configuration by another, for the next start or SIGHUP.
func (s *Site) Configure(key, line string) error {
	b, err := s.Host.ReadFile(dir + "/stopd.toml")
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		if k, _, ok := strings.Cut(l, "="); ok && strings.TrimSpace(k) == key {
			lines[i] = line
			return s.Host.WriteFile(Config, []byte(strings.Join(lines, "\n")), 0o600, "root")
		}
	}
	return fmt.Errorf("configure %s: no key %q", s.Host.Name, key)
}

// Stopctl runs stopctl on the host and returns what it printed.
func (s *Site) Stopctl(ctx context.Context, args ...string) (string, error) {
	b, err := s.Host.Run(ctx, "/usr/local/bin/stopctl", args...)
	return strings.TrimSuffix(string(b), "\n"), err
}

// RedeemFlags are the flags with which stopctl redeem opens a token on this host.
func RedeemFlags(reason string) []string {
	return []string{"redeem", "-store", dir + "/store", "-identity", dir + "/admin.key", "-by", "the administrator", "-reason", reason}
}

// Redeem redeems a token on the host that gave it. It returns what was printed, as well as parsed.
func (s *Site) Redeem(ctx context.Context, token string) ([]byte, report.Redeemed, error) {
	b, err := s.Host.Run(ctx, "/usr/local/bin/stopctl", append(RedeemFlags("a trace"), token)...)
	if err != nil {
		return nil, report.Redeemed{}, err
	}
	r, _, err := report.DecodeRedeemed(b)
	return b, r, err
}

// Traced redeems a token as soon as everybody who was asked has answered, or could not.
func (s *Site) Traced(ctx context.Context, token string) ([]byte, report.Redeemed, error) {
	var text []byte
	var r report.Redeemed
	err := netlab.WaitFor(ctx, func() (bool, error) {
		var err error
		if text, r, err = s.Redeem(ctx, token); err != nil {
			return false, err
		}
		for _, t := range r.Traceback {
			if t.Asked && t.Answered.IsZero() {
				return false, nil
			}
		}
		// Until the trace-back is recorded there is nothing.
		return r.Traceback != nil && (len(r.Traceback) > 0 || len(r.Report.Previous) == 0), nil
	})
	return text, r, err
}

// Answered counts the answers that the host's store holds. None means that nobody asked.
func (s *Site) Answered(ctx context.Context) (int, error) {
	out, err := s.Stopctl(ctx, "list", "-store", Store)
	if err != nil {
		return 0, err
	}
	n := 0
	for l := range strings.Lines(out) {
		if f := strings.Fields(l); len(f) > 1 && f[1] == "report" {
			n++
		}
	}
	return n, nil
}
