package chain

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stopd/stopd/report"
)

// clean makes a text from a report printable and short: whoever wrote it may want to draw on a terminal, or to hide
// the rest of the picture.
func clean(s string) string {
	if len(s) > 4*maxText {
		s = s[:4*maxText] // what this cuts in two is shortened away
	}
	piled := 0
	s = strings.Map(func(r rune) rune {
		if !unicode.In(r, unicode.Mn, unicode.Me) {
			piled = 0
		} else if piled++; piled > 2 {
			return -1 // marks pile up over the lines above
		}
		return r
	}, report.Printable(s))
	return shorten(s, maxText)
}

// shorten cuts a text to a number of runes.
func shorten(s string, n int) string {
	if len(s) <= n || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// cleanAll does it for the first of some texts.
func cleanAll(ss []string, n int) []string {
	out := []string{}
	for _, s := range ss[:min(len(ss), n)] {
		out = append(out, clean(s))
	}
	return out
}

// reached tells that the way came to the host. Where connections lead on from a host that nobody has a report of, paths end there
// for want of a word that joins them.
func (h *Host) reached() bool { return h.Ends && !h.Unjoined }

// Label is what to call a host: its own name and an address that it is known by.
func (h *Host) Label() string {
	switch {
	case len(h.Addresses) == 0 && h.Name == "":
		return "a host without an address"
	case len(h.Addresses) == 0:
		return h.Name
	case h.Name == "":
		return h.address()
	}
	return fmt.Sprintf("%s (%s)", h.Name, h.address())
}

// address is the first of those that a host is known by.
func (h *Host) address() string {
	if len(h.Addresses) == 0 {
		return "an unknown address"
	}
	return clean(h.Addresses[0].String())
}

// short is the name of a host, or its address.
func (h *Host) short() string {
	if h.Name != "" {
		return h.Name
	}
	return h.address()
}
