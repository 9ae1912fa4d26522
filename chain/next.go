package chain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/stopd/stopd/report"
)

var actions = []string{ToRedeem, ToAsk, ToInquire, ToCompare}

// next says what to ask whom next, what leads furthest first.
func (c *Chain) next() {
	for i := range c.Hosts {
		h := &c.Hosts[i]
		for _, a := range h.Reports {
			c.afterReport(h, a)
		}
		if h.Unjoined {
			c.step(h, ToInquire, "", "ask the administrator of %s what joins the connections that come to it and lead away from it: no report says that they belong together", h.Label())
		}
		if h.Begins != "" {
			c.afterBeginning(h)
		}
	}
	for i := range c.Connections {
		for _, q := range c.Connections[i].Questions {
			c.afterQuestion(&c.Connections[i], q)
		}
	}
	for i := range c.Connections {
		c.afterContradiction(&c.Connections[i])
	}
	slices.SortStableFunc(c.Next, func(x, y Step) int {
		return cmp.Compare(slices.Index(actions, x.Action), slices.Index(actions, y.Action))
	})
	if n := len(c.Next) - maxTold; n > 0 {
		c.Next = c.Next[:maxTold]
		c.Omitted = append(c.Omitted, Omission{"steps", n})
	}
}

func (c *Chain) step(h *Host, action, token, format string, args ...any) {
	s := Step{h.ID, action, token, fmt.Sprintf(format, args...)}
	if !slices.Contains(c.Next, s) {
		c.Next = append(c.Next, s)
	}
}

// afterContradiction asks for a third witness.
func (c *Chain) afterContradiction(k *Connection) {
	var about []string
	for _, x := range c.about[k.ID] {
		about = append(about, strconv.Itoa(x.ID))
	}
	if len(about) > 0 {
		c.step(c.host(k.From), ToCompare, "", "compare what %s and %s say of %s -> %s with what a third one recorded of it, such as flow records of the network between them (contradiction %s)",
			c.host(k.From).Label(), c.host(k.To).Label(), k.Source, k.Destination, strings.Join(about, " and "))
	}
}

func (c *Chain) afterReport(h *Host, a Account) {
	if a.outvouched {
		c.step(h, ToRedeem, a.Token, "make a bundle of %s: as it is, it is not taken for the word of %s, of which one is at hand", a.Token, h.Label())
		return
	}
	if a.stale {
		c.step(h, ToRedeem, a.Token, "make a bundle of %s anew: a copy for which less speaks has more answers", a.Token)
	}
	switch a.Kind {
	case report.KindDuplicate:
		if c.atHand(a.SameAs) {
			c.step(h, ToInquire, "", "ask the administrator of %s what its own logs have of %s: it says that its report is that of another host or connection", h.Label(), c.connectionOf(a))
			break
		}
		c.step(h, ToRedeem, a.SameAs, "ask the administrator of %s to redeem %s: %s is a duplicate of it", h.Label(), a.SameAs, a.Token)
	case report.KindNone:
		k := c.connectionOf(a)
		c.step(h, ToInquire, "", "ask the administrator of %s what its own logs have of %s: it recorded nothing (%s)", h.Label(), k, a.Reason)
	}
}

// atHand reports whether there is a report with a token.
func (c *Chain) atHand(token string) bool {
	return slices.ContainsFunc(c.Hosts, func(h Host) bool {
		return slices.ContainsFunc(h.Reports, func(a Account) bool { return a.Token == token })
	})
}

// connectionOf writes the connection that a report is about.
func (c *Chain) connectionOf(a Account) string {
	if a.out == 0 {
		return endText(a.redeemed.Report.Request.Local) + " -> " + endText(a.redeemed.Report.Request.Remote)
	}
	k := c.connection(a.out)
	return k.Source + " -> " + k.Destination
}

func (c *Chain) afterBeginning(h *Host) {
	for _, a := range h.Reports {
		r := &a.redeemed.Report
		switch {
		case a.Kind == report.KindNone || a.Kind == report.KindDuplicate:
		case r.Request.SID == "":
			c.step(h, ToAsk, "", "ask %s again with SV_REC about %s: it was not asked to follow the connection back", h.Label(), c.connectionOf(a))
		case len(r.Previous) > 0:
			// Its candidates have steps of their own.
		case h.Breaks:
			c.step(h, ToInquire, "", "ask the administrator of %s for logs of %s: the host could not see where %s came from", h.Label(), a.at(), c.connectionOf(a))
		default:
			who := "who sat at it"
			if a.UID != nil {
				who = "who " + userText(a.User, *a.UID) + " was, and from where that user logged in"
			}
			c.step(h, ToInquire, "", "ask the administrator of %s %s at %s", h.Label(), who, a.at())
		}
	}
}

func (a Account) at() string { return whenText(a.Asked) + " UTC" }

func (c *Chain) afterQuestion(k *Connection, q Question) {
	from, to := c.host(k.From), c.host(k.To)
	ends := k.Source + " -> " + k.Destination
	if slices.Contains(k.ToldBy, "from") && q.Status != Sealed {
		return // its own report is at hand, however it came
	}
	switch q.Status {
	case Sealed:
		c.step(from, ToRedeem, q.Token, "ask the administrator of %s to redeem %s", from.Label(), q.Token)
	case Awaited:
		c.step(to, ToRedeem, q.By, "redeem %s of %s again: %s had not answered when its record was made", q.By, to.Label(), from.Label())
	case Legacy:
		c.step(from, ToInquire, "", "ask the administrator of %s who the user is that its ident daemon named for %s, and from where that user came: %s", from.Label(), ends, q.Detail)
	case Refused:
		c.step(from, ToInquire, "", "ask the administrator of %s what its own logs have of %s: it answered %s", from.Label(), ends, q.Detail)
	case Missing:
		c.step(from, ToInquire, "", "ask the administrator of %s what its own logs have of %s%s: it did not answer", from.Label(), ends, q.when())
	case NotAsked:
		if q.Detail == copiesDiffer {
			c.step(to, ToRedeem, q.By, "redeem %s of %s again, as a bundle: the copies of its record do not agree what became of %s", q.By, to.Label(), ends)
			break
		}
		switch local, remote := k.src.Port(), k.dst.Port(); {
		case local == 0 || remote == 0:
			c.step(from, ToInquire, "", "ask the administrator of %s for logs of its connection with %s: it was not asked (%s)", from.Label(), to.Label(), q.Detail)
		case k.OpenedBy == "to":
			c.step(from, ToInquire, "", "ask the administrator of %s, if it may know, about %s: it was not asked (%s)", from.Label(), ends, q.Detail)
		default:
			behalf := ""
			if to.NAT && !slices.Contains(to.Addresses, k.dst.Addr()) { // its connection is with another host than the gateway
				behalf = "-for " + k.dst.Addr().String() + " "
			}
			c.step(from, ToAsk, "", "on %s, stopctl request -type SV_REC %s%s %d %d: it was not asked (%s)", to.Label(), behalf, from.address(), local, remote, q.Detail)
		}
	}
}

func (q Question) when() string {
	if q.Sent == nil {
		return ""
	}
	return " at " + whenText(q.Sent) + " UTC"
}
