package optin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromOidentd(t *testing.T) {
	addrs := func(texts ...string) (all []netip.Addr) {
		for _, a := range texts {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for name, c := range map[string]struct {
		text  string
		names []netip.Addr
		notes []Note
		all   bool // names are told to everybody
		err   string
	}{
		"nothing":               {text: "# nothing\n", all: true},
		"names to all":          {text: "default { default { allow hide\ndeny spoof } to 192.0.2.1 { force hide } }", all: true, notes: []Note{{2, "force hide: nobody is told a name but who is a [[peer]] with names"}}},
		"names to some":         {text: `default { default { force random } to 192.0.2.1 { deny random } "TO" 192.0.2.9 { } }`, err: "line 1: syntax error"},
		"names to some, quoted": {text: "DEFAULT { default { force random_numeric }\nto \"192.0.2.1\" { deny random } }", names: addrs("192.0.2.1"), notes: []Note{{1, "force random_numeric: a token, another for each question"}}},
		"by ports, and by this host's address": {text: "default { default { force numeric } to 192.0.2.1 lport 22 { deny hide } from 192.0.2.1 { deny spoof }}", notes: []Note{
			{1, "force numeric: a token, another for each question"}, {1, "deny hide: a user can hide himself always, by ~/.noident and by his oidentd.conf"}, {1, "a rule by a host's name, by this host's address or by ports: a [[peer]] has addresses of hosts that ask alone"},
			{1, "a rule by a host's name, by this host's address or by ports: a [[peer]] has addresses of hosts that ask alone"}}},
		"a user's": {text: "user \"ann\" {\n\tto 192.0.2.1 { force hide }\n\tdefault { force forward 192.0.2.2 113 }\n}\n/* another\n*/ user bob { default { allow spoof\nallow spoof force reply \"x\" } }", all: true, notes: []Note{
			{2, "force hide for ann: make .noident in his home, which he can remove"},
			{3, "force forward for ann: none: who is behind this host is told by his own stopd, where [nat] answers"},
			{6, "allow spoof: none: a user whose oidentd.conf has another answer than his name gets a token"},
			{7, "force reply for bob: a token, another for each question; so that it is one for peers with names as well, make .noident in his home"}}},
		"a user's range is not all's": {text: "default { default { force hide } }\nuser ann { to 192.0.2.1 { allow spoof_all } }", notes: []Note{
			{1, "force hide: nobody is told a name but who is a [[peer]] with names"}, {2, "allow spoof_all: none: a user whose oidentd.conf has another answer than his name gets a token"}}},
		"no end":              {text: "default {\n default {\n", err: "line 2: syntax error"},
		"no scope":            {text: "to 192.0.2.1 { force hide }", err: "line 1: syntax error"},
		"unknown capability":  {text: "default { default {\nforce spoof } }", err: "line 2: syntax error"},
		"nothing is answered": {text: "default { default { force reply } }", err: "line 1: syntax error"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromOidentd([]byte(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error is %v, not %q", err, c.err)
				}
				return
			}
			if d := cmp.Diff(From{Names: c.names, Notes: c.notes, Everybody: c.all}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || d != "" {
				t.Errorf("error %v (-want +got):\n%s", err, d)
			}
		})
	}
}

func FuzzFromOidentd(f *testing.F) {
	f.Add([]byte("default { default { deny hide\nforce reply \"x\" } to 192.0.2.1 fport 1:2 { allow spoof } } # c"))
	f.Add([]byte("default{default{force hide}to ::1{}}user a{from b{force forward c 1}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, err := FromOidentd(b)
		if err != nil && (from.Everybody || from.Names != nil || from.Notes != nil) {
			t.Error("something beside an error")
		}
		if from.Everybody && len(from.Names) > 0 {
			t.Errorf("everybody is told, and so are %v", from.Names)
		}
		for i, n := range from.Notes {
			if n.Line < 1 || n.Line > 1+strings.Count(string(b), "\n") || i > 0 && n.Line < from.Notes[i-1].Line {
				t.Errorf("notes are %v", from.Notes)
			}
		}
	})
}
