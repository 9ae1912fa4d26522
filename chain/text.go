package chain

import (
	"fmt"
	"strconv"
	"strings"
)

// Text writes a chain for a person: the paths, then each host once, from where they begin to where they end, what
// contradicts what, and what to ask whom next. Times are UTC, each by the clock of the host that it is told of.
func Text(c *Chain) string {
	var b strings.Builder
	for _, p := range c.Paths {
		b.WriteString(c.pathText(p) + "\n")
	}
	for i := range c.Hosts {
		if h := &c.Hosts[i]; h.Status != NotAsked && h.Status != Claimed {
			c.hostText(&b, h)
		}
	}
	if len(c.Contradictions) > 0 {
		b.WriteString("\nContradictions\n\n")
	}
	for _, x := range c.Contradictions {
		fmt.Fprintf(&b, "%d. %s: %s\n", x.ID, x.Kind, x.Text)
	}
	if len(c.Next) > 0 {
		b.WriteString("\nNext\n\n")
	}
	for i, s := range c.Next {
		fmt.Fprintf(&b, "%d. %s\n", i+1, s.Text)
	}
	if len(c.Omitted) > 0 {
		b.WriteString("\nLeft out\n\n")
	}
	for _, o := range c.Omitted {
		fmt.Fprintf(&b, "%d %s\n", o.Count, o.What)
	}
	return b.String()
}

func (c *Chain) pathText(p Path) string {
	var names []string
	for _, id := range p.Hosts {
		names = append(names, c.host(id).Label())
	}
	s := strings.Join(names, " -> ")
	if p.Loop {
		s += ", a loop: it leads into itself"
	}
	return s
}

// line writes one fact of a host.
func line(b *strings.Builder, label, format string, values ...any) {
	fmt.Fprintf(b, "   %-9s %s\n", label, fmt.Sprintf(format, values...))
}

func (c *Chain) hostText(b *strings.Builder, h *Host) {
	fmt.Fprintf(b, "\n%d. %s", h.ID, h.Label())
	if h.reached() {
		b.WriteString(", the host that was reached")
	}
	b.WriteString("\n")
	if len(h.Addresses) > 1 {
		var rest []string
		for _, a := range h.Addresses[1:min(len(h.Addresses), maxGaps)] {
			rest = append(rest, clean(a.String()))
		}
		line(b, "also at", "%s", strings.Join(rest, ", "))
	}
	if h.NAT {
		line(b, "nat", "it passed the connection on for another host: that the two belong together is its word alone")
	}
	for _, a := range h.Reports {
		c.accountText(b, h, a)
	}
	for _, k := range c.at[h.ID] {
		if k.From == h.ID && k.asked() {
			c.leavingText(b, h, k)
		}
	}
	if h.Unjoined {
		line(b, "unjoined", "that what comes to it and what leads away from it belong together is nobody's word")
	}
	if h.Begins != "" && h.Breaks && strings.HasPrefix(h.Begins, "off ") {
		line(b, "breaks", "%s", h.Begins)
	} else if h.Begins != "" {
		line(b, "begins", "%s", h.Begins)
	}
}

func (c *Chain) accountText(b *strings.Builder, h *Host, a Account) {
	if a.System != "" {
		line(b, "system", "%s", a.System)
	}
	line(b, "asked", "%s by %s, %s", whenText(a.Asked), clean(a.Requester.String()), a.Type)
	if a.UID != nil {
		line(b, "user", "%s", userText(a.User, *a.UID))
	}
	for _, p := range a.Processes {
		line(b, "process", "%d %s", p.PID, p.Command)
	}
	for _, j := range c.joinsOf[h.ID] {
		if k := c.connection(j.In); j.Token == a.Token && k.asked() {
			line(b, "came in", "%s -> %s (that the two connections belong together is this host's word alone)", k.Source, k.Destination)
		}
	}
	for _, k := range c.at[h.ID] {
		for _, q := range k.Questions {
			if q.By == a.Token && !q.asked() {
				label := "not asked"
				if q.Detail == copiesDiffer {
					label = "disputed"
				}
				line(b, label, "%s (%s)", k.Source, q.Detail)
			}
		}
	}
	if a.Gaps > 0 {
		line(b, "gaps", "%d: what could not be seen is in the report", a.Gaps)
	}
	for _, g := range a.Breaking {
		what := g.What
		if g.PID != 0 {
			what = fmt.Sprintf("[%d] %s", g.PID, g.What)
		}
		line(b, "gap", "%s: %s", what, g.Why)
	}
	if n := a.breaking - len(a.Breaking); n > 0 {
		line(b, "gap", "and %d more like these", n)
	}
	line(b, "token", "%s", a.Token)
	if a.Standing != "" {
		line(b, "standing", "%s", a.standingText())
	}
	for _, d := range a.Duplicates {
		line(b, "repeated", "%s is a duplicate", d)
	}
	switch {
	case c.atHand(a.SameAs):
		line(b, "repeated", "it says that it repeats %s, which is a report of another host or connection", a.SameAs)
	case a.SameAs != "":
		line(b, "repeated", "it was asked before: redeem %s", a.SameAs)
	}
	if a.Kind == "none" {
		line(b, "unknown", "it recorded nothing of %s: %s", c.connectionOf(a), a.Reason)
	}
}

// leavingText writes of a connection that leads away from a host, and of what became of the questions about it.
func (c *Chain) leavingText(b *strings.Builder, h *Host, k *Connection) {
	switch k.OpenedBy {
	case "to":
		line(b, "reached", "by the next host, %s -> %s", k.Destination, k.Source)
	case "disputed":
		line(b, "joined", "%s -> %s, and who opened it is disputed", k.Source, k.Destination)
	case "from":
		line(b, "opened", "%s -> %s", k.Source, k.Destination)
	default:
		line(b, "connected", "%s -> %s, and nobody says who opened it", k.Source, k.Destination)
	}
	if k.Linked == "addresses" {
		line(b, "linked", "to the next host's report by addresses and ports alone: neither has the other's token")
	}
	if k.OwnSource != "" {
		how := "as it says itself"
		switch {
		case k.Translated && k.Source != k.OwnSource && k.Destination != k.OwnDestination:
			how = "as it says itself: both ends would have been translated"
		case k.Translated:
			how = "before its addresses were translated"
		}
		line(b, "", "%s -> %s %s", k.OwnSource, k.OwnDestination, how)
	}
	told := ""
	for _, q := range k.Questions {
		if why := strings.Join(q.Reasons, ", "); why != told {
			told = why
			line(b, "named", "by the next host, for: %s", why)
		}
		switch q.Status {
		case Sealed:
			line(b, "sealed", "its token is not redeemed yet: %s", q.Token)
		case Legacy:
			line(b, "legacy", "it speaks ident only and disclosed a name: %s", q.Detail)
		case Refused:
			line(b, "refused", "it answered %s", q.Detail)
		case Missing:
			line(b, "missing", "it did not answer: %s", q.Detail)
		case Awaited:
			line(b, "missing", "it had not answered yet: redeem the token of the next host again")
		}
	}
	if o := k.Clock; o != nil {
		line(b, "clock", "%s", c.clockText(k))
	}
}

// clockText says how far the clocks of two hosts are apart, as far as one question and its answer tell.
func (c *Chain) clockText(k *Connection) string {
	o, next := k.Clock, c.host(k.To).short()
	switch {
	case o.Seconds > o.Error:
		return fmt.Sprintf("%s ahead of that of %s, give or take %s", secondsText(o.Seconds), next, secondsText(o.Error))
	case -o.Seconds > o.Error:
		return fmt.Sprintf("%s behind that of %s, give or take %s", secondsText(-o.Seconds), next, secondsText(o.Error))
	}
	return fmt.Sprintf("as that of %s, to within %s", next, secondsText(max(o.Seconds, -o.Seconds)+o.Error))
}

func userText(name string, uid uint32) string {
	if name == "" {
		return "uid " + strconv.FormatUint(uint64(uid), 10)
	}
	return fmt.Sprintf("%s (%d)", name, uid)
}
