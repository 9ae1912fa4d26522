package chain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// A Source is one copy of what a token stands for. The token is the hash of the report; what speaks for the trace-back
// records is the standing of the copy.
type Source struct {
	report.Redeemed
	Standing Standing
	// Log is the log that proves a bundle: the name and key of a host, by the policy. Empty for what is no bundle.
	Log string
	// Unreadable and Further count trace-back records of a bundle that are none, and those behind the first, which counts.
	Unreadable, Further int

	disputed map[stop.Ends]bool // candidates about which the copies do not agree
	stale    bool               // a copy for which less speaks has more answers
}

// compare is negative where more speaks for a copy than for another.
func (s *Source) compare(t *Source) int {
	foreign := func(s *Source) int {
		if s.Standing == Vouched && s.foreignLog() {
			return 1
		}
		return 0
	}
	return cmp.Or(s.Standing.compare(t.Standing), cmp.Compare(foreign(s), foreign(t)))
}

// foreignLog reports whether a bundle is in a log that is not called after the host whose report it is of. Then it is another's, who can
// have had the report in his hands, or made it up.
func (s *Source) foreignLog() bool {
	name := s.Report.Host.Name
	return s.Log != "" && name != "" && !strings.HasPrefix(s.Log, name+"/")
}

// Of gives copies of which nobody said what speaks for them.
func Of(rs ...report.Redeemed) []Source {
	var ss []Source
	for _, r := range rs {
		ss = append(ss, Source{Redeemed: r})
	}
	return ss
}

// Standing says what speaks for a copy of a token's trace-back records. Where nobody said it is empty.
type Standing string

// Standings, the best first.
const (
	Vouched    Standing = "policy met"      // a bundle for which those vouch whom the reader trusts
	Consistent Standing = "self-consistent" // a bundle, held against no policy
	Unvouched  Standing = "policy not met"  // a bundle for which nobody vouches whom the reader trusts: anybody can make one
	Plain      Standing = "plain"           // as stopctl redeem prints it: anybody who had the file can have altered it
)

var standings = []Standing{Vouched, Consistent, Unvouched, Plain}

// compare is negative where a standing is better than another.
func (s Standing) compare(t Standing) int {
	rank := func(s Standing) int {
		if s.bundled() {
			return slices.Index(standings, s)
		}
		return len(standings)
	}
	return cmp.Compare(rank(s), rank(t))
}

// bundled reports whether a copy counts for more than what anybody can have made or altered. Where there is no policy, that is said of any
// bundle.
func (s Standing) bundled() bool { return s == Vouched || s == Consistent }

// short is a standing in a few words; empty where nobody said.
func (s Standing) short() string {
	switch s {
	case Vouched:
		return "bundle: policy met"
	case Consistent:
		return "bundle: no policy"
	case Unvouched:
		return "bundle: policy not met"
	case Plain:
		return "plain JSON"
	}
	return ""
}

// standingText says in words what speaks for a report.
func (a *Account) standingText() string {
	text := ""
	switch a.Standing {
	case Vouched:
		text = "a bundle that meets the policy"
	case Consistent:
		text = "a bundle, held against no policy: nobody outside vouches for it"
	case Unvouched:
		text = "a bundle that does not meet the policy"
	case Plain:
		text = "plain JSON"
	}
	switch {
	case a.Log == "":
	case a.foreignLog:
		text += fmt.Sprintf(", in the log %s, which is not called after this host", a.Log)
	default:
		text += fmt.Sprintf(", in the log %s", a.Log)
	}
	switch {
	case a.Standing.bundled():
	case a.RecordedBy != "":
		text += fmt.Sprintf("; %s recorded its token. Whom it asked, and what was answered, is the word of all who had the file", a.recorder)
	case a.Standing == Unvouched:
		text += ", and no other one here has its token: all of it is the word of whoever has the key of that log"
	default:
		text += ", and no bundle here has its token: all of it is the word of all who had the file"
	}
	if a.outvouched {
		text += ". It is not taken for the word of this host, of which a bundle is at hand"
	}
	return text
}

// standingCounts counts the reports by their standing, as the parts of a sentence: none where nobody said what any stands on.
func (c *Chain) standingCounts() []string {
	count := map[Standing]int{}
	for _, h := range c.Hosts {
		for _, a := range h.Reports {
			count[a.Standing]++
		}
	}
	var parts []string
	for _, s := range standings {
		if n := count[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d as %s", n, s.short()))
		}
	}
	return parts
}

// worst is the standing of that report of a host for which least speaks.
func (h *Host) worst() Standing {
	if len(h.Reports) == 0 {
		return ""
	}
	return slices.MaxFunc(h.Reports, func(x, y Account) int { return x.Standing.compare(y.Standing) }).Standing
}
