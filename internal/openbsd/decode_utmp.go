package openbsd

import (
	"net/netip"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Where struct utmp has its fields (utmp.h): line, name, host and the time with 64 bits.
const (
	utmpSize = 304
	utmpName = 8
	utmpHost = 40
	utmpTime = 296
)

// parseUtmp returns the logins of a utmp file: one record for each terminal, without a name where nobody is logged in.
func parseUtmp(b []byte) []host.Login {
	var ls []host.Login
	for ; len(b) >= utmpSize; b = b[utmpSize:] {
		if l := parseLogin(b); l.User != "" {
			ls = append(ls, l)
		}
	}
	return ls
}

// parseWtmp returns the sessions in a wtmp file that have ended, as far as they began after the host did. A session ends with the
// next record of its line; a logout has no name. Reaches is whether the records go back to when the host began.
func parseWtmp(b []byte, boot time.Time) (ls []host.Login, reaches bool) {
	open := map[string]int{} // the session of each line
	for ; len(b) >= utmpSize; b = b[utmpSize:] {
		l := parseLogin(b)
		if l.Line == "~" || l.Time.Before(boot) { // a start, or a stop (utmp(5))
			ls, reaches = nil, true
			clear(open)
			continue
		}
		if l.Line == "|" || l.Line == "{" || l.Line == "}" { // the clock was set
			continue
		}
		if i, ok := open[l.Line]; ok && !l.Time.Before(ls[i].Time) {
			ls[i].Ended = l.Time
		}
		delete(open, l.Line)
		if l.User != "" {
			open[l.Line] = len(ls)
			ls = append(ls, l)
		}
	}
	return slices.DeleteFunc(ls, func(l host.Login) bool { return l.Ended.IsZero() }), reaches
}

func parseLogin(b []byte) host.Login {
	l := host.Login{Source: host.LoginUtmp, Line: str(b[:utmpName]), User: str(b[utmpName:utmpHost]), Host: str(b[utmpHost:utmpTime]),
		Time: time.Unix(int64(u64(b, utmpTime)), 0).UTC()}
	if year := l.Time.Year(); year < 1970 || year > 9999 { // no report can have it
		l.Time = time.Time{}
	}
	if a := posix.ParseAddress(l.Host); a.IsValid() {
		l.Remote = netip.AddrPortFrom(a, 0)
	}
	return l
}
