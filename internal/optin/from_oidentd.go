package optin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// From is what a host's oidentd.conf says in terms of stopd.
type From struct {
	// Names are the hosts that oidentd tells the user's name, where it does not tell others. Empty where it tells all or nobody.
	Names []netip.Addr
	// Notes say what has another form, or none; each of a line of the file.
	Notes []Note
	// Everybody is true where oidentd tells everybody the user's name that nothing else is said of.
	Everybody bool
}

// A Note is about a line of a file, counted from 1.
type Note struct {
	Line int
	Text string
}

// FromOidentd translates a host's oidentd.conf (oidentd.conf(5), src/cfg_scan.l and cfg_parse.y of oidentd 2 and 3): "default { ... }" and
// "user NAME { ... }", each with ranges "default { ... }" and "to HOST fport PORTS from HOST lport PORTS { ... }", each with "allow CAPABILITY",
// "deny CAPABILITY" and "force STATEMENT". An error says the line.
func FromOidentd(b []byte) (From, error) {
	t := &translation{ruleParser: ruleParser{rest: string(b)}, all: string(b), from: From{Everybody: true}}
	if err := t.scopes(); err != nil {
		return From{}, fmt.Errorf("line %d: %w", t.line(), err)
	}
	if t.from.Everybody {
		t.from.Names = nil // there they are told as to everybody
	}
	slices.SortStableFunc(t.from.Notes, func(a, b Note) int { return a.Line - b.Line })
	return t.from, nil
}

// A translation is a system's oidentd.conf that is being read.
type translation struct {
	ruleParser
	all  string
	from From
	user string          // whose scope it is; empty for all
	seen map[string]bool // the notes that have been made
}

// line is that of the last word.
func (t *translation) line() int {
	return 1 + strings.Count(strings.TrimRight(t.all[:len(t.all)-len(t.rest)], " \t\n"), "\n")
}

// note adds a note, once for all lines that say the same.
func (t *translation) note(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if t.seen[text] {
		return
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[text] = true
	t.from.Notes = append(t.from.Notes, Note{t.line(), text})
}

func (t *translation) scopes() error {
	for {
		w, err := t.next()
		if err != nil || w == (word{}) {
			return err
		}
		switch {
		case w.is("default"):
			t.user = ""
		case w.is("user"):
			name, err := t.next()
			if err != nil {
				return err
			}
			if !name.value() || name.text == "" {
				return errRule
			}
			t.user = name.text
		default:
			return errRule
		}
		if err := t.open(); err != nil {
			return err
		}
		if err := t.ranges(); err != nil {
			return err
		}
	}
}

// open takes an opening brace.
func (t *translation) open() error {
	w, err := t.next()
	if err == nil && w.kind != '{' {
		err = errRule
	}
	return err
}

// ranges translates those of a scope.
func (t *translation) ranges() error {
	for {
		w, err := t.next()
		if err != nil || w.kind == '}' {
			return err
		}
		at, all, r := t.line(), w.is("default"), rule{}
		if all {
			err = t.open()
		} else if r, w, err = t.filters(w); err == nil && w.kind != '{' {
			err = errRule
		}
		if err != nil {
			return err
		}
		forced, err := t.capabilities()
		if err != nil {
			return err
		}
		switch {
		case t.user != "":
		case all:
			t.from.Everybody = !forced
		case forced:
		case r.Remote.Addr.IsValid() && r == (rule{Remote: side{Addr: r.Remote.Addr}}):
			if !slices.Contains(t.from.Names, r.Remote.Addr) {
				t.from.Names = append(t.from.Names, r.Remote.Addr)
			}
		default:
			t.from.Notes = append(t.from.Notes, Note{at, "a rule by a host's name, by this host's address or by ports: a [[peer]] has addresses of hosts that ask alone"})
		}
	}
}

// capabilities translates what a range says, and reports whether it forces another answer than the user's name.
func (t *translation) capabilities() (forced bool, err error) {
	for {
		w, err := t.next()
		if err != nil || w.kind == '}' {
			return forced, err
		}
		what, err := t.next()
		if err != nil {
			return forced, err
		}
		name := strings.ToLower(what.text)
		values, known := statements[name]
		switch {
		case what.kind != 'w' || !known:
			return forced, errRule
		case w.is("allow"):
			t.allowed(name)
		case w.is("deny"):
			if name == "hide" {
				t.note("deny hide: a user can hide himself always, by ~/.noident and by his oidentd.conf")
			}
		case w.is("force") && values >= 0:
			forced = true
			for range values {
				if v, err := t.next(); err != nil || !v.value() {
					return forced, errRule
				}
			}
			t.forced(name)
		default:
			return forced, errRule
		}
	}
}

// statements are the capabilities, and how many words follow each that can be forced; -1 for the others.
var statements = map[string]int{"hide": 0, "random": 0, "numeric": 0, "random_numeric": 0, "reply": 1, "forward": 2, "spoof": -1, "spoof_all": -1, "spoof_privport": -1}

func (t *translation) allowed(name string) {
	switch name {
	case "hide": // always so
	case "forward":
		t.note("allow forward: none: who is behind this host is told by his own stopd, where [nat] answers")
	default:
		t.note("allow %s: none: a user whose oidentd.conf has another answer than his name gets a token", name)
	}
}

func (t *translation) forced(name string) {
	whose := "all"
	if t.user != "" {
		whose = t.user
	}
	switch {
	case name == "hide" && t.user == "":
		t.note("force hide: nobody is told a name but who is a [[peer]] with names")
	case name == "hide":
		t.note("force hide for %s: make .noident in his home, which he can remove", whose)
	case name == "forward":
		t.note("force forward for %s: none: who is behind this host is told by his own stopd, where [nat] answers", whose)
	case t.user == "":
		t.note("force %s: a token, another for each question", name)
	default:
		t.note("force %s for %s: a token, another for each question; so that it is one for peers with names as well, make .noident in his home", name, whose)
	}
}
