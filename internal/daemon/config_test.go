package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recipient is a public key of nobody.
const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

// witnessKey is a public key of no witness.
const witnessKey = "witness.example/w+a9087eff+BDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"

var equateAddrs = cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

func TestTemplateHoldsDefaults(t *testing.T) {
	want := Defaults()
	want.Recipients = []string{recipient}
	text := Template(want)
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, equateAddrs); d != "" {
		t.Error(d)
	}
	// What is set nowhere has its default: so an empty file differs by the recipients alone.
	empty, err := Parse(fmt.Appendf(nil, "recipients = [%q]", recipient))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, empty, equateAddrs); d != "" {
		t.Error(d)
	}
}

// Every key is in the template, and what is written there is what is read.
func TestTemplateHoldsEveryKey(t *testing.T) {
	c := Defaults()
	fill(reflect.ValueOf(&c).Elem())
	c.Listen, c.Recipients, c.Store = []string{"192.0.2.1:113", "[2001:db8::1]:113"}, []string{recipient}, `/a "b"\c`
	c.Reply.Errors, c.Limits.Over, c.Save.Arguments, c.Traceback.Port = "token", "error", "off", 999
	c.Metrics.Listen, c.Syslog.To = "[::1]:9113", "udp://192.0.2.9:514"
	c.Peers = []Peer{
		{Hosts: []Network{{netip.MustParsePrefix("192.0.2.9/32")}, {netip.MustParsePrefix("2001:db8::/32")}}, System: "UNIX", Names: true, Pin: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
		{Hosts: []Network{{netip.MustParsePrefix("198.51.100.0/24")}}, System: "OTHER"},
	}
	c.Quorum, c.Witnesses = 1, []Witness{{"https://witness.example/w", witnessKey}}
	text := Template(c)
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cmp.Diff(c, got, equateAddrs); d != "" {
		t.Error(d)
	}
}

// fill sets every field to something that is not its default.
func fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *Duration:
		x.Duration += 1500 * time.Millisecond
		return
	case *[]Network:
		*x = []Network{{netip.MustParsePrefix("198.51.100.0/24")}, {netip.MustParsePrefix("2001:db8::/32")}}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 7)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// A key that has another value makes another server, examiner or store: one that nobody hands on would do nothing.
func TestEveryKeyIsHandedOn(t *testing.T) {
	made := func(c Config) []any {
		store, err := storeConfig(kept(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return []any{store, examiner(collected(c), system{}, nil), collected(c).Recorder, collected(c).NAT, fronted(c), traced(c)}
	}
	direct := []string{"listen", "store", "quorum", "metrics.listen", "syslog.to", "witness"} // which are read where they are used
	c := Defaults()
	c.Recipients = []string{recipient}
	was := made(c)
	network := Network{netip.MustParsePrefix("192.0.2.0/24")}
	for _, k := range keys(reflect.ValueOf(&c).Elem(), "") {
		if slices.Contains(direct, k.name) {
			continue
		}
		before := reflect.ValueOf(k.value.Interface())
		switch x := k.value.Addr().Interface().(type) {
		case *Duration:
			x.Duration++
		case *int:
			*x++
		case *int64:
			*x++
		case *bool:
			*x = !*x
		case *string:
			*x += "x"
		case *[]string:
			*x = append(*x, recipient)
		case *[]Network:
			*x = []Network{network}
		case *[]Peer:
			*x = []Peer{{Hosts: []Network{network}}}
		default:
			continue // a section, whose keys have their turn
		}
		if reflect.DeepEqual(was, made(c)) {
			t.Errorf("%s makes no difference", k.name)
		}
		k.value.Set(before)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`lisen = ["[::]:113"]`, `line 2, column 1: unknown key "lisen"`},
		{"[save]\n hosts = true", `line 3, column 2: unknown key "save.hosts"`},
		{"[gateway]\nenabled = true", `line 2, column 2: unknown key "gateway"`},
		{"listen =", "line 2, column 8: "},
		{"[limits", "line 2, column "},
		{`listen = "x"`, "line 2, column 10: listen: cannot decode TOML string as []string"},
		{"[limits]\ntable = \"many\"", "line 3, column 9: limits.table: cannot decode TOML string as int"},
		{"[limits]\ntable = 1.5", "line 3, column 9: limits.table: cannot decode TOML float as int"},
		{`on_behalf = ["gateway"]`, `line 2, column 14: on_behalf: "gateway" is not an address or prefix such as "192.0.2.9"`},
		{"[limits]\nidle = \"5 apples\"", `line 3, column 8: limits.idle: "5 apples" is not a duration such as "30s" or "2m"`},
		{"[limits]\nidle = 5", `"5" is not a duration such as "30s" or "2m"`},
		{"listen = []", "listen is empty"},
		{`listen = ["localhost:113"]`, `listen: "localhost:113" is not an address and port`},
		{`listen = ["192.0.2.1"]`, `listen: "192.0.2.1" is not an address and port`},
		{`store = ""`, "store is empty"},
		{"quorum = 1", "quorum: 1 is not from 0 to 0, the number of witnesses"},
		{"quorum = -1", "quorum: -1 is not from 0 to 0, the number of witnesses"},
		{"[[witness]]\nurl = \"https://w.example\"", `witness: parse witness key "": malformed verifier id`},
		{"[[witness]]\nkey = \"" + witnessKey + "\"", "witness.url is empty, of the witness with the key \"" + witnessKey},
		{"[[witness]]\nurl = \"w.example\"\nkey = \"" + witnessKey + "\"", `witness: parse witness URL "w.example": it is not https://HOST/PATH`},
		{strings.Repeat("[[witness]]\nurl = \"https://w.example\"\nkey = \""+witnessKey+"\"\n", 2), "quorum: the key of witness witness.example/w is there twice"},
		{"[reply]\nerrors = \"maybe\"", `reply.errors is "maybe": none of standard, unknown, token`},
		{"[limits]\nover = \"\"", `limits.over is "": none of decoy, error`},
		{"[save]\narguments = \"some\"", `save.arguments is "some": none of off, redact, full`},
		{"[traceback]\nport = 65536", "traceback.port is 65536: not a port"},
		{"[traceback]\nport = 0", "traceback.port is 0: not a port"},
		{`on_behalf = ["::ffff:192.0.2.0/120"]`, `on_behalf: "::ffff:192.0.2.0/120" is IPv4 written as IPv6: write it as IPv4`},
		{"[traceback]\nto = [\"::ffff:0.0.0.0/96\"]", `traceback.to: "::ffff:0.0.0.0/96" is IPv4 written as IPv6: write it as IPv4`},
		{"[reply]\nslots = {SV = \"0s\"}", "reply.slots.SV must be more than 0"},
		{"[reply]\nslots = {ID = \"6s\"}", "reply.slots.ID must be at most 5s"},
		{"[reply]\nslots = {id_rec = \"1ms\", XX = \"1s\"}", "line 3, column 26: unknown key \"reply.XX\""},
		{"[metrics]\nlisten = \":9113\"", `metrics.listen: ":9113" is not a loopback address and port`},
		{"[metrics]\nlisten = \"0.0.0.0:9113\"", `metrics.listen: "0.0.0.0:9113" is not a loopback address and port`},
		{"[[peer]]", "peer.hosts is empty, of peer 1"},
		{"[[peer]]\nhosts = []", "peer.hosts is empty, of peer 1"},
		{"[[peer]]\nhosts = [\"192.0.2.9\"]\nname = true", `line 4, column 1: unknown key "peer.name"`},
		{"[[peer]]\nhosts = [\"irc.example\"]", `line 3, column 10: peer.hosts: "irc.example" is not an address or prefix such as "192.0.2.9" or "2001:db8::/32"`},
		{"[[peer]]\nhosts = [\"fe80::1%eth0\"]", `line 3, column 10: peer.hosts: "fe80::1%eth0" is not an address`},
		{"[[peer]]\nhosts = [\"::ffff:192.0.2.9\"]", `peer.hosts: "::ffff:192.0.2.9/128" is IPv4 written as IPv6: write it as IPv4`},
		{"[[peer]]\nhosts = [\"192.0.2.9\"]\nsystem = \"unix\"", `peer.system is "unix": none of OTHER, UNIX`},
		{"[[peer]]\nhosts = [\"192.0.2.9\"]\npin = \"sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"", `peer.pin: "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" is not the base64 of a SHA-256, 44 characters`},
		{"[[peer]]\nhosts = [\"192.0.2.9\"]\npin = \"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\"", `peer.pin: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=" is not`},
		{"[[peer]]\nhosts = [\"192.0.2.9\"]\nnames = \"yes\"", "line 4, column 9: peer.names: cannot decode TOML string as bool"},
		{"[[peer]]\nhosts = [\"192.0.2.0/24\"]\n[[peer]]\nhosts = [\"192.0.2.9\", \"192.0.2.7/24\"]", `peer.hosts: "192.0.2.0/24" is there twice`},
		{"[[peer]]\nhosts = [\"192.0.2.9\", \"192.0.2.9/32\"]", `peer.hosts: "192.0.2.9/32" is there twice`},
		{"[limits]\nstore_bytes = 0", "limits.store_bytes must be more than 0"},
		{"[traceback]\nwindow = \"-1s\"", "traceback.window must be more than 0"},
		{"[limits]\nlookups = 0\ntable = -1", "limits.lookups must be more than 0; limits.table must be more than 0"},
	} {
		got, err := Parse([]byte("recipients = [\"" + recipient + "\"]\n" + c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, not %s", c.text, err, c.want)
		}
		if !reflect.ValueOf(got).IsZero() {
			t.Errorf("%q: the configuration is not zero", c.text)
		}
	}
	for text, want := range map[string]string{
		"":                             "recipients is empty: nobody could redeem a token (run stopctl init)",
		`recipients = ["age1no"]`:      `recipients: "age1no" is not an age public key (age1...)`,
		`recipients = ["# a comment"]`: `recipients: "# a comment" is not an age public key (age1...)`,
		fmt.Sprintf("recipients = [%q, \"\"]", recipient): `recipients: "" is not an age public key (age1...)`,
	} {
		if _, err := Parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, not %s", text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "stopd.toml")
	if _, err := Load(missing); err == nil || !strings.Contains(err.Error(), "stopctl init") {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(missing, []byte("x = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(missing); err == nil || !strings.Contains(err.Error(), missing+": line 1, column 1: ") {
		t.Errorf("unknown key: %v", err)
	}
}

// What docs/protocol.md says of defaults is so.
func TestProtocolDefaults(t *testing.T) {
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	seconds := func(d Duration) string { return fmt.Sprintf("%d s", d.Duration/time.Second) }
	if c.Reply.Slots.IDRec != c.Reply.Slots.SV || c.Reply.Slots.SV != c.Reply.Slots.SVRec {
		t.Errorf("the slots of the others differ: %+v", c.Reply.Slots)
	}
	for _, said := range []string{
		fmt.Sprintf("\n| requests per source and second, and their burst | %d, %d |\n", c.Limits.PerSourcePerSecond, c.Limits.Burst),
		fmt.Sprintf("\n| previous hosts per request | %d |\n", c.Traceback.MaxPrevious),
		"\n| window of duplicates and of trace-back | " + seconds(c.Traceback.Window) + " |\n",
		"\n| one question to another host, a second try included | " + seconds(c.Traceback.Timeout) + " |\n",
		fmt.Sprintf("by default %d ms for `ID`, %d ms for the others.", c.Reply.Slots.ID.Milliseconds(), c.Reply.Slots.SV.Milliseconds()),
		fmt.Sprintf("within\nthe window, by default %d seconds.", c.Traceback.Window.Duration/time.Second),
		fmt.Sprintf("at most %d for each connection by default, and %d requests where all hosts\nneed the second try", c.Traceback.MaxPrevious, 2*c.Traceback.MaxPrevious),
	} {
		if !strings.Contains(string(b), said) {
			t.Errorf("docs/protocol.md does not say %q", said)
		}
	}
}

// Where an IPv6 socket is for IPv6 alone, one for both families is two.
func TestFamilies(t *testing.T) {
	for _, tt := range []struct {
		system      string
		listen, all []string
	}{
		{"linux", []string{"[::]:113"}, []string{"[::]:113"}},
		{"openbsd", []string{"[::]:113"}, []string{"[::]:113", "0.0.0.0:113"}},
		{"openbsd", []string{"0.0.0.0:113", "[::]:113"}, []string{"0.0.0.0:113", "[::]:113"}},
		{"openbsd", []string{"[::1]:113", "192.0.2.1:113"}, []string{"[::1]:113", "192.0.2.1:113"}},
	} {
		if d := cmp.Diff(tt.all, families(tt.listen, tt.system)); d != "" {
			t.Errorf("%s, %q (-want +got):\n%s", tt.system, tt.listen, d)
		}
	}
}

// The keeper is told where the store is, and its lock and keys beside it, by whatever symbolic link it is configured.
func TestKeptStore(t *testing.T) {
	real, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(real, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	for name, to := range map[string]string{"store": filepath.Join(real, "store"), "dir": real} {
		if err := os.Symlink(to, filepath.Join(at, name)); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[string]string{at + "/store": real + "/store", at + "/dir/store": real + "/store", at + "/dir/none": real + "/none"} {
		if got := kept(Config{Store: from}).Store; got != want {
			t.Errorf("%s: %s, and not %s", from, got, want)
		}
	}
}
