// Package optin finds out what a user's own files say of telling others his name: ~/.ident lists who may have it,
// ~/.noident and the rules of oidentd hide it. It reads with no rights but those that its process has; see Read.
package optin

import (
	"net/netip"
	"slices"
)

// A Question is whether a user's files let somebody have his name.
type Question struct {
	UID, GID  uint32
	Home      string // absolute; empty is none
	Requester netip.Addr
	// Local and Remote are the ends of the connection that it is about, as the user's process has them.
	Local, Remote netip.AddrPort
}

// An Answer is what the files say, as far as no host's name has to be looked up for it.
type Answer struct {
	Hidden bool // from this requester, whatever else is said
	Listed bool // the requester is
	// HiddenFrom and ListedNames are names of hosts for which the same holds, if the requester is one of them.
	// They have MaxNames at most.
	HiddenFrom, ListedNames []string
}

// Bounds of what a user may write. Of a file that is larger nothing holds; names beyond are not listed, and hide.
const (
	MaxFile  = 64 << 10
	MaxNames = 32
)

// Files are what is in a user's home. A file that is not there is zero.
type Files struct {
	NoIdent bool   // .noident is there, or may be
	Oidentd []File // .config/oidentd.conf and .oidentd.conf
	List    File   // .ident
}

// A File is the text of one, or that it is or may be there and its text is not to be had.
type File struct {
	Text       []byte
	Unreadable bool
}

// Answer answers a question by a user's files. What cannot be read or understood hides, and lists nobody.
func (f Files) Answer(q Question) Answer {
	a := Answer{Hidden: f.NoIdent}
	for _, o := range f.Oidentd {
		rules, err := parseRules(o.Text)
		hidden, names := hides(rules, q)
		if o.Unreadable || err != nil || hidden || len(a.HiddenFrom)+len(names) > MaxNames {
			a.Hidden = true
		} else {
			a.HiddenFrom = append(a.HiddenFrom, names...)
		}
	}
	if a.Hidden {
		return Answer{Hidden: true}
	}
	if !f.List.Unreadable {
		l := parseList(f.List.Text)
		a.Listed = slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(q.Requester) })
		a.ListedNames = l.Names
	}
	return a
}

// hides reports whether one of the rules applies, or would if the requester were one of the hosts named. What a rule
// says makes no difference: each is there because its user wants another answer than his name.
func hides(rules []rule, q Question) (hidden bool, names []string) {
	for _, r := range rules {
		switch {
		case !r.Local.has(q.Local) || !r.Remote.has(q.Remote) && !r.Remote.has(netip.AddrPortFrom(q.Requester, q.Remote.Port())):
		case r.Remote.Name == "":
			return true, nil
		case !slices.Contains(names, r.Remote.Name):
			names = append(names, r.Remote.Name)
		}
	}
	return len(names) > MaxNames, names
}
