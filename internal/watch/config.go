// Package watch asks hosts about the connections that others report: intrusion detection systems, a person, or the connection
// tracking of a gateway. It reads what they write, chooses by rules whom to ask, keeps within budgets, and keeps the answers.
package watch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/internal/settings"
)

// A Config is the file that says whom to ask about what.
type Config struct {
	// Tokens is where the answers are kept: a file, or an address of PostgreSQL.
	Tokens    string            `toml:"tokens"`
	Retention settings.Duration `toml:"retention"`
	// Position is the file that has how far each log was read.
	Position string `toml:"position"`
	// Hosts are who may be asked. Nobody else is, whatever the rules say: to ask somebody is to tell him of the connection.
	Hosts []settings.Network `toml:"hosts"`
	Port  uint16             `toml:"port"`
	// CommunitySeed is that of the site's Community IDs.
	CommunitySeed uint16 `toml:"community_seed"`
	// Metrics is a loopback address and port at which Prometheus reads the counts; empty is nowhere.
	Metrics string `toml:"metrics"`
	Limits  Limits `toml:"limits"`
	Rules   []Rule `toml:"rule"`
}

// Limits bound what is done. What is more is dropped, and counted.
type Limits struct {
	AtOnce           int               `toml:"at_once"`            // questions under way
	Queue            int               `toml:"queue"`              // questions that wait
	HostPerSecond    float64           `toml:"host_per_second"`    // questions to one host
	NetworkPerSecond float64           `toml:"network_per_second"` // to all of one /24 or /64
	Burst            float64           `toml:"burst"`              // seconds' worth of either that may come at once
	Repeat           settings.Duration `toml:"repeat"`             // a host is not asked again about a connection within
	Timeout          settings.Duration `toml:"timeout"`            // of one question
	Retries          int               `toml:"retries"`            // of a host that could not be reached
	RetryAfter       settings.Duration `toml:"retry_after"`
	Age              settings.Duration `toml:"age"` // of what is asked about: later its ports may be another connection's
}

// A Rule says what to do with some of the reported connections. The first that fits decides. What it does not name fits.
type Rule struct {
	Input       []string           `toml:"input"`       // eve, zeek, stdin, conntrack
	Kind        []string           `toml:"kind"`        // event types of Suricata, logs of Zeek
	Alert       []string           `toml:"alert"`       // names of alerts, with * and ?
	Signature   []uint64           `toml:"signature"`   // numbers of Suricata's signatures
	Severity    int                `toml:"severity"`    // this or worse, where 1 is the worst
	Source      []settings.Network `toml:"source"`      // who opened the connection
	Destination []settings.Network `toml:"destination"` // to whom
	Ports       []uint16           `toml:"ports"`       // of the destination
	Ask         string             `toml:"ask"`         // source, destination, both or none
	Type        string             `toml:"type"`
}

// Whom a rule has asked.
const (
	AskSource      = "source"
	AskDestination = "destination"
	AskBoth        = "both"
	AskNone        = "none"
)

// Inputs are what rules may name.
const (
	InputEVE       = "eve"
	InputZeek      = "zeek"
	InputStdin     = "stdin"
	InputConntrack = "conntrack"
)

// Defaults are the configuration of a file that is empty. It asks nobody.
func Defaults() Config {
	return Config{Tokens: "/var/lib/stopd/tokens.db", Retention: settings.Duration{Duration: 90 * 24 * time.Hour}, Position: "/var/lib/stopd/watch.position", Port: 113,
		Limits: Limits{AtOnce: 256, Queue: 10000, HostPerSecond: 20, NetworkPerSecond: 500, Burst: 5, Repeat: settings.Duration{Duration: 2 * time.Minute},
			Timeout: settings.Duration{Duration: 10 * time.Second}, Retries: 2, RetryAfter: settings.Duration{Duration: 5 * time.Second},
			Age: settings.Duration{Duration: time.Minute}}}
}

// Load reads a configuration file.
func Load(name string) (Config, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", name, err)
	}
	return c, nil
}

// Parse reads a configuration. On failure it is zero.
func Parse(b []byte) (Config, error) {
	c := Defaults()
	if err := settings.Decode(b, &c); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func (c *Config) check() error {
	var errs []error
	for key, n := range map[string]float64{"port": float64(c.Port), "retention": float64(c.Retention.Duration), "limits.at_once": float64(c.Limits.AtOnce),
		"limits.queue": float64(c.Limits.Queue), "limits.host_per_second": c.Limits.HostPerSecond, "limits.network_per_second": c.Limits.NetworkPerSecond,
		"limits.burst": c.Limits.Burst, "limits.repeat": float64(c.Limits.Repeat.Duration), "limits.timeout": float64(c.Limits.Timeout.Duration),
		"limits.age": float64(c.Limits.Age.Duration), "limits.retry_after": float64(c.Limits.RetryAfter.Duration)} {
		if !(n > 0) {
			errs = append(errs, fmt.Errorf("%s must be more than 0", key))
		}
	}
	if c.Limits.Retries < 0 {
		errs = append(errs, errors.New("limits.retries must not be less than 0"))
	}
	if c.Tokens == "" || c.Position == "" {
		errs = append(errs, errors.New("tokens or position is empty"))
	}
	if c.Metrics != "" {
		if err := prom.Check(c.Metrics); err != nil {
			errs = append(errs, fmt.Errorf("metrics: %w", err))
		}
	}
	networks := c.Hosts
	for i := range c.Rules {
		if err := c.Rules[i].check(); err != nil {
			errs = append(errs, fmt.Errorf("rule %d: %w", i+1, err))
		}
		networks = slices.Concat(networks, c.Rules[i].Source, c.Rules[i].Destination)
	}
	for _, n := range networks {
		if n.Addr().Is4In6() { // no address would ever be in it
			errs = append(errs, fmt.Errorf("%q is IPv4 written as IPv6: write it as IPv4", n))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (r *Rule) check() error {
	if !slices.Contains([]string{AskSource, AskDestination, AskBoth, AskNone}, r.Ask) {
		return fmt.Errorf("ask is %q: none of source, destination, both, none", r.Ask)
	}
	if r.Type == "" {
		r.Type = stop.SVRec.String()
	}
	if _, err := stop.ParseType(r.Type); err != nil {
		return err
	}
	for _, in := range r.Input {
		if !slices.Contains([]string{InputEVE, InputZeek, InputStdin, InputConntrack}, in) {
			return fmt.Errorf("input has %q: none of eve, zeek, stdin, conntrack", in)
		}
	}
	for _, a := range r.Alert {
		if _, err := path.Match(a, ""); err != nil {
			return fmt.Errorf("alert has %q: %w", a, err)
		}
	}
	if r.Severity < 0 {
		return errors.New("severity is less than 0")
	}
	return nil
}
