package daemon

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/pelletier/go-toml/v2"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// A Config is the configuration file. Keys that it does not have are errors.
type Config struct {
	Listen     []string       `toml:"listen"`
	Store      string         `toml:"store"`
	Volatile   bool           `toml:"volatile"`
	Recipients []string       `toml:"recipients"`
	OnBehalf   []netip.Prefix `toml:"on_behalf"`
	Quorum     int            `toml:"quorum"`
	Reply      Reply          `toml:"reply"`
	Limits     Limits         `toml:"limits"`
	Traceback  Traceback      `toml:"traceback"`
	Save       Save           `toml:"save"`
	Metrics    Metrics        `toml:"metrics"`
	Peers      []Peer         `toml:"peer"`
	Syslog     Syslog         `toml:"syslog"`
	Witnesses  []Witness      `toml:"witness"`
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
	Port        int            `toml:"port"`
	Window      Duration       `toml:"window"`
	To          []netip.Prefix `toml:"to"`
	OutboundTo  []netip.Prefix `toml:"outbound_to"`
	MaxPrevious int            `toml:"max_previous"`
	Timeout     Duration       `toml:"timeout"`
	Parallel    int            `toml:"parallel"`
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
		Listen: []string{"[::]:113"}, Store: "/var/lib/stopd/store", OnBehalf: []netip.Prefix{},
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
			To:         []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
			OutboundTo: []netip.Prefix{}, MaxPrevious: 8, Timeout: Duration{10 * time.Second}, Parallel: 64,
		},
		Save: Save{Arguments: examine.ArgumentsRedact, Host: true, CWD: true, ExeHash: true, Login: true, Files: true,
			Users: true, Environment: true},
	}
}

// Load reads a configuration file. Errors name line and column.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("read configuration: %w (stopctl init writes one)", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads a configuration. A key that nobody knows is an error: a rule that is spelled wrong must not
// be a rule that is not there. On failure the configuration is zero.
func Parse(b []byte) (Config, error) {
	c := Defaults()
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, located(err)
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func located(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		line, column := e.Position()
		return fmt.Errorf("line %d, column %d: unknown key %q", line, column, strings.Join(e.Key(), "."))
	}
	var d *toml.DecodeError
	if errors.As(err, &d) {
		line, column := d.Position()
		text := goType.ReplaceAllString(strings.TrimPrefix(d.Error(), "toml: "), " as ${1}")
		if key := strings.Join(d.Key(), "."); key != "" {
			text = key + ": " + text
		}
		return fmt.Errorf("line %d, column %d: %s", line, column, text)
	}
	return err
}

// goType is what the decoder says of this program instead of the file.
var goType = regexp.MustCompile(` into struct field \S+ of type (\S+)`)

func (c *Config) check() error {
	oneOf := func(key, v string, allowed ...string) error {
		for _, a := range allowed {
			if v == a {
				return nil
			}
		}
		return fmt.Errorf("%s is %q: none of %s", key, v, strings.Join(allowed, ", "))
	}
	var errs []error
	errs = append(errs,
		oneOf("reply.errors", c.Reply.Errors, server.ErrorsStandard, server.ErrorsUnknown, server.ErrorsToken),
		oneOf("limits.over", c.Limits.Over, server.OverDecoy, server.OverError),
		oneOf("save.arguments", c.Save.Arguments, examine.ArgumentsOff, examine.ArgumentsRedact, examine.ArgumentsFull))
	for _, n := range []struct {
		key string
		v   int64
	}{
		{"reply.slots.ID", int64(c.Reply.Slots.ID.Duration)}, {"reply.slots.ID_REC", int64(c.Reply.Slots.IDRec.Duration)},
		{"reply.slots.SV", int64(c.Reply.Slots.SV.Duration)}, {"reply.slots.SV_REC", int64(c.Reply.Slots.SVRec.Duration)},
		{"limits.connections", int64(c.Limits.Connections)}, {"limits.connections_per_source", int64(c.Limits.ConnectionsPerSource)},
		{"limits.requests_per_connection", int64(c.Limits.RequestsPerConn)}, {"limits.idle", int64(c.Limits.Idle.Duration)},
		{"limits.lookups", int64(c.Limits.Lookups)}, {"limits.per_source_per_second", int64(c.Limits.PerSourcePerSecond)},
		{"limits.burst", int64(c.Limits.Burst)}, {"limits.per_user_per_second", int64(c.Limits.PerUserPerSecond)},
		{"limits.user_burst", int64(c.Limits.UserBurst)}, {"limits.askers_per_sid", int64(c.Limits.AskersPerSID)},
		{"limits.table", int64(c.Limits.Table)}, {"limits.deadline", int64(c.Limits.Deadline.Duration)},
		{"limits.processes", int64(c.Limits.Processes)}, {"limits.descriptors", int64(c.Limits.Descriptors)}, {"limits.bytes", int64(c.Limits.Bytes)},
		{"limits.hub", int64(c.Limits.Hub)}, {"limits.store_bytes", c.Limits.StoreBytes}, {"limits.retention", int64(c.Limits.Retention.Duration)},
		{"traceback.window", int64(c.Traceback.Window.Duration)}, {"traceback.max_previous", int64(c.Traceback.MaxPrevious)},
		{"traceback.timeout", int64(c.Traceback.Timeout.Duration)}, {"traceback.parallel", int64(c.Traceback.Parallel)},
	} {
		if n.v <= 0 {
			errs = append(errs, fmt.Errorf("%s must be more than 0", n.key))
		} else if n.v > int64(maxSlot) && strings.HasPrefix(n.key, "reply.slots.") {
			errs = append(errs, fmt.Errorf("%s must be at most %s", n.key, maxSlot))
		}
	}
	if c.Traceback.Port < 1 || c.Traceback.Port > 65535 {
		errs = append(errs, fmt.Errorf("traceback.port is %d: not a port", c.Traceback.Port))
	}
	if len(c.Listen) == 0 {
		errs = append(errs, errors.New("listen is empty"))
	}
	for _, l := range c.Listen {
		if _, err := netip.ParseAddrPort(l); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q is not an address and port", l))
		}
	}
	lists := []struct {
		key string
		ps  []netip.Prefix
	}{{"on_behalf", c.OnBehalf}, {"traceback.to", c.Traceback.To}, {"traceback.outbound_to", c.Traceback.OutboundTo}, {"peer.hosts", nil}}
	for _, p := range c.Peers {
		lists[3].ps = append(lists[3].ps, prefixes(p.Hosts)...)
	}
	for _, l := range lists {
		for _, p := range l.ps {
			if p.Addr().Is4In6() { // no address would ever be in it
				errs = append(errs, fmt.Errorf("%s: %q is IPv4 written as IPv6: write it as IPv4", l.key, p))
			}
		}
	}
	if m := c.Metrics.Listen; m != "" {
		if ap, err := netip.ParseAddrPort(m); err != nil || !ap.Addr().IsLoopback() {
			errs = append(errs, fmt.Errorf("metrics.listen: %q is not a loopback address and port", m))
		}
	}
	if c.Syslog.To != "" {
		_, err := parseLogServer(c.Syslog.To)
		errs = append(errs, err)
	}
	if c.Store == "" {
		errs = append(errs, errors.New("store is empty"))
	}
	errs = append(errs, c.checkPeers()...)
	_, err := c.AgeRecipients()
	errs = append(errs, err)
	_, err = c.witnesses()
	return joined(append(errs, err))
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

// maxSlot is the longest slot of replies: those who ask do not wait for ever.
const maxSlot = 5 * time.Second

// joined is errors.Join on one line.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return errors.New(strings.Join(texts, "; "))
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

// Template is a configuration file with every key at its default, to be completed with what differs.
func Template(c Config) []byte {
	var b bytes.Buffer
	w := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	w("# stopd.toml: the configuration of stopd(8). Every key is here; unknown keys are errors.\n")
	w("listen     = %s", list(c.Listen))
	w("store      = %s", strconv.Quote(c.Store))
	w("volatile   = %t  # allow a store on tmpfs, which a reboot empties", c.Volatile)
	w("recipients = %s  # administrators' public keys: reports are sealed to them", list(c.Recipients))
	w("on_behalf  = %s  # who may ask on behalf of other hosts", list(c.OnBehalf))
	w("quorum     = %d  # witnesses that have to cosign a checkpoint; 0 is all", c.Quorum)
	w("\n[reply]\nerrors = %q  # standard, unknown (UNKNOWN-ERROR for every error) or token (a decoy)", c.Reply.Errors)
	w("opt_in = %t  # whether users may let hosts have their names, by ~/.ident", c.Reply.OptIn)
	o := c.Reply.Slots
	w("slots  = {ID = \"%s\", ID_REC = \"%s\", SV = \"%s\", SV_REC = \"%s\"}  # replies leave on multiples of these, so that their time tells less",
		o.ID.Duration, o.IDRec.Duration, o.SV.Duration, o.SVRec.Duration)
	l := c.Limits
	w("\n[limits]")
	w("connections             = %d", l.Connections)
	w("connections_per_source  = %d", l.ConnectionsPerSource)
	w("requests_per_connection = %d", l.RequestsPerConn)
	w(`idle                    = "%s"`, l.Idle.Duration)
	w("lookups                 = %d  # questions examined at once", l.Lookups)
	w("per_source_per_second   = %d", l.PerSourcePerSecond)
	w("burst                   = %d", l.Burst)
	w("per_user_per_second     = %d  # first SV requests on one local user's connections", l.PerUserPerSecond)
	w("user_burst              = %d", l.UserBurst)
	w("askers_per_sid          = %d", l.AskersPerSID)
	w("table                   = %d  # entries of each table in memory", l.Table)
	w("over                    = %q  # decoy or error: what is answered over a bound", l.Over)
	w("deadline                = \"%s\"  # of one trace", l.Deadline.Duration)
	w("processes               = %d  # of one trace", l.Processes)
	w("descriptors             = %d  # of one trace", l.Descriptors)
	w("bytes                   = %d  # of the names, arguments and paths of one trace", l.Bytes)
	w("hub                     = %d  # others' processes, or other hosts, beyond which a service is a hub, which is not followed", l.Hub)
	w("store_bytes             = %d", l.StoreBytes)
	w("retention               = \"%s\"  # how long evidence is kept; older segments of the store are deleted", l.Retention.Duration)
	t := c.Traceback
	w("\n[traceback]")
	w("port         = %d", t.Port)
	w("window       = \"%s\"  # in which a repeated request is a duplicate", t.Window.Duration)
	w("to           = %s  # which previous hosts may be asked", list(t.To))
	w("outbound_to  = %s  # likewise, where this host opened the connection: asking tells the other end", list(t.OutboundTo))
	w("max_previous = %d", t.MaxPrevious)
	w(`timeout      = "%s"`, t.Timeout.Duration)
	w("parallel     = %d", t.Parallel)
	s := c.Save
	w("\n[save]")
	w("arguments   = %q  # off, redact (likely secrets masked) or full", s.Arguments)
	w("host        = %t", s.Host)
	w("cwd         = %t", s.CWD)
	w("exe_hash    = %t", s.ExeHash)
	w("login       = %t", s.Login)
	w("files       = %t", s.Files)
	w("users       = %t", s.Users)
	w("environment = %t  # facts from the processes' environment", s.Environment)
	w("\n[metrics]\nlisten = %s  # where Prometheus reads them, such as \"127.0.0.1:9113\"; empty is nowhere", strconv.Quote(c.Metrics.Listen))
	w("\n[syslog]\nto = %s  # a log server that is told the hash of each record, such as \"udp://192.0.2.9:514\" or \"tcp://192.0.2.9:514\"; empty is none", strconv.Quote(c.Syslog.To))
	w("\n# Who is answered otherwise than the rest; one section a peer, and the longest prefix decides:")
	if len(c.Peers) == 0 {
		w("# [[peer]]\n# hosts  = [\"192.0.2.9\"]  # addresses and prefixes\n# system = \"OTHER\"  # or UNIX, for those that refuse OTHER")
		w("# names  = false  # whether ID is answered with the user's name\n# pin    = \"\"  # its key")
	}
	for _, p := range c.Peers {
		w("[[peer]]\nhosts  = %s\nsystem = %q\nnames  = %t\npin    = %s", list(p.Hosts), cmp.Or(p.System, server.SystemOther), p.Names, strconv.Quote(p.Pin))
	}
	w("\n# Who is shown the log's checkpoints and cosigns them; one section a witness:")
	if len(c.Witnesses) == 0 {
		w("# [[witness]]\n# url = \"https://witness.example/\"\n# key = \"witness.example/w1+...\"")
	}
	for _, x := range c.Witnesses {
		w("[[witness]]\nurl = %s\nkey = %s", strconv.Quote(x.URL), strconv.Quote(x.Key))
	}
	return b.Bytes()
}

func list[T any](vs []T) string {
	var ss []string
	for _, v := range vs {
		ss = append(ss, strconv.Quote(fmt.Sprint(v)))
	}
	return "[" + strings.Join(ss, ", ") + "]"
}
