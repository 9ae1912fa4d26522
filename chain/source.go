package chain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/stopd/stopd/report"
)

// A Source is one copy of what a token stands for. The token is the hash of the report; what speaks for the trace-back
// records is the standing of the copy.
type Source struct {
	report.Redeemed
	Standing Standing
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

// words are what a standing means, in a line and in as few words as there is room for; empty where nobody said.
func (s Standing) words() (w struct{ long, short string }) {
	switch s {
	case Vouched:
		w.long, w.short = "a bundle that meets the policy", "bundle: policy met"
	case Consistent:
		w.long, w.short = "a bundle, held against no policy: nobody outside vouches for it", "bundle: no policy"
	case Unvouched:
		w.long, w.short = "a bundle that does not meet the policy", "bundle: policy not met"
	case Plain:
		w.long, w.short = "plain JSON: whom it asked, and what was answered, is the word of all who had the file", "plain JSON"
	}
	return w
}

// standings counts the reports by their standing, as the parts of a sentence: none where nobody said what any stands on.
func (c *Chain) standings() []string {
	count := map[Standing]int{}
	for _, h := range c.Hosts {
		for _, a := range h.Reports {
			count[a.Standing]++
		}
	}
	var parts []string
	for _, s := range standings {
		if n := count[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d as %s", n, s.words().short))
		}
	}
	return parts
}
