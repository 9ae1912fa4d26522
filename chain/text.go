package chain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// Text draws the paths for a person: each on a line, then its hosts from the first to the last, with what
// is known of each, what is missing, and whom to ask next. Times are UTC.
func Text(last []*Hop) string {
	var b strings.Builder
	for _, h := range last {
		for _, path := range h.Paths() {
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			drawPath(&b, path)
		}
	}
	return b.String()
}

func drawPath(b *strings.Builder, path []*Hop) {
	var names []string
	for _, h := range path {
		names = append(names, report.Printable(h.Name()))
	}
	if to := path[len(path)-1].To; to.IsValid() {
		names = append(names, report.Printable(to.Addr().String()))
	}
	fmt.Fprintf(b, "%s\n", strings.Join(names, " -> "))
	for i, name := range names {
		fmt.Fprintf(b, "\n%d. %s", i+1, name)
		if i == len(names)-1 {
			b.WriteString(", the host that was reached")
		}
		b.WriteString("\n")
		if i < len(path) {
			drawHop(b, path[i], i == 0)
		}
	}
}

// line writes one fact of a hop.
func line(b *strings.Builder, label, format string, values ...any) {
	for i, v := range values {
		if s, ok := v.(string); ok {
			values[i] = report.Printable(s)
		}
	}
	fmt.Fprintf(b, "   %-9s %s\n", label, fmt.Sprintf(format, values...))
}

func drawHop(b *strings.Builder, h *Hop, first bool) {
	if h.Redeemed != nil {
		drawReport(b, h)
	}
	if h.To.IsValid() {
		line(b, "opened", "%s -> %s", h.From.String(), h.To.String())
	} else {
		line(b, "reached", "by %s -> %s", h.Redeemed.Report.Request.Remote.String(), h.From.String())
	}
	if len(h.Via) > 0 {
		line(b, "named", "by the next host, for: %s", strings.Join(h.Via, ", "))
	}
	if h.Token != "" {
		line(b, "token", "%s", h.Token)
	}
	switch h.Status {
	case Sealed:
		line(b, "next", "ask the administrator of %s to redeem %s", h.From.Addr().String(), h.Token)
	case Legacy:
		line(b, "legacy", "it speaks ident only and disclosed a name: %s", h.Detail)
	case Refused:
		line(b, "refused", "it answered %s", h.Detail)
	case Missing:
		line(b, "missing", "it did not answer: %s", h.Detail)
	case Awaited:
		line(b, "missing", "it had not answered yet: redeem the token of the next host again")
	case Repeated:
		line(b, "repeated", "%s", h.Detail)
	case Unknown:
		line(b, "unknown", "it recorded nothing of the connection: %s", h.Redeemed.Report.Reason)
	case Reported:
		drawNotAsked(b, h)
		if first {
			drawBeginning(b, h)
		}
	}
}

func drawReport(b *strings.Builder, h *Hop) {
	r := &h.Redeemed.Report
	if r.Host.OS != "" {
		line(b, "system", "%s", r.Host.OS)
	}
	line(b, "asked", "%s by %s, %s", r.Request.Time.UTC().Format("2006-01-02 15:04:05.000"), r.Request.Requester.String(), r.Request.Type)
	if c := r.Connection; c != nil {
		line(b, "user", "%s", userText(c.User, c.UID))
	}
	for _, p := range between(r) {
		// Daemons that write a title over their arguments pad it with blanks.
		name := strings.TrimRight(strings.Join(p.Args, " "), " ")
		if name == "" {
			name = p.Name
		}
		line(b, "process", "%d %s", p.PID, name)
	}
	for _, p := range h.Previous {
		line(b, "came in", "%s -> %s (that the two connections belong together is this host's word alone)", p.From.String(), p.To.String())
	}
	if n := len(r.Gaps); n > 0 {
		line(b, "gaps", "%d: what could not be seen is in the report", n)
	}
	breaks := breaking(r)
	for _, g := range breaks[:min(len(breaks), maxGaps)] {
		what := g.What
		if g.PID != 0 {
			what = fmt.Sprintf("[%d] %s", g.PID, g.What)
		}
		line(b, "gap", "%s: %s", what, g.Why)
	}
	if n := len(breaks) - maxGaps; n > 0 {
		line(b, "gap", "and %d more like these", n)
	}
}

// maxGaps is how many gaps of a host are drawn.
const maxGaps = 10

// breaking returns the gaps behind which a way further back may lie.
func breaking(r *report.Report) []host.Gap {
	var gaps []host.Gap
	for _, g := range r.Gaps {
		if bounded(g) || g.What == "owners" || g.What == "trace" {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

// bounded reports whether a gap is what a bound left out.
func bounded(g host.Gap) bool { return strings.HasPrefix(g.Why, "bound: ") }

// drawNotAsked lists the candidates that were not asked, and why.
func drawNotAsked(b *strings.Builder, h *Hop) {
	for _, t := range h.Redeemed.Traceback {
		if !t.Asked {
			line(b, "not asked", "%s (%s)", endText(t.Previous.Remote), strings.TrimPrefix(t.Error, "not asked: "))
		}
	}
}

// drawBeginning says why a path begins where it does.
func drawBeginning(b *strings.Builder, h *Hop) {
	r := h.Redeemed
	switch {
	case r.Report.Request.SID == "":
		line(b, "begins", "here, as nobody asked the host to follow the connection back (%s)", r.Report.Request.Type)
	case len(r.Report.Previous) == 0 && blind(&r.Report):
		line(b, "breaks", "off here: the host could not see who holds the connection")
	case len(r.Report.Previous) == 0 && len(breaking(&r.Report)) > 0:
		line(b, "breaks", "off here: the trace stopped at a bound")
	case len(r.Report.Previous) == 0:
		line(b, "begins", "here, as far as the host could see: no connection leads further back")
	case len(r.Traceback) == 0:
		for _, p := range r.Report.Previous {
			line(b, "candidate", "%s, for: %s", endText(p.Remote), strings.Join(p.Reasons, ", "))
		}
		line(b, "begins", "here, as the host has no record of whom it asked")
	}
}

// blind reports whether the host does not know who holds the connection.
func blind(r *report.Report) bool {
	return r.Connection == nil || len(r.Connection.Owners) == 0 ||
		slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.What == "owners" })
}

// endText writes an end of a connection; a host known by a login alone has no port.
func endText(ap netip.AddrPort) string {
	if ap.Port() == 0 {
		return ap.Addr().String()
	}
	return ap.String()
}

// between returns the processes that hold the asked connection or, on the way from it, one with another
// host: the rest of the report is for the one who reads it.
func between(r *report.Report) []trace.Process {
	var ps []trace.Process
	for _, p := range r.Processes {
		if p.Via.By == trace.ByOwner {
			ps = append(ps, p)
			continue
		}
		for _, d := range p.Descriptors {
			if d.Kind == host.TCP && isPrevious(r, d) {
				ps = append(ps, p)
				break
			}
		}
	}
	return ps
}

func isPrevious(r *report.Report, d host.Descriptor) bool {
	for _, p := range r.Previous {
		if p.Remote == d.Remote && p.Local == d.Local {
			return true
		}
	}
	return false
}

func userText(name string, uid uint32) string {
	if name == "" {
		return "uid " + strconv.FormatUint(uint64(uid), 10)
	}
	return fmt.Sprintf("%s (%d)", name, uid)
}
