package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
)

// watchRules are those of a sensor: alerts about connections from the login host are asked about there.
const watchRules = `hosts = ["192.0.2.1", "2001:db8::1"]
tokens = "%s"
position = "/var/lib/watch.position"

[limits]
age = "1h"

[[rule]]
alert = ["ET POLICY *"]
ask = "none"

[[rule]]
kind = ["alert", "notice"]
ask = "source"

[[rule]]
input = ["stdin"]
ask = "both"
type = "SV"
`

// eveRecord is an alert as Suricata writes it.
func eveRecord(from, to netip.AddrPort, signature string) string {
	return fmt.Sprintf(`{"timestamp":%q,"flow_id":586497171462735,"in_iface":"eth0","event_type":"alert","src_ip":%q,"src_port":%d,"dest_ip":%q,"dest_port":%d,"proto":"TCP",`+
		`"alert":{"action":"allowed","gid":1,"signature_id":2018358,"rev":10,"signature":%q,"category":"Potentially Bad Traffic","severity":2},"app_proto":"http"}`+"\n",
		time.Now().Format("2006-01-02T15:04:05.000000-0700"), from.Addr(), from.Port(), to.Addr(), to.Port(), signature)
}

// A watched is a border whose sensor runs stopctl watch.
type watched struct {
	*border
	daemon *netlab.Daemon
}

// An answered is a line of stopctl watch -json.
type answered struct {
	Seen, Asked                                                 time.Time
	Source, Destination, Host, Type, Token, Error, Input, Alert string
}

// watches starts stopctl watch on the sensor.
func (b *border) watches(store string, args ...string) *watched {
	b.t.Helper()
	b.must(b.sensor.WriteFile("/etc/stopd/watch.toml", fmt.Appendf(nil, watchRules, store), 0o600, "root"))
	d, err := b.sensor.Start("/usr/local/bin/stopctl", append([]string{"watch", "-json"}, args...)...)
	b.must(err)
	b.t.Cleanup(func() {
		if log, _ := d.Log(); b.t.Failed() {
			b.t.Log(log)
		}
	})
	return &watched{b, d}
}

// answers waits for so many lines, and returns them.
func (w *watched) answers(n int) (as []answered) {
	w.t.Helper()
	w.waits(fmt.Sprintf("%d answers", n), func() (bool, error) {
		log, err := w.daemon.Log()
		as = nil
		for line := range strings.Lines(log) {
			var a answered
			if strings.HasSuffix(line, "}\n") && json.Unmarshal([]byte(line), &a) == nil {
				as = append(as, a)
			}
		}
		return len(as) >= n, err
	})
	if len(as) != n {
		w.t.Errorf("%d answers, not %d: %+v", len(as), n, as)
	}
	return as
}

func (b *border) appends(path, text string) {
	b.t.Helper()
	cmd := b.sensor.Command(b.ctx, "sh", "-c", "cat >>"+path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// A border with Suricata and Zeek: of several users with connections to one server, those of whom something is reported are named,
// by IPv4 and IPv6, through the rotation of the log and a restart of who watches.
func TestWatchBorder(t *testing.T) {
	b := newBorder(t)
	b.must(startVictim(b.ctx, b.server, victimPort))
	ends := map[string][2]netip.AddrPort{}
	for _, c := range []struct {
		name, user string
		six        bool
	}{{"mallory", "mallory", false}, {"bob", "bob", false}, {"carol", "carol", false}, {"mallory6", "mallory", true}, {"bob6", "bob", true}} {
		from, to := b.connects(c.user, victimPort, c.six)
		ends[c.name] = [2]netip.AddrPort{from, to}
	}
	record := func(name, signature string) string { return eveRecord(ends[name][0], ends[name][1], signature) }
	const eve, zeek = "/var/log/eve.json", "/var/log/notice.log"
	b.appends(eve, record("carol", "ET SCAN of before"))
	w := b.watches("/var/lib/tokens.db", "-eve", eve, "-zeek", zeek)
	b.waits("a position", func() (bool, error) {
		_, err := b.sensor.ReadFile("/var/lib/watch.position")
		return err == nil, ignoreMissing(err)
	})
	b.appends(eve, `{"timestamp":"2026-11-03T14:05:00.000000+0000","event_type":"stats","stats":{}}`+"\n"+record("bob", "ET POLICY SSH session")+record("mallory", "ET SCAN one"))
	b.appends(zeek, "#separator \\x09\n#path\tnotice\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tnote\n"+
		fmt.Sprintf("%d.430166\tC5b\t%s\t%d\t%s\t%d\ttcp\tSSH::Login_By_Password_Guesser\n", time.Now().Unix(), ends["mallory6"][0].Addr(), ends["mallory6"][0].Port(), ends["mallory6"][1].Addr(), ends["mallory6"][1].Port()))
	is := func(a answered, name, user string) {
		t.Helper()
		if a.Source != ends[name][0].String() || a.Destination != ends[name][1].String() || a.Token == "" {
			t.Fatalf("of %s there is %+v", name, a)
		}
		if got, r := b.names(a.Token); got != user || !r.Report.Request.OnBehalf {
			t.Errorf("%s is named for %s, on behalf: %v", got, name, r.Report.Request.OnBehalf)
		}
	}
	as := w.answers(2)
	if as[0].Input == "zeek" {
		as[0], as[1] = as[1], as[0]
	}
	is(as[0], "mallory", "mallory")
	is(as[1], "mallory6", "mallory")

	// The log is rotated while nobody watches, and once more while somebody does.
	_, err := b.sensor.Run(b.ctx, "pkill", "-TERM", "-x", "stopctl")
	b.must(err)
	<-w.daemon.Done()
	b.appends(eve, record("bob6", "ET SCAN two"))
	_, err = b.sensor.Run(b.ctx, "mv", eve, eve+".1")
	b.must(err)
	b.appends(eve, record("carol", "ET SCAN three"))
	w = b.watches("/var/lib/tokens.db", "-eve", eve)
	as = w.answers(2)
	if as[0].Alert == "ET SCAN three" {
		as[0], as[1] = as[1], as[0]
	}
	is(as[0], "bob6", "bob")
	is(as[1], "carol", "carol")
	_, err = b.sensor.Run(b.ctx, "mv", eve, eve+".2")
	b.must(err)
	b.appends(eve, record("bob", "ET SCAN four"))
	is(w.answers(3)[2], "bob", "bob")

	// Somebody comes with a connection and a time, and somebody with an address alone.
	find := func(args ...string) string {
		t.Helper()
		out, err := b.sensor.Run(b.ctx, "/usr/local/bin/stopctl", append([]string{"tokens"}, args...)...)
		b.must(err)
		return string(out)
	}
	out := find("-at", time.Now().UTC().Format(time.RFC3339), ends["carol"][0].String())
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, as[1].Token) {
		t.Errorf("carol's connection is found as %q", out)
	}
	if out := find("192.0.2.1"); strings.Count(out, "\n") != 3 {
		t.Errorf("the login host is found as %q", out)
	}

	// What a person pastes on a host that may ask on behalf of others.
	line, err := b.login.Host.Run(b.ctx, "sh", "-c", fmt.Sprintf("ss -Htn sport = :%d", ends["bob"][0].Port()))
	b.must(err)
	token, err := b.sensor.Run(b.ctx, "/usr/local/bin/stopctl", "request", "-type", "SV", "192.0.2.1", strings.TrimSpace(string(line)))
	b.must(err)
	if user, _ := b.names(strings.TrimSpace(string(token))); user != "bob" {
		t.Errorf("what was pasted names %s", user)
	}
}
