package flows

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// From docs.suricata.io, EVE JSON Format: the example of the page, and a flow and an alert of a later section.
const (
	eveAlert = `{"timestamp":"2017-04-07T22:24:37.251547+0100","flow_id":586497171462735,"pcap_cnt":53381,"event_type":"alert","src_ip":"192.168.2.14","src_port":50096,"dest_ip":"209.53.113.5","dest_port":80,"proto":"TCP","metadata":{"flowbits":["http.dottedquadhost"]},"tx_id":4,"alert":{"action":"allowed","gid":1,"signature_id":2018358,"rev":10,"signature":"ET HUNTING GENERIC SUSPICIOUS POST to Dotted Quad with Fake Browser 1","category":"Potentially Bad Traffic","severity":2},"app_proto":"http"}`
	eveStats = `{"timestamp":"2016-02-22T14:22:04.000111+0100","event_type":"stats","stats":{"uptime":8}}`
)

// From docs.zeek.org: Zeek Log Formats and Inspection; its conn.log as JSON and in columns.
const (
	zeekConn    = `{"ts":1591367999.430166,"uid":"C5bLoe2Mvxqhawzqqd","id.orig_h":"192.168.4.76","id.orig_p":46378,"id.resp_h":"31.3.245.133","id.resp_p":80,"proto":"tcp","service":"http","duration":0.25411510467529297,"orig_bytes":77,"resp_bytes":295,"conn_state":"SF","missed_bytes":0,"history":"ShADadFf","orig_pkts":6,"orig_ip_bytes":397,"resp_pkts":4,"resp_ip_bytes":511}`
	zeekColumns = "1591367999.430166\tC5bLoe2Mvxqhawzqqd\t192.168.4.76\t46378\t31.3.245.133\t80\ttcp\thttp\t0.254115\t77\t295\tSF\t-\t-\t0\tShADadFf\t6\t397\t4\t511\t-"
	zeekFilter  = `{"ts":1591368442.854585,"node":"zeek","filter":"ip or not ip","init":true,"success":true}`
)

var ends = [2]netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:40022"), netip.MustParseAddrPort("198.51.100.1:22")}

func TestParse(t *testing.T) {
	six := [2]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::7]:40022"), netip.MustParseAddrPort("[2001:db8::1]:22")}
	plain := func(protocol string, ends [2]netip.AddrPort, directed bool) Flow {
		return Flow{Protocol: protocol, Source: ends[0], Destination: ends[1], Directed: directed}
	}
	alert := Flow{Protocol: "tcp", Source: netip.MustParseAddrPort("192.168.2.14:50096"), Destination: netip.MustParseAddrPort("209.53.113.5:80"),
		Time: time.Date(2017, 4, 7, 21, 24, 37, 251547000, time.UTC), Kind: "alert",
		Alert: Alert{"ET HUNTING GENERIC SUSPICIOUS POST to Dotted Quad with Fake Browser 1", 2018358, "Potentially Bad Traffic", 2}}
	answered := alert
	answered.Source, answered.Destination, answered.Directed = alert.Destination, alert.Source, true
	opened := alert
	opened.Directed = true
	masked := plain("tcp", ends, true)
	masked.FarSource, masked.FarDestination = netip.MustParseAddrPort("203.0.113.5:61000"), ends[1]
	fast := plain("tcp", ends, false)
	fast.Kind, fast.Alert = "alert", Alert{Name: "ET HUNTING GENERIC", ID: 2018358}
	conn := Flow{Protocol: "tcp", Source: netip.MustParseAddrPort("192.168.4.76:46378"), Destination: netip.MustParseAddrPort("31.3.245.133:80"), Directed: true,
		Time: time.Date(2020, 6, 5, 14, 39, 59, 430166000, time.UTC), Kind: "conn", Lasted: 254115 * time.Microsecond}
	columns := conn
	columns.Kind, columns.Lasted = "", 0 // which column that is the header says
	named := conn
	named.Kind, named.Alert.Name = "notice", "SSL::Invalid_Server_Cert"
	for _, tt := range []struct {
		name, line string
		want       Flow
	}{
		{"ss -tn", "ESTAB 0      0         192.0.2.7:40022    198.51.100.1:22   ", plain("", ends, false)},
		{"ss -tnp", `ESTAB 0 36 192.0.2.7:40022 198.51.100.1:22 users:(("sshd",pid=701,fd=4),("sshd",pid=690,fd=4))`, plain("", ends, false)},
		{"ss -n", "tcp   ESTAB  0      0        192.0.2.7:40022   198.51.100.1:22", plain("tcp", ends, false)},
		{"ss, a device", "ESTAB 0 0 192.0.2.7%eth0:40022 198.51.100.1:22", plain("", ends, false)},
		{"ss, IPv6", "ESTAB 0 0 [2001:db8::7]:40022 [2001:db8::1]:22", plain("", six, false)},
		{"ss, IPv6 and a device", "ESTAB 0 0 [fe80::7%eth0]:40022 [fe80::1]%eth0:22", plain("", [2]netip.AddrPort{netip.MustParseAddrPort("[fe80::7]:40022"), netip.MustParseAddrPort("[fe80::1]:22")}, false)},
		{"ss, mapped", "ESTAB 0 0 [::ffff:192.0.2.7]:40022 [::ffff:198.51.100.1]:22", plain("", ends, false)},
		{"netstat -tn", "tcp        0      0 192.0.2.7:40022         198.51.100.1:22         ESTABLISHED", plain("tcp", ends, false)},
		{"netstat -tnp, IPv6", "tcp6       0      0 2001:db8::7:40022       2001:db8::1:22          ESTABLISHED 701/sshd", plain("tcp", six, false)},
		{"netstat, mapped", "tcp6       0      0 ::ffff:192.0.2.7:40022  ::ffff:198.51.100.1:22  ESTABLISHED", plain("tcp", ends, false)},
		{"netstat -tnW", "tcp6       0      0 2001:db8::9234:56:40022 2001:db8::9234:5678:22022 ESTABLISHED",
			plain("tcp", [2]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::9234:56]:40022"), netip.MustParseAddrPort("[2001:db8::9234:5678]:22022")}, false)},
		{"netstat of BSD", "tcp4       0      0  192.0.2.7.40022        198.51.100.1.22        ESTABLISHED", plain("tcp", ends, false)},
		{"netstat of OpenBSD", "tcp          0      0  192.0.2.7.40022        198.51.100.1.22        ESTABLISHED", plain("tcp", ends, false)},
		{"netstat of BSD, IPv6", "tcp6       0      0  2001:db8::7.40022      2001:db8::1.22         ESTABLISHED", plain("tcp", six, false)},
		{"netstat of illumos", "192.0.2.7.40022      198.51.100.1.22      64240      0 128872      0 ESTABLISHED", plain("", ends, false)},
		{"conntrack -L", "tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=198.51.100.1 sport=40022 dport=22 src=198.51.100.1 dst=203.0.113.5 sport=22 dport=61000 [ASSURED] mark=0 use=1", masked},
		{"conntrack -L, not translated", "tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=198.51.100.1 sport=40022 dport=22 src=198.51.100.1 dst=192.0.2.7 sport=22 dport=40022 [ASSURED] mark=0 use=1", plain("tcp", ends, true)},
		{"conntrack -L, cut", "tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=198.51.100.1 sport=40022 dport=22 src=198.51.100.1 dst=203.0", plain("tcp", ends, true)},
		{"conntrack -E", "    [NEW] tcp      6 120 SYN_SENT src=192.0.2.7 dst=198.51.100.1 sport=40022 dport=22 [UNREPLIED] src=198.51.100.1 dst=192.0.2.7 sport=22 dport=40022", plain("tcp", ends, true)},
		{"nf_conntrack", "ipv6     10 tcp      6 299 ESTABLISHED src=2001:0db8:0000:0000:0000:0000:0000:0007 dst=2001:db8::1 sport=40022 dport=22 src=2001:db8::1 dst=2001:db8::7 sport=22 dport=40022 [ASSURED] mark=0 zone=0 use=2", plain("tcp", six, true)},
		{"an arrow", "192.0.2.7:40022 -> 198.51.100.1:22", plain("", ends, false)},
		{"an arrow without blanks", "192.0.2.7:40022->198.51.100.1:22", plain("", ends, false)},
		{"an arrow to the left", "198.51.100.1:22 <- 192.0.2.7:40022", plain("", ends, false)},
		{"another arrow", "[2001:db8::7]:40022 → [2001:db8::1]:22", plain("", six, false)},
		{"lsof", "sshd 701 root 4u IPv4 12345 0t0 TCP 192.0.2.7:40022->198.51.100.1:22 (ESTABLISHED)", plain("", ends, false)},
		{"tcpdump", "14:39:59.430166 IP 192.0.2.7.40022 > 198.51.100.1.22: Flags [S], seq 3723031366, win 65535", plain("", ends, false)},
		{"tcpdump, IPv6", "14:39:59.430166 IP6 2001:db8::7.40022 > 2001:db8::1.22: Flags [S], seq 1", plain("", six, false)},
		{"fast.log", "04/07/2017-22:24:37.251547  [**] [1:2018358:10] ET HUNTING GENERIC [**] [Classification: Potentially Bad Traffic] [Priority: 2] {TCP} 192.0.2.7:40022 -> 198.51.100.1:22", fast},
		{"EVE", eveAlert, alert},
		{"EVE, of the answer", strings.Replace(eveAlert, `"proto"`, `"direction":"to_client","proto"`, 1), answered},
		{"EVE, of the question", strings.Replace(eveAlert, `"proto"`, `"direction":"to_server","proto"`, 1), opened},
		{"EVE, with its flow", strings.Replace(eveAlert, `"proto"`, `"flow":{"src_ip":"209.53.113.5","src_port":80,"dest_ip":"192.168.2.14","dest_port":50096},"proto"`, 1), answered},
		{"Zeek, JSON", zeekConn, conn},
		{"Zeek, JSON, another time", strings.Replace(zeekConn, "1591367999.430166", `"2020-06-05T14:39:59.430166Z"`, 1), conn},
		{"Zeek, a notice", strings.Replace(zeekConn, `"conn_state":"SF"`, `"note":"SSL::Invalid_Server_Cert"`, 1), named},
		{"Zeek, columns", zeekColumns, columns},
		{"more around it", "  \t192.0.2.7:40022 -> 198.51.100.1:22\r\n", plain("", ends, false)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.line)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateApproxTime(0)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for line, why := range map[string]string{
		"":                                  "no two addresses",
		"LISTEN 0 128 0.0.0.0:22 0.0.0.0:*": "listening",
		// Of 2001:db8::9234:5678, by net-tools 2.10; of 2001:db8::1234:5678, as FreeBSD's cuts it.
		"tcp6       0      0 2001:db8::9234:56:40022 2001:db8::1234:5678:22  ESTABLISHED": "may be cut",
		"tcp6       0      0  2001:db8::1234:5.40022 2001:db8::1.22         ESTABLISHED":  "may be cut",
		"ESTAB 0 0 192.0.2.7:ssh 198.51.100.1:40022":                                      "with -n",
		"192.0.2.7:40022 -> 198.51.100.1":                                                 "not an address with a port",
		"192.0.2.7:40022 -> 198.51.100.1:0":                                               "not an address with a port",
		"192.0.2.7:40022 -> 198.51.100.1:65536":                                           "not an address with a port",
		"192.0.2.7:40022 -> [2001:db8::1]:22":                                             "two families",
		"192.0.2.7:1 -> 192.0.2.8:2\n192.0.2.7:3 -> 192.0.2.8:4":                          "more than one line",
		"tcp 6 src=192.0.2.7 dst=198.51.100.1 sport=40022 dport=ssh":                      "dport",
		"udp 17 src=192.0.2.7 dst=here sport=40022 dport=53":                              "ParseAddr",
		eveStats:                             "no connection",
		zeekFilter:                           "no connection",
		`{"src_ip":"192.0.2.7","dest_ip":7}`: "cannot unmarshal",
		strings.Replace(eveAlert, "2017-", "20x-", 1):               "timestamp",
		strings.Replace(zeekConn, `"duration":`, `"duration":-`, 1): "duration -0.25",
		strings.Repeat("x", MaxLine+1):                              "longer",
	} {
		f, err := Parse(line)
		if err == nil || !strings.Contains(err.Error(), why) || f != (Flow{}) {
			t.Errorf("%.60q: %v, %v, and not %q", line, f, err, why)
		}
	}
}

// The header of a log of Zeek says what its columns are, and in which order.
func TestZeekHeader(t *testing.T) {
	header := []string{`#separator \x09`, "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tnotice", "#open\t2020-06-05-14-39-59",
		"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tfuid\tproto\tnote\tmsg", "#types\ttime\tstring\taddr\tport\taddr\tport\tstring\tenum\tenum\tstring"}
	var z Zeek
	for _, line := range header {
		if _, err := z.Line([]byte(line + "\n")); !errors.Is(err, ErrNoFlow) {
			t.Errorf("%q: %v", line, err)
		}
	}
	got, err := z.Line([]byte("1591367999.430166\tC5b\t192.0.2.7\t40022\t198.51.100.1\t22\t-\ttcp\tSSH::Login_By_Password_Guesser\tx\n"))
	want := Flow{Protocol: "tcp", Source: ends[0], Destination: ends[1], Directed: true, Time: time.Date(2020, 6, 5, 14, 39, 59, 430166000, time.UTC),
		Kind: "notice", Alert: Alert{Name: "SSH::Login_By_Password_Guesser"}}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateApproxTime(0)); d != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, d)
	}
	// SSH::Password_Guessing is about a host.
	if _, err := z.Line([]byte("1591367999.430166\t-\t-\t-\t-\t-\t-\t-\tSSH::Password_Guessing\t192.0.2.7 appears to be guessing\n")); !errors.Is(err, ErrNoFlow) {
		t.Errorf("a notice about no connection: %v", err)
	}
	if _, err := z.Line([]byte("1591367999.430166\tC5b\t192.0.2.7\n")); err == nil || errors.Is(err, ErrNoFlow) {
		t.Errorf("a line that was cut: %v", err)
	}
	// A file without a name for its separator, and another order.
	z = Zeek{}
	z.Line([]byte(`#separator ,`))
	z.Line([]byte(`#fields,id.resp_p,id.resp_h,id.orig_p,id.orig_h,duration`))
	if got, err := z.Line([]byte("22,198.51.100.1,40022,192.0.2.7,90.5")); err != nil || got.Lasted != 90500*time.Millisecond || got.Source != ends[0] || got.Destination != ends[1] {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzParse holds that what is read can be asked about, and is read again from what it is written as.
func FuzzParse(f *testing.F) {
	for _, line := range []string{eveAlert, zeekConn, zeekColumns, "ESTAB 0 0 192.0.2.7%eth0:40022 [2001:db8::1%x]:22", "tcp6 0 0 2001:db8::7:40022 2001:db8::1:22 E",
		"tcp 6 1 src=1.2.3.4 dst=5.6.7.8 sport=1 dport=2", "IP 192.0.2.7.40022 > 198.51.100.1.22: F", "::ffff:1.2.3.4.5 <- [::1]:2"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got, err := Parse(line)
		if err != nil {
			return
		}
		all := []netip.AddrPort{got.Source, got.Destination}
		if got.FarSource.IsValid() {
			all = append(all, got.FarSource, got.FarDestination)
		}
		for _, e := range all {
			if !e.IsValid() || e.Port() == 0 || e.Addr().Is4In6() || e.Addr().Zone() != "" {
				t.Errorf("%q has the end %v", line, e)
			}
		}
		again, err := Parse(got.String())
		if err != nil || again.Source != got.Source || again.Destination != got.Destination {
			t.Errorf("%q is written as %q and read as %v, %v", line, got, again, err)
		}
	})
}

// FuzzZeek holds that no header makes a log unreadable in a way that is not an error.
func FuzzZeek(f *testing.F) {
	f.Add("#separator \\x09\n#fields\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\n1.2.3.4\t1\t5.6.7.8\t2")
	f.Add(zeekConn + "\n" + zeekColumns)
	f.Fuzz(func(t *testing.T, log string) {
		var z Zeek
		for line := range strings.Lines(log) {
			if got, err := z.Line([]byte(line)); err == nil && (!got.Source.IsValid() || got.Source.Port() == 0 || !got.Directed) {
				t.Errorf("%q is read as %v", line, got)
			}
		}
	})
}
