package optin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var equateAddrs = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestParseList(t *testing.T) {
	for _, c := range []struct {
		text string
		want list
	}{
		{"", list{}},
		{"192.0.2.9\n2001:db8::9\n", list{Prefixes: []netip.Prefix{prefix("192.0.2.9/32"), prefix("2001:db8::9/128")}}},
		{"192.0.2.0/24\r\n \t2001:db8::/32\t# the site\n0.0.0.0/0", list{Prefixes: []netip.Prefix{prefix("192.0.2.0/24"), prefix("2001:db8::/32"), prefix("0.0.0.0/0")}}},
		{"IRC.Example\nirc.example\nirc.example.\n_a-1.b\nlocalhost", list{Names: []string{"irc.example", "irc.example.", "_a-1.b", "localhost"}}},
		{"# 192.0.2.9\n#192.0.2.9\n\n   \n192.0.2.9#x\n", list{Prefixes: []netip.Prefix{prefix("192.0.2.9/32")}}},
		// Lines that are neither list nobody.
		{"192.0.2.9 192.0.2.10\n192.0.2.9,a\n192.0.2.256\n192.0.2\n1\n0x7f.1x\n*\n.\n..\na..b\n-a\na-\n!a\n/32\n192.0.2.9/33\n192.0.2.9/-1\n", list{Names: []string{"0x7f.1x"}}},
		{"::ffff:192.0.2.9\n::ffff:192.0.2.0/120\nfe80::1%eth0\nfe80::%eth0/64\n\xef\xbb\xbf192.0.2.9\nj\u00fcrgen.example\na\x00b\n", list{}},
		{strings.Repeat("a", 63) + "\n" + strings.Repeat("b", 64) + "\n" + strings.Repeat("c.", 126) + "d\n" + strings.Repeat("c.", 126) + "dd\n", list{Names: []string{strings.Repeat("a", 63), strings.Repeat("c.", 126) + "d"}}},
	} {
		if d := cmp.Diff(c.want, parseList([]byte(c.text)), equateAddrs); d != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, d)
		}
	}
	var many strings.Builder
	for i := range MaxNames + 1 {
		fmt.Fprintf(&many, "h%d\n", i)
	}
	l := parseList([]byte(many.String() + "192.0.2.9\n"))
	if len(l.Names) != MaxNames || l.Names[0] != "h0" || len(l.Prefixes) != 1 {
		t.Errorf("of many, %d names and %d prefixes count", len(l.Names), len(l.Prefixes))
	}
}

func TestParseRules(t *testing.T) {
	all := rule{}
	addr := func(s string) side { return side{Addr: netip.MustParseAddr(s)} }
	for _, c := range []struct {
		text string
		want []rule
		ok   bool
	}{
		{"", nil, true},
		{"# nothing\n/* nor * here ** */\n", nil, true},
		{"global { hide }", []rule{all}, true},
		{"GLOBAL{Hide}", []rule{all}, true},
		{"global{reply \"a { \\\" # b\" \"c\"}\nglobal\n{\nforward 192.0.2.7 113\n}", []rule{all, all}, true},
		{"to 192.0.2.9 { hide }", []rule{{Remote: addr("192.0.2.9")}}, true},
		{"to ::ffff:192.0.2.9 { hide }", []rule{{Remote: addr("192.0.2.9")}}, true},
		{"to irc.Example fport 6667 { hide }", []rule{{Remote: side{Name: "irc.example", Least: 6667, Most: 6667}}}, true},
		{"lport 1024: from \"2001:db8::1\" To 192.0.2.9 FPORT :1023 { random }",
			[]rule{{Local: side{Addr: netip.MustParseAddr("2001:db8::1"), Least: 1024, Most: 65535}, Remote: side{Addr: netip.MustParseAddr("192.0.2.9"), Most: 1023}}}, true},
		{"fport 6660:6669 { numeric } lport ircd {hide} fport auth: {hide}", []rule{{Remote: side{Least: 6660, Most: 6669}}, {Local: side{Most: 65535}}, {Remote: side{Most: 65535}}}, true},
		{"from my.name { hide } # and then\n", []rule{{Local: side{Name: "my.name"}}}, true},
		{"to a#b { hide }", nil, false},
		{"hide", nil, false},
		{"{ hide }", nil, false},
		{"global", nil, false},
		{"global hide", nil, false},
		{"global { }", nil, false},
		{"global { hide", nil, false},
		{"global { hide } }", nil, false},
		{"global { { hide } }", nil, false},
		{"global { reply \"x }", nil, false},
		{"global { reply \"x\n\" }", nil, false},
		{"global { hide } /* no end", nil, false},
		{"to { hide }", nil, false},
		{"to 192.0.2.9", nil, false},
		{"to 192.0.2.9 to 192.0.2.8 { hide }", nil, false},
		{"to 192.0.2.0/24 { hide }", nil, false},
		{"fport 65536 { hide }", nil, false},
		{"fport \"\" { hide }", nil, false},
		{"fport -1 { hide }", nil, false},
		{"user alice { default { force hide } }", nil, false},
		{"default { hide }", nil, false},
		{"\"global\" { hide }", nil, false},
		{"global { hide\r}", []rule{all}, true},
		{"global { hide }\r\n", nil, false},
	} {
		got, err := parseRules([]byte(c.text))
		if d := cmp.Diff(c.want, got, equateAddrs); d != "" || (err == nil) != c.ok {
			t.Errorf("%q: %v (-want +got):\n%s", c.text, err, d)
		}
	}
}

// What the files say of one question: from 192.0.2.1 port 4000 to 192.0.2.9 port 6667.
func TestAnswer(t *testing.T) {
	q := Question{Requester: netip.MustParseAddr("192.0.2.9"), Local: netip.MustParseAddrPort("192.0.2.1:4000"), Remote: netip.MustParseAddrPort("192.0.2.9:6667")}
	hidden, listed, nothing := Answer{Hidden: true}, Answer{Listed: true}, Answer{}
	file := func(s string) File { return File{Text: []byte(s)} }
	rules := func(s string) []File { return []File{{}, file(s)} }
	list := file("192.0.2.9\n")
	for _, c := range []struct {
		name  string
		files Files
		want  Answer
	}{
		{"no files", Files{}, nothing},
		{"listed", Files{List: list}, listed},
		{"by prefix", Files{List: file("!\n192.0.0.0/16")}, listed},
		{"another", Files{List: file("192.0.2.8\n2001:db8::/32\n")}, nothing},
		{"by name", Files{List: file("irc.example\n192.0.2.8")}, Answer{ListedNames: []string{"irc.example"}}},
		{"list unreadable", Files{List: File{Unreadable: true}}, nothing},
		{"list read in part", Files{List: File{Text: list.Text, Unreadable: true}}, nothing},
		{"noident", Files{NoIdent: true, List: list}, hidden},
		{"hide", Files{Oidentd: rules("global { hide }"), List: list}, hidden},
		{"another answer", Files{Oidentd: rules("global { reply \"x\" }"), List: list}, hidden},
		{"hide here", Files{Oidentd: rules("to 192.0.2.9 fport 6667 from 192.0.2.1 lport 4000 { hide }"), List: list}, hidden},
		{"in the first file", Files{Oidentd: []File{file("to 192.0.2.9 { hide }"), {}}, List: list}, hidden},
		{"hide from elsewhere", Files{Oidentd: rules("to 192.0.2.8 { hide }"), List: list}, listed},
		{"hide another port", Files{Oidentd: rules("fport 6668: { hide } lport :3999 { hide }"), List: list}, listed},
		{"hide another address of the host", Files{Oidentd: rules("from 192.0.2.2 { hide }"), List: list}, listed},
		{"hide an address with a name", Files{Oidentd: rules("from me.example { hide }"), List: list}, hidden},
		{"hide a service", Files{Oidentd: rules("fport ircd { hide }"), List: list}, hidden},
		{"hide from a name", Files{Oidentd: rules("to a.example { hide } to b.example fport 22 { hide } to a.example lport 4000 { hide }"), List: list}, Answer{Listed: true, HiddenFrom: []string{"a.example"}}},
		{"rules unreadable", Files{Oidentd: []File{{Unreadable: true}, {}}, List: list}, hidden},
		{"rules without sense", Files{Oidentd: rules("to 192.0.2.8 { hide } x"), List: list}, hidden},
	} {
		if d := cmp.Diff(c.want, c.files.Answer(q), equateAddrs); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	var many strings.Builder
	for i := range MaxNames {
		fmt.Fprintf(&many, "to h%d.example { hide }\n", i)
	}
	f := Files{Oidentd: rules(many.String()), List: list}
	if a := f.Answer(q); len(a.HiddenFrom) != MaxNames || a.Hidden {
		t.Errorf("%+v", a)
	}
	f.Oidentd[0] = file("to another { hide }")
	if a := f.Answer(q); !a.Hidden {
		t.Errorf("beyond the bound: %+v", a)
	}
	// The address that asks counts, and the one that the user's process sees, where translation makes them two.
	q.Remote = netip.MustParseAddrPort("198.51.100.7:6667")
	for _, to := range []string{"192.0.2.9", "198.51.100.7"} {
		if a := (Files{Oidentd: rules("to " + to + " fport 6667 { hide }")}).Answer(q); !a.Hidden {
			t.Errorf("to %s: %+v", to, a)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("192.0.2.9 # x\nirc.example\n2001:db8::/32\r\n"))
	f.Add([]byte("::ffff:192.0.2.9\n\x00\n-\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := parseList(b)
		if len(l.Names) > MaxNames {
			t.Errorf("%d names", len(l.Names))
		}
		// What was understood is understood so again.
		var text strings.Builder
		for _, p := range l.Prefixes {
			fmt.Fprintln(&text, p)
		}
		for _, n := range l.Names {
			if n != strings.ToLower(n) || len(n) > 253 {
				t.Errorf("name %q", n)
			}
			fmt.Fprintln(&text, n)
		}
		if d := cmp.Diff(l, parseList([]byte(text.String())), equateAddrs); d != "" {
			t.Errorf("%q: %s", b, d)
		}
	})
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte("global { hide }\nto irc.example fport 6667:6669 from ::1 lport 1024: { reply \"a\" \"b\\\"\" } # c\n/* d */"))
	f.Add([]byte("to \"x { hide }"))
	q := Question{Requester: netip.MustParseAddr("192.0.2.9"), Local: netip.MustParseAddrPort("192.0.2.1:4000"), Remote: netip.MustParseAddrPort("192.0.2.9:6667")}
	f.Fuzz(func(t *testing.T, b []byte) {
		rules, err := parseRules(b)
		if err != nil && rules != nil {
			t.Error("rules beside an error")
		}
		for _, r := range rules {
			if r.Local.Addr.IsValid() && r.Local.Name != "" || r.Remote.Name != strings.ToLower(r.Remote.Name) {
				t.Errorf("%q: %+v", b, r)
			}
		}
		// A rule more never shows who was hidden.
		a := Files{Oidentd: []File{{Text: b}}, List: File{Text: []byte("192.0.2.9")}}.Answer(q)
		more := Files{Oidentd: []File{{Text: append(slices.Clip(b), "\nto 192.0.2.8 { hide }"...)}}, List: File{Text: []byte("192.0.2.9")}}.Answer(q)
		if a.Hidden && !more.Hidden && err == nil {
			t.Errorf("%q hides, and with a rule more it does not", b)
		}
		if len(a.HiddenFrom) > MaxNames {
			t.Errorf("%d names", len(a.HiddenFrom))
		}
	})
}
