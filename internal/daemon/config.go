package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// A Config is the configuration file. Keys that it does not have are errors.
type Config struct {
	Listen     []string  `toml:"listen"`
	Store      string    `toml:"store"`
	Volatile   bool      `toml:"volatile"`
	Recipients []string  `toml:"recipients"`
	OnBehalf   []Network `toml:"on_behalf"`
	Quorum     int       `toml:"quorum"`
	Reply      Reply     `toml:"reply"`
	Limits     Limits    `toml:"limits"`
	Traceback  Traceback `toml:"traceback"`
	Save       Save      `toml:"save"`
	Metrics    Metrics   `toml:"metrics"`
	Peers      []Peer    `toml:"peer"`
	Syslog     Syslog    `toml:"syslog"`
	Witnesses  []Witness `toml:"witness"`
}

// A Witness is shown the log's checkpoints.
type Witness struct {
	URL string `toml:"url"`
	Key string `toml:"key"`
}

// Reply says what errors look like, and when replies leave.
type Reply struct {
	Errors string `toml:"errors"`
	OptIn  bool   `toml:"opt_in"`
	Slots  Slots  `toml:"slots"`
}

// Slots are how far apart the replies to each type of request may leave.
type Slots struct {
	ID    Duration `toml:"ID"`
	IDRec Duration `toml:"ID_REC"`
	SV    Duration `toml:"SV"`
	SVRec Duration `toml:"SV_REC"`
}

// Limits bound the work.
type Limits struct {
	Connections          int      `toml:"connections"`
	ConnectionsPerSource int      `toml:"connections_per_source"`
	RequestsPerConn      int      `toml:"requests_per_connection"`
	Idle                 Duration `toml:"idle"`
	Lookups              int      `toml:"lookups"`
	PerSourcePerSecond   int      `toml:"per_source_per_second"`
	Burst                int      `toml:"burst"`
	PerUserPerSecond     int      `toml:"per_user_per_second"`
	UserBurst            int      `toml:"user_burst"`
	AskersPerSID         int      `toml:"askers_per_sid"`
	Table                int      `toml:"table"`
	Over                 string   `toml:"over"`
	Deadline             Duration `toml:"deadline"`
	Processes            int      `toml:"processes"`
	Descriptors          int      `toml:"descriptors"`
	Bytes                int      `toml:"bytes"`
	Hub                  int      `toml:"hub"`
	StoreBytes           int64    `toml:"store_bytes"`
	Retention            Duration `toml:"retention"`
}

// Traceback says how previous hosts are asked.
type Traceback struct {
	Port        int       `toml:"port"`
	Window      Duration  `toml:"window"`
	To          []Network `toml:"to"`
	OutboundTo  []Network `toml:"outbound_to"`
	MaxPrevious int       `toml:"max_previous"`
	Timeout     Duration  `toml:"timeout"`
	Parallel    int       `toml:"parallel"`
}

// Save says what reports hold.
type Save struct {
	Arguments   string `toml:"arguments"`
	Host        bool   `toml:"host"`
	CWD         bool   `toml:"cwd"`
	ExeHash     bool   `toml:"exe_hash"`
	Login       bool   `toml:"login"`
	Files       bool   `toml:"files"`
	Users       bool   `toml:"users"`
	Environment bool   `toml:"environment"`
}

// Metrics says where what was counted can be read.
type Metrics struct {
	Listen string `toml:"listen"` // an address of the host's own and a port; empty is nowhere
}

// Syslog says which log server is told the leaves of the store's log.
type Syslog struct {
	To string `toml:"to"` // "udp://" or "tcp://", an address and a port; empty is none
}

// A Duration is written as Go writes it: "120s". A number without its unit is none.
type Duration struct{ time.Duration }

// UnmarshalText parses a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"30s\" or \"2m\"", b)
	}
	d.Duration = v
	return nil
}

// MarshalText writes it as it is parsed.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Defaults returns the configuration of a file that sets nothing but the recipients.
func Defaults() Config {
	return Config{
		Listen: []string{"[::]:113"}, Store: "/var/lib/stopd/store", OnBehalf: []Network{},
		Reply: Reply{Errors: server.ErrorsStandard, Slots: Slots{ID: Duration{5 * time.Millisecond}, IDRec: Duration{20 * time.Millisecond},
			SV: Duration{20 * time.Millisecond}, SVRec: Duration{20 * time.Millisecond}}},
		Limits: Limits{
			Connections: 1024, ConnectionsPerSource: 128, RequestsPerConn: 100, Idle: Duration{30 * time.Second},
			Lookups: 64, PerSourcePerSecond: 200, Burst: 400, PerUserPerSecond: 50, UserBurst: 200,
			AskersPerSID: 64, Table: 65536, Over: server.OverDecoy,
			Deadline: Duration{2 * time.Second}, Processes: trace.Defaults.Processes, Descriptors: trace.Defaults.Descriptors, Bytes: trace.Defaults.Bytes,
			Hub: trace.Defaults.Hub, StoreBytes: 10 << 30, Retention: Duration{90 * 24 * time.Hour},
		},
		Traceback: Traceback{
			Port: 113, Window: Duration{120 * time.Second},
			To:         []Network{{netip.MustParsePrefix("0.0.0.0/0")}, {netip.MustParsePrefix("::/0")}},
			OutboundTo: []Network{}, MaxPrevious: 8, Timeout: Duration{10 * time.Second}, Parallel: 64,
		},
		Save: Save{Arguments: examine.ArgumentsRedact, Host: true, CWD: true, ExeHash: true, Login: true, Files: true,
			Users: true, Environment: true},
	}
}

// witnesses parses the witnesses, and checks their quorum.
func (c *Config) witnesses() ([]translog.Witness, error) {
	var ws []translog.Witness
	for _, w := range c.Witnesses {
		if w.URL == "" {
			return nil, fmt.Errorf("witness.url is empty, of the witness with the key %q", w.Key)
		}
		parsed, err := translog.ParseWitness(w.URL, w.Key)
		if err != nil {
			return nil, fmt.Errorf("witness: %w", err)
		}
		ws = append(ws, parsed)
	}
	if err := translog.CheckQuorum(ws, c.Quorum); err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	return ws, nil
}

// LogPolicy says whose signatures the checkpoints of a log with this key need.
func (c *Config) LogPolicy(key translog.Key) (translog.Policy, error) {
	ws, err := c.witnesses()
	if err != nil {
		return translog.Policy{}, err
	}
	return translog.NewPolicy(key.Verifier(), ws, c.Quorum)
}

// resolves reports whether names of hosts are looked up: those of witnesses, and those in users' files.
func (c *Config) resolves() bool {
	return len(c.Witnesses) > 0 || c.tellsNames()
}

// tellsNames reports whether there is anybody who may have the name of a user.
func (c *Config) tellsNames() bool {
	return c.Reply.OptIn || slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Names })
}

// AgeRecipients parses the administrators' public keys.
func (c *Config) AgeRecipients() ([]age.Recipient, error) {
	if len(c.Recipients) == 0 {
		return nil, errors.New("recipients is empty: nobody could redeem a token (run stopctl init)")
	}
	var rs []age.Recipient
	for _, r := range c.Recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(r))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("recipients: %q is not an age public key (age1...)", r)
		}
		rs = append(rs, parsed[0])
	}
	return rs, nil
}

// atStart are the keys that take effect at the start only, with their values.
func (c *Config) atStart() map[string]any {
	return map[string]any{
		"listen": c.Listen, "store": c.Store, "volatile": c.Volatile, "recipients": c.Recipients, "quorum": c.Quorum, "witness": c.Witnesses,
		"reply.opt_in": c.Reply.OptIn, "limits.lookups": c.Limits.Lookups, "limits.table": c.Limits.Table,
		"limits.store_bytes": c.Limits.StoreBytes, "limits.retention": c.Limits.Retention, "traceback.parallel": c.Traceback.Parallel,
		"metrics.listen": c.Metrics.Listen, "syslog.to": c.Syslog.To,
	}
}

// fixedIn are the keys whose new values take a restart.
func (c *Config) fixedIn(now Config) (keys []string) {
	to := now.atStart()
	for key, v := range c.atStart() {
		if !reflect.DeepEqual(v, to[key]) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
