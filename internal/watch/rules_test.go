package watch

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
)

func newTime(seconds int64) time.Time { return time.Unix(1_700_000_000+seconds, 0) }

const rulesFile = `
tokens = "tokens.db"
position = "position"
hosts = ["192.168.0.0/16", "2001:db8::/32"]

[[rule]]
source = ["192.168.9.0/24"]
ask = "none"

[[rule]]
input = ["eve"]
kind = ["alert"]
alert = ["ET HUNTING *", "ET SCAN *"]
severity = 2
ask = "source"
type = "SV_REC"

[[rule]]
signature = [2001999]
ask = "both"
type = "SV"

[[rule]]
input = ["zeek"]
destination = ["31.0.0.0/8"]
ports = [80, 443]
ask = "source"
type = "ID"

[[rule]]
alert = ["SSH::*"]
ask = "destination"
`

// From docs.suricata.io and docs.zeek.org, as in internal/flows.
const (
	eveAlert = `{"timestamp":"2017-04-07T22:24:37.251547+0100","flow_id":586497171462735,"event_type":"alert","src_ip":"192.168.2.14","src_port":50096,"dest_ip":"209.53.113.5","dest_port":80,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":2018358,"rev":10,"signature":"ET HUNTING GENERIC SUSPICIOUS POST to Dotted Quad with Fake Browser 1","category":"Potentially Bad Traffic","severity":2},"app_proto":"http"}`
	oldAlert = `{"timestamp":"2009-11-24T21:27:09.534255","event_type":"alert","src_ip":"192.168.2.7","src_port":1041,"dest_ip":"192.168.250.50","dest_port":80,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":2001999,"rev":9,"signature":"ET MALWARE BTGrab.com Spyware Downloading Ads","category":"A Network Trojan was detected","severity":1}}`
	zeekConn = `{"ts":1591367999.430166,"uid":"C5bLoe2Mvxqhawzqqd","id.orig_h":"192.168.4.76","id.orig_p":46378,"id.resp_h":"31.3.245.133","id.resp_p":80,"proto":"tcp","service":"http","conn_state":"SF"}`
)

func TestRules(t *testing.T) {
	c, err := Parse([]byte(rulesFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, input, line string
		want              string
	}{
		{"an alert", InputEVE, eveAlert, "192.168.2.14:113: 50096 , 80 : SV_REC : for 209.53.113.5"},
		{"less severe", InputEVE, strings.Replace(eveAlert, `"severity":2`, `"severity":3`, 1), "no rule"},
		{"no severity", InputEVE, strings.Replace(eveAlert, `,"severity":2`, ``, 1), "no rule"},
		{"another name", InputEVE, strings.Replace(eveAlert, `ET HUNTING`, `GPL HUNTING`, 1), "no rule"},
		{"another kind", InputEVE, strings.Replace(eveAlert, `"event_type":"alert"`, `"event_type":"http"`, 1), "no rule"},
		{"from nobody who may be asked", InputEVE, strings.Replace(eveAlert, `192.168.2.14`, `192.0.2.14`, 1), ""},
		{"of the answer", InputEVE, strings.Replace(eveAlert, `"proto"`, `"direction":"to_client","proto"`, 1), ""},
		{"left out by an earlier rule", InputEVE, strings.Replace(eveAlert, `192.168.2.14`, `192.168.9.14`, 1), ""},
		{"left out, told the other way round", InputEVE, strings.NewReplacer(`192.168.2.14`, `192.168.2.15`, `209.53.113.5`, `192.168.9.14`).Replace(eveAlert), ""},
		{"left out only as it was told", InputEVE, strings.NewReplacer(`192.168.2.14`, `192.168.2.15`, `209.53.113.5`, `192.168.9.14`, `"proto"`, `"direction":"to_server","proto"`).Replace(eveAlert),
			"192.168.2.15:113: 50096 , 80 : SV_REC : for 192.168.9.14"},
		{"both ends", InputEVE, strings.Replace(oldAlert, "09.534255", "09.534255+0000", 1),
			"192.168.2.7:113: 1041 , 80 : SV : for 192.168.250.50; 192.168.250.50:113: 80 , 1041 : SV : for 192.168.2.7"},
		{"a connection", InputZeek, zeekConn, "192.168.4.76:113: 46378 , 80 : ID : for 31.3.245.133"},
		{"a connection to another port", InputZeek, strings.Replace(zeekConn, `"id.resp_p":80`, `"id.resp_p":81`, 1), "no rule"},
		{"a connection to another network", InputZeek, strings.Replace(zeekConn, `31.3.245.133`, `32.3.245.133`, 1), "no rule"},
		{"the same by another input", InputStdin, zeekConn, "no rule"},
		{"a notice", InputZeek, strings.NewReplacer(`"conn_state":"SF"`, `"note":"SSH::Login_By_Password_Guesser"`, "31.3.245.133", "192.168.1.1").Replace(zeekConn),
			"192.168.1.1:113: 80 , 46378 : SV_REC : for 192.168.4.76"},
	} {
		f, err := flows.Parse(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		qs, fits := c.choose(tt.input, f)
		got := "no rule"
		if fits {
			var parts []string
			for _, q := range qs {
				r, _ := q.request(nil)
				if (r.SID != 0) != r.Type.Recursive() {
					t.Errorf("%s: %s has the session %d", tt.name, r.Type, r.SID)
				}
				parts = append(parts, fmt.Sprintf("%s: %d , %d : %s : for %s", q.host, r.Local, r.Remote, r.Type, r.For))
			}
			got = strings.Join(parts, "; ")
		}
		if got != tt.want {
			t.Errorf("%s: %s\nand not %s", tt.name, got, tt.want)
		}
	}
	// Both ends are asked in one session; who asks from an end of its own needs nobody's leave.
	f := flows.Flow{Source: netip.MustParseAddrPort("192.168.2.7:1041"), Destination: netip.MustParseAddrPort("192.168.2.8:22"), Alert: flows.Alert{Name: "SSH::X"}}
	c.Rules[4].Ask = AskBoth
	qs, _ := c.choose(InputZeek, f)
	if len(qs) != 2 || qs[0].sid != qs[1].sid {
		t.Fatalf("%+v", qs)
	}
	r, from := qs[0].request(map[netip.Addr]bool{f.Destination.Addr(): true})
	if r.For.IsValid() || from != f.Destination.Addr() {
		t.Errorf("from an end of its own it is asked %q from %v", r, from)
	}
}

func TestConfig(t *testing.T) {
	for text, why := range map[string]string{
		"hots = []":                                                     `line 1, column 1: unknown key "hots"`,
		"[[rule]]\nasks = \"source\"":                                   `unknown key "rule.asks"`,
		"[[rule]]\ntype = \"SV\"":                                       `rule 1: ask is "": none of source, destination, both, none`,
		"[[rule]]\nask = \"both\"\ntype = \"X\"":                        "none of ID, ID_REC, SV, SV_REC",
		"[[rule]]\nask = \"both\"\nalert = [\"[\"]":                     "syntax error in pattern",
		"[[rule]]\nask = \"both\"\ninput = [\"tap\"]":                   `input has "tap"`,
		"[[rule]]\nask = \"both\"\nsource = [\"::ffff:192.0.2.0/120\"]": "IPv4 written as IPv6",
		"hosts = [\"here\"]":                                            "not an address or prefix",
		"retention = \"90\"":                                            "not a duration",
		"[limits]\nat_once = 0":                                         "limits.at_once must be more than 0",
		"[limits]\nhost_per_second = nan":                               "limits.host_per_second must be more than 0",
		"tokens = \"\"":                                                 "tokens or position is empty",
	} {
		c, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), why) || c.Port != 0 {
			t.Errorf("%q: %v, and not %q", text, err, why)
		}
	}
	if _, err := Parse([]byte(`metrics = "192.0.2.1:9114"`)); err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("metrics for everybody: %v", err)
	}
	c, err := Parse(nil)
	if d := cmp.Diff(Defaults(), c); d != "" || err != nil {
		t.Errorf("an empty file: %v\n%s", err, d)
	}
	if c, err = Parse([]byte("[[rule]]\nask = \"both\"")); err != nil || c.Rules[0].Type != stop.SVRec.String() {
		t.Errorf("a rule without a type: %v, %v", c.Rules, err)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget[string](2, 2) // two a second, four at once
	takes := func(k string, at time.Time) bool {
		has := b.has(k, at)
		if has {
			b.spend(k, at)
		}
		return has
	}
	for i, step := range []struct {
		second float64
		want   int
	}{{0, 4}, {0.4, 0}, {0.5, 1}, {1.5, 2}, {100, 4}, {99, 0}} {
		at := newTime(0).Add(time.Duration(step.second * float64(time.Second)))
		n := 0
		for range 10 {
			if takes("a", at) {
				n++
			}
		}
		if n != step.want {
			t.Errorf("step %d: %d, not %d", i, n, step.want)
		}
	}
	// A table full of those who have spent takes nobody else; those who have not make room.
	at := newTime(1000)
	for i := range maxTable + 10 {
		if got := takes(fmt.Sprint(i), at); got != (i < maxTable) { // a has its whole budget again
			t.Fatalf("host %d: %v", i, got)
		}
	}
	if !takes("late", at.Add(3*time.Second)) || len(b.left) != 1 {
		t.Errorf("those who have their whole budget again stay: %d", len(b.left))
	}
}

func TestRepeats(t *testing.T) {
	r := repeats{within: time.Minute}
	q := question{host: netip.MustParseAddrPort("192.0.2.7:113"), local: netip.MustParseAddrPort("192.0.2.7:1"), remote: netip.MustParseAddrPort("192.0.2.8:2")}
	other := q
	other.typ = stop.SV
	for i, step := range []struct {
		q      question
		second int64
		want   bool
	}{{q, 0, false}, {q, 59, true}, {other, 59, false}, {other, 61, true}, {q, 200, false}, {other, 200, false}} {
		if got := r.has(step.q, newTime(step.second)); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
		if !step.want {
			r.add(step.q, newTime(step.second))
		}
	}
	if r.forget(q); r.has(q, newTime(200)) || !r.has(other, newTime(200)) {
		t.Error("another is forgotten")
	}
	for i := range 3 * maxTable {
		q.local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		r.add(q, newTime(200))
	}
	if n := len(r.now) + len(r.old); n > 2*maxTable {
		t.Errorf("%d are remembered", n)
	}
}
