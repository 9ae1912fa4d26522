package examine

import (
	"errors"
	"slices"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// forwarded returns the connection that a question is about, of those that an error says the host passes on or has passed on;
// false where there is none, or it cannot be told.
func forwarded(q stop.Question, err error) (host.Forwarded, bool) {
	f := (*host.ForwardedError)(nil)
	if !errors.As(err, &f) {
		return host.Forwarded{}, false
	}
	return meant(f, q.Time)
}

// meant chooses of connections that had the same ends the one that was asked about at a time. That which is there now is
// meant if it was there by then. Where nothing came back on it, others may have been forgotten, another machine, or the host itself, had the ends a while ago, and that cannot be told, or neither has the
// connection any more, none is: the question may be about either.
func meant(f *host.ForwardedError, at time.Time) (host.Forwarded, bool) {
	now := f.Seen[0]
	if f.Live && !now.Opened.IsZero() && !now.Opened.After(at) {
		return now, true
	}
	others := slices.ContainsFunc(f.Seen, func(f host.Forwarded) bool { return f.Original.Local.Addr() != now.Original.Local.Addr() })
	return now, !others && f.Own == nil && f.Doubt == ""
}

// passedIn reports whether connections that the host passes on were opened by the other end, so that the host is not who answers for them.
func passedIn(q stop.Question, err error) bool {
	if one, ok := forwarded(q, err); ok {
		return one.Direction == host.Inbound
	}
	f := (*host.ForwardedError)(nil)
	return errors.As(err, &f) && (f.Own == nil || f.Own.Direction == host.Inbound) &&
		!slices.ContainsFunc(f.Seen, func(x host.Forwarded) bool { return x.Direction != host.Inbound })
}

// unowned reports what is known of a connection of nobody on this host. A machine that the host passes it on for is the
// previous host, and whether that has to be asked on behalf of the other end is returned: it is where the machine has no connection with this
// host, and where the machine did not open it.
func (x *Examiner) unowned(q stop.Question, err error, r *report.Report) (onBehalf bool) {
	r.Gaps = append(r.Gaps, host.Gap{What: "connection", Why: err.Error()})
	f, ok := forwarded(q, err)
	if !ok {
		several := (*host.ForwardedError)(nil)
		if errors.As(err, &several) && several.Doubt != "" {
			r.Gaps = append(r.Gaps, host.Gap{What: "connection", Why: several.Doubt + ": none is asked"})
		} else if several != nil {
			r.Gaps = append(r.Gaps, host.Gap{What: "connection", Why: "several machines have had it one after another, and which of them is meant cannot be told: none is asked"})
		}
		return false
	}
	r.Forwarded = &f
	if q.Type == stop.ID && !x.Forwards {
		return false
	}
	p := trace.Previous{Remote: f.Original.Local, Local: f.Original.Remote, Direction: host.Inbound,
		Reasons: []string{trace.ReasonInbound, trace.ReasonNAT}, Corroborated: true, NetNS: f.NetNS}
	switch f.Direction {
	case host.Inbound:
		p.Direction, p.Reasons = host.Outbound, []string{trace.ReasonNAT}
	case host.UnknownDirection:
		p.Direction, p.Reasons = host.UnknownDirection, []string{trace.ReasonUnknownDirection, trace.ReasonNAT}
	}
	r.Previous = []trace.Previous{p}
	return f.Direction != host.Outbound || !slices.Contains(r.Host.Addresses, f.Original.Remote.Addr())
}
