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
	"github.com/stopd/stopd/internal/settings"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// A Config is the configuration file. Keys that it does not have are errors. Beside its name a field's tag has what the
// template says of the key, and at:"start" where a new value takes a restart.
type Config struct {
	Listen     []string  `toml:"listen" at:"start"`
	Store      string    `toml:"store" at:"start"`
	Volatile   bool      `toml:"volatile" at:"start" says:"allow a store on tmpfs, which a reboot empties"`
	Recipients []string  `toml:"recipients" at:"start" says:"administrators' public keys: reports are sealed to them"`
	OnBehalf   []Network `toml:"on_behalf" says:"who may ask on behalf of other hosts"`
	Quorum     int       `toml:"quorum" at:"start" says:"witnesses that have to cosign a checkpoint; 0 is all"`
	Reply      Reply     `toml:"reply"`
	Limits     Limits    `toml:"limits"`
	Traceback  Traceback `toml:"traceback"`
	NAT        NAT       `toml:"nat"`
	Save       Save      `toml:"save"`
	Recorder   Recorder  `toml:"recorder"`
	Metrics    Metrics   `toml:"metrics"`
	Syslog     Syslog    `toml:"syslog"`
	Peers      []Peer    `toml:"peer"`
	Witnesses  []Witness `toml:"witness" at:"start"`
}

// A Witness is shown the log's checkpoints.
type Witness struct {
	URL string `toml:"url"`
	Key string `toml:"key"`
}

// Reply says what errors look like, and when replies leave.
type Reply struct {
	Errors string `toml:"errors" says:"standard, unknown (UNKNOWN-ERROR for every error) or token (a decoy)"`
	OptIn  bool   `toml:"opt_in" at:"start" says:"whether users may let hosts have their names, by ~/.ident"`
	Slots  Slots  `toml:"slots" says:"replies leave on multiples of these, so that their time tells less"`
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
	Lookups              int      `toml:"lookups" at:"start" says:"questions examined at once"`
	PerSourcePerSecond   int      `toml:"per_source_per_second"`
	Burst                int      `toml:"burst"`
	PerUserPerSecond     int      `toml:"per_user_per_second" says:"first SV requests on one local user's connections"`
	UserBurst            int      `toml:"user_burst"`
	AskersPerSID         int      `toml:"askers_per_sid"`
	Table                int      `toml:"table" at:"start" says:"entries of each table in memory"`
	Over                 string   `toml:"over" says:"decoy or error: what is answered over a bound"`
	Deadline             Duration `toml:"deadline" says:"of one trace"`
	Processes            int      `toml:"processes" says:"of one trace"`
	Descriptors          int      `toml:"descriptors" says:"of one trace"`
	Bytes                int      `toml:"bytes" says:"of the names, arguments and paths of one trace"`
	Hub                  int      `toml:"hub" says:"others' processes, or other hosts, beyond which a service is a hub, which is not followed"`
	StoreBytes           int64    `toml:"store_bytes" at:"start"`
	Retention            Duration `toml:"retention" at:"start" says:"how long evidence is kept; older segments of the store are deleted"`
}

// Traceback says how previous hosts are asked.
type Traceback struct {
	Port        int       `toml:"port"`
	Window      Duration  `toml:"window" says:"in which a repeated request is a duplicate"`
	To          []Network `toml:"to" says:"which previous hosts may be asked"`
	OutboundTo  []Network `toml:"outbound_to" says:"likewise, where this host opened the connection: asking tells the other end"`
	MaxPrevious int       `toml:"max_previous"`
	Timeout     Duration  `toml:"timeout"`
	Parallel    int       `toml:"parallel" at:"start"`
}

// NAT says whether the host answers for connections that it passes on for other machines, under other addresses.
type NAT struct {
	Answer      bool     `toml:"answer" at:"start" says:"whether to answer for connections that this host translates, and ask the machines that have them"`
	Keep        Duration `toml:"keep" at:"start" says:"how long after the kernel has forgotten such a connection"`
	Connections int      `toml:"connections" at:"start" says:"how many of them are remembered, open and ended"`
}

// Save says what reports hold. It is examine.Groups, with the names of its keys.
type Save struct {
	Arguments   string `toml:"arguments" says:"off, redact (likely secrets masked) or full"`
	Host        bool   `toml:"host"`
	CWD         bool   `toml:"cwd"`
	ExeHash     bool   `toml:"exe_hash"`
	Login       bool   `toml:"login"`
	Files       bool   `toml:"files"`
	Users       bool   `toml:"users"`
	Environment bool   `toml:"environment" says:"facts from the processes' environment"`
}

// Recorder says what is remembered of connections and processes.
type Recorder struct {
	Mode   string   `toml:"mode" at:"start" says:"auto, off or require: whether connections and processes are remembered that have ended"`
	Keep   Duration `toml:"keep" at:"start" says:"for how long"`
	Memory int      `toml:"memory" at:"start" says:"octets, which are taken at once"`
}

// Modes of the recorder.
const (
	recorderAuto    = "auto" // where it can be
	recorderOff     = "off"
	recorderRequire = "require" // or the daemon does not start
)

// Metrics says where what was counted can be read: at an address of the host's own and a port.
type Metrics struct {
	Listen string `toml:"listen" at:"start" says:"where Prometheus reads them, such as \"127.0.0.1:9113\"; empty is nowhere"`
}

// Syslog says which log server is told the leaves of the store's log.
type Syslog struct {
	To string `toml:"to" at:"start" says:"a log server that is told the hash of each record, such as \"udp://192.0.2.9:514\" or \"tcp://192.0.2.9:514\"; empty is none"`
}

// A Duration is written as Go writes it: "120s". A number without its unit is none.
type Duration struct{ time.Duration }

// UnmarshalText parses a duration.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	d.Duration, err = settings.ParseDuration(b)
	return err
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
		NAT:      NAT{Keep: Duration{2 * time.Minute}, Connections: 65536},
		Save:     Save(examine.AllGroups),
		Recorder: Recorder{Mode: recorderAuto, Keep: Duration{24 * time.Hour}, Memory: 64 << 20},
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

// A key is one key of the configuration, or a section of it, with its value.
type key struct {
	name  string // with its section: "limits.table"
	tag   reflect.StructTag
	value reflect.Value
}

// keys returns the keys of a part of the configuration, in their order, those of its sections after each.
func keys(part reflect.Value, section string) (ks []key) {
	for f, v := range part.Fields() {
		name := section + f.Tag.Get("toml")
		ks = append(ks, key{name, f.Tag, v})
		if _, leaf := v.Interface().(Duration); v.Kind() == reflect.Struct && !leaf {
			ks = append(ks, keys(v, name+".")...)
		}
	}
	return ks
}

// atStart are the keys that take effect at the start only, with their values.
func (c *Config) atStart() map[string]any {
	values := map[string]any{}
	for _, k := range keys(reflect.ValueOf(*c), "") {
		if k.tag.Get("at") == "start" {
			values[k.name] = k.value.Interface()
		}
	}
	return values
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
