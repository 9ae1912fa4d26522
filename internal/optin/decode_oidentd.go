package optin

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A rule says which connections a rule of a user's oidentd.conf is about.
type rule struct {
	Local, Remote side
}

// A side is which ends of a connection a rule is about. The zero side is all.
type side struct {
	Addr netip.Addr
	// Name is a host's, whose addresses are not known here. Where Addr is not set and Name is, an end has it.
	Name        string
	Least, Most uint16 // ports; both 0 is all
}

func (s side) has(end netip.AddrPort) bool {
	return (!s.Addr.IsValid() || s.Addr == end.Addr().Unmap().WithZone("")) &&
		(s.Least == 0 && s.Most == 0 || s.Least <= end.Port() && end.Port() <= s.Most)
}

// parseRules parses a user's oidentd.conf (oidentd.conf(5), src/cfg_scan.l and cfg_parse.y of oidentd 2 and 3): rules
// "global { statement }" and, with at least one of the four,
// "to HOST fport PORTS from HOST lport PORTS { statement }". The statements are not looked at. On failure there are no rules.
func parseRules(b []byte) ([]rule, error) {
	p := &ruleParser{rest: string(b)}
	var rules []rule
	for {
		w, err := p.next()
		if err != nil {
			return nil, fmt.Errorf("parse oidentd.conf: %w", err)
		}
		if w == (word{}) {
			return rules, nil
		}
		r, err := p.rule(w)
		if err != nil {
			return nil, fmt.Errorf("parse oidentd.conf: %w", err)
		}
		rules = append(rules, r)
	}
}

// A word is a bare word, a quoted string or a brace; the zero word is the end.
type word struct {
	text string
	kind byte // 'w', '"', '{' or '}'
}

// is reports whether a word is a keyword, which matches without case.
func (w word) is(keyword string) bool { return w.kind == 'w' && strings.EqualFold(w.text, keyword) }

func (w word) value() bool { return w.kind == 'w' || w.kind == '"' }

type ruleParser struct{ rest string }

var errRule = errors.New("syntax error")

// rule parses a rule from its first word on.
func (p *ruleParser) rule(w word) (r rule, err error) {
	if w.is("global") {
		w, err = p.next()
	} else {
		r, w, err = p.filters(w)
	}
	if err != nil {
		return r, err
	}
	if w.kind != '{' {
		return r, errRule
	}
	for n := 0; ; n++ {
		if w, err = p.next(); err != nil {
			return r, err
		}
		switch {
		case w.kind == '}' && n > 0:
			return r, nil
		case !w.value():
			return r, errRule
		}
	}
}

// filters parses at least one of the four filters, from the first word on, and returns the word after them as well.
func (p *ruleParser) filters(w word) (r rule, after word, err error) {
	seen := map[string]bool{}
	for w.kind == 'w' {
		key := strings.ToLower(w.text)
		v, err := p.next()
		if err != nil {
			return r, w, err
		}
		if seen[key] || !v.value() {
			return r, w, errRule
		}
		seen[key] = true
		if err := r.filter(key, v.text); err != nil {
			return r, w, err
		}
		if w, err = p.next(); err != nil {
			return r, w, err
		}
	}
	if len(seen) == 0 {
		return r, w, errRule
	}
	return r, w, nil
}

// filter adds one of the four filters to a rule.
func (r *rule) filter(key, v string) (err error) {
	switch key {
	case "to":
		return r.Remote.host(v)
	case "from":
		return r.Local.host(v)
	case "fport":
		return r.Remote.ports(v)
	case "lport":
		return r.Local.ports(v)
	}
	return errRule
}

func (s *side) host(v string) error {
	if a, err := netip.ParseAddr(v); err == nil {
		s.Addr = a.Unmap().WithZone("")
		return nil
	}
	if s.Name = strings.ToLower(v); !hostName(s.Name) {
		return errRule
	}
	return nil
}

// ports parses "PORT", "LEAST:MOST", "LEAST:" or ":MOST". The name of a service, which is not looked up, may be any port.
func (s *side) ports(v string) (err error) {
	least, most, ranged := strings.Cut(v, ":")
	if !ranged {
		most = least
	}
	if v == "" {
		return errRule
	}
	if s.Least, err = port(least, 0); err != nil {
		return err
	}
	s.Most, err = port(most, 65535)
	return err
}

func port(text string, otherwise uint16) (uint16, error) {
	if text == "" || text[0] >= 'A' {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err
}

// next returns the next word.
func (p *ruleParser) next() (word, error) {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\n")
		switch {
		case p.rest == "":
			return word{}, nil
		case p.rest[0] == '#':
			_, p.rest, _ = strings.Cut(p.rest, "\n")
		case strings.HasPrefix(p.rest, "/*"):
			_, after, found := strings.Cut(p.rest[2:], "*/")
			if !found {
				return word{}, errRule
			}
			p.rest = after
		case p.rest[0] == '{' || p.rest[0] == '}':
			w := word{p.rest[:1], p.rest[0]}
			p.rest = p.rest[1:]
			return w, nil
		case p.rest[0] == '"':
			return p.quoted()
		default:
			n := strings.IndexAny(p.rest, " \t\n{}")
			if n < 0 {
				n = len(p.rest)
			}
			w := word{p.rest[:n], 'w'}
			p.rest = p.rest[n:]
			return w, nil
		}
	}
}

// quoted returns a string in quotes. What a backslash makes of the character after it is not looked at: no filter needs it.
func (p *ruleParser) quoted() (word, error) {
	for i := 1; i < len(p.rest) && p.rest[i] != '\n'; i++ {
		switch p.rest[i] {
		case '\\':
			i++
		case '"':
			w := word{p.rest[1:i], '"'}
			p.rest = p.rest[i+1:]
			return w, nil
		}
	}
	return word{}, errRule
}
