package chain

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
)

// A contradiction is one in the making.
type contradiction struct {
	kind  string
	nodes []*node
	link  *link
	token string // whose host it is about, where there are no nodes
	text  string
}

// compare looks for what the reports of the two ends of a connection say differently.
func (b *builder) compare() {
	for _, l := range b.links {
		for _, q := range l.questions {
			if q.answer != nil {
				b.answered(l, q)
			}
		}
		if l.linked == "" && len(l.own) > 0 && (len(l.ends) > 0 || len(l.questions) > 0) {
			l.linked = "addresses"
		}
		b.opened(l)
	}
}

func (b *builder) against(l *link, kind, format string, args ...any) {
	c := contradiction{kind: kind, nodes: []*node{l.from, l.to}, link: l, text: fmt.Sprintf(format, args...)}
	if !slices.ContainsFunc(b.told, func(d contradiction) bool { return d.link == l && d.text == c.text }) {
		b.told = append(b.told, c)
	}
}

// answered compares what one host asked with what the other says that it was asked.
func (b *builder) answered(l *link, q question) {
	p, r := q.answer, q.by
	e := q.record.Previous
	asked, asker := named(p.node), named(r.node)
	if !agree(p, e) && !translated(p, e) {
		near, remote := p.ends()
		b.against(l, AboutAddress, "%s was asked about %s -> %s, says %s; its token is about %s -> %s", asked,
			endText(e.Remote), endText(e.Local), asker, endText(near), endText(remote))
	}
	if from := p.Report.Request.Requester.Unmap(); !onBehalf(q) && from.IsValid() && public(from) && public(e.Local.Addr().Unmap()) && from != e.Local.Addr().Unmap() {
		b.against(l, AboutRequest, "%s says that %s asked it; %s asked from %s", asked, from, asker, e.Local.Addr().Unmap())
	}
	b.request(l, q, asked, asker)
	b.bytes(l, q, asked, asker)
	b.times(l, q, asked, asker)
}

// onBehalf reports whether a host was asked on behalf of the other end: the one that asks has another address.
func onBehalf(q question) bool {
	sent, err := stop.ParseRequest([]byte(q.record.Request))
	return err == nil && sent.For.IsValid()
}

// request compares type and session number.
func (b *builder) request(l *link, q question, asked, asker string) {
	sent, err := stop.ParseRequest([]byte(q.record.Request))
	if err != nil {
		return
	}
	got := q.answer.Report.Request
	if t := sent.Type.String(); t != got.Type {
		b.against(l, AboutRequest, "%s was asked %s, says %s; %s says %s", asked, clean(t), asker, asked, clean(got.Type))
	}
	if sid := fmt.Sprint(sent.SID); sent.Type.Recursive() && got.SID != sid {
		b.against(l, AboutRequest, "%s was asked in session %s, says %s; %s says %s", asked, sid, asker, asked, clean(got.SID))
	}
}

// uncounted is how many octets a system may count that are none: a SYN and a FIN.
const uncounted = 2

// bytes compares what one end has sent with what the other received. The host that was asked looked later: what had come
// to its neighbour it had sent by then, and what its neighbour knew to have arrived it had received.
func (b *builder) bytes(l *link, q question, asked, asker string) {
	c := q.answer.Report.Connection
	if c == nil || c.Bytes == (host.Bytes{}) || q.candidate == nil || q.candidate.Bytes == (host.Bytes{}) {
		return
	}
	later, before := c.Bytes, q.candidate.Bytes
	if before.Received > uncounted && later.Sent < before.Received-uncounted {
		b.against(l, AboutBytes, "%s says that it had sent %d octets, of which %s had received %d before", asked, later.Sent, asker, before.Received)
	}
	if before.Acknowledged > uncounted && later.Received < before.Acknowledged-uncounted {
		b.against(l, AboutBytes, "%s says that it had received %d octets, of which %s had known %d to arrive before", asked, later.Received, asker, before.Acknowledged)
	}
}

// times compares when a host says that it was asked with when the other says that it asked.
func (b *builder) times(l *link, q question, asked, asker string) {
	o := ahead(q)
	if o == nil {
		return
	}
	p, r := q.answer.Report.Host.Clock, q.by.Report.Host.Clock
	if p != nil && r != nil && p.Synchronised && r.Synchronised && finite(p.Error) && finite(r.Error) {
		if allowed := o.Error + math.Abs(p.Error) + math.Abs(r.Error); math.Abs(o.Seconds) > allowed {
			b.against(l, AboutTime, "%s says that it was asked at %s, %s asked from %s to %s: %s between two clocks that are both said to be right",
				asked, clockText(q.answer.Report.Request.Time), asker, clockText(q.record.Sent), clockText(q.record.Answered), secondsText(math.Abs(o.Seconds)))
		}
	}
	// Whatever the clocks say, a connection was open before it was asked about.
	if c := q.answer.of.Report.Connection; c != nil && !c.Opened.IsZero() {
		opened := c.Opened.Add(-seconds(o.Seconds - o.Error))
		if late := opened.Sub(q.record.Sent); late > 2*seconds(o.Error) && late > 0 {
			b.against(l, AboutTime, "%s says that the connection was opened at %s, after %s had asked about it", asked, clockText(c.Opened), asker)
		}
	}
}

// ahead estimates how far the clock of the host that was asked is ahead of the one that asked: it was asked
// after the question was sent and before the answer came.
func ahead(q question) *Offset {
	at, sent, answered := q.answer.Report.Request.Time, q.record.Sent, q.record.Answered
	if at.IsZero() || sent.IsZero() || answered.Before(sent) {
		return nil
	}
	half := answered.Sub(sent) / 2
	return &Offset{Seconds: at.Sub(sent.Add(half)).Seconds(), Error: half.Seconds()}
}

// opened compares who opened a connection. That somebody listens at a port is a hint and contradicts nobody.
func (b *builder) opened(l *link) {
	from, to := l.saidBy()
	if slices.ContainsFunc(l.own, func(a *account) bool {
		return a.Report.Connection != nil && a.Report.Connection.DirectionSource == host.FromListener
	}) || slices.ContainsFunc(l.questions, question.hint) {
		return
	}
	if from == "from" && to == "to" {
		b.against(l, AboutDirection, "%s says that it opened the connection, and so does %s", named(l.from), named(l.to))
	}
	if from == "to" && to == "from" {
		b.against(l, AboutDirection, "%s says that %s opened the connection, and %s that %s did", named(l.from), named(l.to), named(l.to), named(l.from))
	}
}

// saidBy returns which host opened a connection by the word of the host that it comes from, and of the one that it
// leads to: "from", "to", or "unknown".
func (l *link) saidBy() (from, to string) {
	from, to = "unknown", "unknown"
	say := func(was *string, d host.Direction, outbound, inbound string) {
		if *was != "unknown" {
			return
		}
		switch d {
		case host.Outbound:
			*was = outbound
		case host.Inbound:
			*was = inbound
		}
	}
	for _, a := range l.own {
		say(&from, direction(&a.Report), "from", "to")
	}
	for _, a := range l.ends {
		say(&to, direction(&a.Report), "to", "from")
	}
	for _, q := range l.questions {
		say(&to, q.direction(), "to", "from")
	}
	return from, to
}

// hint reports whether the direction of a candidate was not told by the system.
func (q question) hint() bool {
	for _, p := range q.by.Report.Processes {
		for _, d := range p.Descriptors {
			if d.Remote == q.record.Previous.Remote && d.Local == q.record.Previous.Local {
				return d.DirectionSource == host.FromListener
			}
		}
	}
	return false
}

func (l *link) openedBy() string {
	from, to := l.saidBy()
	switch {
	case from == to || to == "unknown":
		return from
	case from == "unknown":
		return to
	}
	return "disputed"
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// seconds is a duration, as long as there are any at most.
func seconds(f float64) time.Duration {
	return time.Duration(max(min(f*float64(time.Second), math.MaxInt64/4), math.MinInt64/4))
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }

func whenText(t *time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return clockText(*t)
}

// secondsText writes a time as short as it can be told.
func secondsText(f float64) string {
	switch d := seconds(f).Abs(); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.3f s", f)
	case d < time.Hour:
		return d.Round(time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}

// endText writes an end of a connection; a host known by a login alone has no port.
func endText(ap netip.AddrPort) string {
	switch {
	case !ap.IsValid():
		return "unknown"
	case ap.Port() == 0:
		return clean(ap.Addr().Unmap().String())
	}
	return clean(unmap(ap).String())
}

// named is what to call a host in words.
func named(n *node) string {
	for _, a := range n.accounts {
		if a.Report.Host.Name != "" {
			return clean(a.Report.Host.Name)
		}
	}
	for _, a := range sortedAddresses(n) {
		return clean(a.String())
	}
	return "a host without an address"
}
