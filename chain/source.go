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
	// Unreadable counts trace-back records of a bundle that are none.
	Unreadable int

	disputed map[stop.Ends]bool // candidates about which the copies do not agree
}

// compare is negative where more speaks for a copy than for another. A log that is not called after the host is another's, who can
// have had the report in his hands.
func (s *Source) compare(t *Source) int {
	foreign := func(s *Source) int {
		if s.Log == "" || s.ownLog() {
			return 0
		}
		return 1
	}
	return cmp.Or(s.Standing.compare(t.Standing), cmp.Compare(foreign(s), foreign(t)))
}

// ownLog reports whether a log is called after the host whose report it is of.
func (s *Source) ownLog() bool {
	return s.Report.Host.Name != "" && strings.HasPrefix(s.Log, s.Report.Host.Name+"/")
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
	Unvouched  Standing = "policy not met"  // a bundle for which nobody vouches whom the reader trusts
	Plain      Standing = "plain"           // as stopctl redeem prints it: anybody who had the file can have altered it
)

var standings = []Standing{Vouched, Consistent, Unvouched, Plain}

// compare is negative where a standing is better than another.
func (s Standing) compare(t Standing) int {
	rank := func(s Standing) int {
		if i := slices.Index(standings, s); i >= 0 {
			return i
		}
		return len(standings) - 1
	}
	return cmp.Compare(rank(s), rank(t))
}

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
		if a.Recorded {
			return "plain JSON: whom it asked, and what was answered, is the word of all who had the file"
		}
		return "plain JSON, and no bundle here has its token: all of it is the word of all who had the file"
	}
	switch {
	case a.Log == "":
	case a.ownLog:
		text += fmt.Sprintf(", in the log %s", a.Log)
	default:
		text += fmt.Sprintf(", in the log %s, which is not called after this host", a.Log)
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
