package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// A Statement is something that is proven, and by what; or that is not, and whose word it is.
type Statement struct {
	What string `json:"what"`
	By   string `json:"by"`
}

// Text says in words what a bundle proves and what not.
func (v *Verdict) Text() string {
	w := &writer{}
	b := v.Bundle
	w.paragraph("", "%s", v.subject())
	w.paragraph("", "Token: %s", b.Token)
	if b.Log != "" {
		w.paragraph("", "Log: %s", report.Printable(b.Log))
	}
	w.heading("PROVEN")
	for i, s := range v.Proven() {
		w.paragraph(fmt.Sprintf("%d. ", i+1), "%s", s.What)
		w.paragraph("   ", "By: %s", s.By)
	}
	w.heading("CUSTODY, AS THE LOG HAS IT")
	for _, s := range v.custody() {
		w.paragraph("- ", "%s %s", s.What, s.By)
	}
	w.heading("NOT PROVEN")
	for _, s := range v.NotProven() {
		w.paragraph("- ", "%s %s", s.What, s.By)
	}
	w.heading("RESULT")
	w.paragraph("", "%s", v.conclusion())
	return w.b.String()
}

// subject says what the bundle is about.
func (v *Verdict) subject() string {
	r, err := report.Decode(v.Bundle.Report)
	if err != nil {
		return "A report in a form that this program does not know."
	}
	q := r.Request
	asked := fmt.Sprintf("the host %s about its connection between %s and %s, asked by %s on %s", name(r.Host.Name), q.Local, q.Remote, q.Requester, when(q.Time))
	if q.OnBehalf {
		asked += " on behalf of another host"
	}
	switch r.Kind {
	case report.KindID:
		return "Who owns the connection (a name alone was asked for): a report of " + asked + "."
	case report.KindDuplicate:
		return "A note that a question was asked before, and is answered by the report of the token " + report.Printable(r.SameAs) + ": by " + asked + "."
	case report.KindNone:
		return "A note that nothing was saved (" + report.Printable(r.Reason) + "): by " + asked + "."
	}
	return "A report of " + asked + "."
}

// Proven lists what follows from the octets of the bundle and the keys of the policy, whoever made the bundle.
func (v *Verdict) Proven() []Statement {
	b := v.Bundle
	all := []Statement{{
		"The report in this bundle is the one that the token names. A report that differs in one octet has another token.",
		fmt.Sprintf("the SHA-256 of the report's %d octets, which is the token.", len(b.Report)),
	}}
	for _, r := range b.Records {
		if evidenceOf(r) {
			all = append(all, v.existed(r)...)
		}
	}
	if _, ok := v.Standing[b.last().Number]; ok {
		all = append(all, Statement{
			fmt.Sprintf("Nobody without the key of the log left out or added anything since it was let out: these are the report, %s and the custody that were let out with the redemption of %s.",
				count(len(b.Tracebacks), "trace-back record"), when(b.last().Time)),
			fmt.Sprintf("the record of that redemption, which has their number and hash: %s.", v.logged(b.last())),
		})
	}
	for _, c := range b.Custody {
		if key, ok := v.Signed[c.Number]; ok {
			s := Statement{
				fmt.Sprintf("A request that names this token was signed: redemption-%d.request, kept with the redemption of %s.", c.Number, when(c.Time)),
				fmt.Sprintf("its signature with the key %s", key),
			}
			if v.Allowed {
				s.By += fmt.Sprintf(", which the list of allowed signers gives to %s.", report.Printable(c.By))
			} else {
				s.By += ". Whose key that is was not asked for."
			}
			all = append(all, s)
		}
	}
	return all
}

// existed says when a report or trace-back was there at the latest.
func (v *Verdict) existed(r Record) []Statement {
	what := "The report"
	if r.Type == "traceback" {
		what = fmt.Sprintf("What was recorded of the answers of previous hosts (traceback-%d.json)", r.Number)
	}
	s, ok := v.Standing[r.Number]
	switch {
	case !ok || !s.Met:
		return nil
	case s.By.IsZero():
		return []Statement{{
			fmt.Sprintf("%s is record %d of the log.", what, r.Number),
			"the log's signature, with the key that the policy gives. The policy asks for no witness: whoever has that key can have made all of it at any time.",
		}}
	}
	return []Statement{{
		fmt.Sprintf("%s existed no later than %s, and was not changed since.", what, when(s.By)),
		fmt.Sprintf("%s had then signed a state of the log that has it as record %d: %s. That is enough for the policy.",
			v.signers(s), r.Number, cosigners(s, s.By)),
	}}
}

// signers counts the witnesses that had signed when there were enough.
func (v *Verdict) signers(s translog.Standing) string {
	n := 0
	for _, c := range s.Cosignatures {
		if !c.Time.After(s.By) {
			n++
		}
	}
	return fmt.Sprintf("%d of the %s that the policy names", n, count(v.Witnesses, "witness"))
}

func cosigners(s translog.Standing, by time.Time) string {
	var names []string
	for _, c := range s.Cosignatures {
		if !c.Time.After(by) {
			names = append(names, fmt.Sprintf("%s (%s)", report.Printable(c.Witness), when(c.Time)))
		}
	}
	return strings.Join(names, ", ")
}

// logged says what speaks for a record of custody.
func (v *Verdict) logged(r Record) string {
	at := fmt.Sprintf("record %d of the log", r.Number)
	switch s, ok := v.Standing[r.Number]; {
	case ok && s.Met && !s.By.IsZero():
		return fmt.Sprintf("%s, which witnesses had signed by %s", at, when(s.By))
	case ok:
		return at + ", which the log's key signed, and no witness yet"
	}
	return at + ", by the word of whoever made the bundle"
}

// custody lists who had to do with the evidence, as the records of the host say.
func (v *Verdict) custody() []Statement {
	var all []Statement
	records := map[uint64]Record{}
	for _, r := range v.Bundle.Records {
		records[r.Number] = r
	}
	for _, c := range v.Bundle.Custody {
		signed := ""
		if key, ok := v.Signed[c.Number]; ok {
			signed = ", with which a request signed with " + key + " was handed in"
		}
		all = append(all, Statement{
			fmt.Sprintf("%s: %s by %s, for %q: %s%s.", when(c.Time), c.Act, report.Printable(c.By), c.Reason, report.Printable(c.Outcome), signed),
			sentence(v.logged(records[c.Number])),
		})
	}
	return all
}

// NotProven lists what a reader might take for proven, and is not.
func (v *Verdict) NotProven() []Statement {
	b := v.Bundle
	var all []Statement
	add := func(what, by string) { all = append(all, Statement{what, by}) }
	by := v.By("report")
	if by.IsZero() {
		add("That the report existed at any time before this bundle was made.", "Nobody outside the host vouches for that.")
	}
	if _, ok := v.Standing[b.last().Number]; !ok {
		add("That nothing was left out or added.", "The record of the last redemption says so, but no key was given that would speak for that record.")
	} else {
		add("That the host let out all that it had.", "Whoever has the key of its log can have let out less and recorded that.")
	}
	v.unvouched(add)
	add("That the host saw what it says it saw.", "It is the host's own word. Whoever controlled the host when the report was made can have had it say anything.")
	r, err := report.Decode(b.Report)
	if _, ok := v.Standing[b.last().Number]; ok && err == nil {
		add(fmt.Sprintf("That the log %s is that of the host %s.", report.Printable(b.Log), name(r.Host.Name)), "A policy of several logs says whose each is, and not what may be in it."+foreign(b.Log, r.Host.Name))
	}
	add("When the report was made, and how long before it was proven to exist.", "Its times are of the host's own clock"+clock(r.Host.Clock)+"."+v.ahead(by))
	add("That connections which the report joins within the host belong together.", "The join inside each host is that host's word alone.")
	add("Who a person is.", "The report names accounts, and where sessions came from by what the host recorded of it.")
	switch {
	case len(b.Tracebacks) > 0:
		add("That what previous hosts answered is true, or was answered by them.", "It is their word, as this host recorded it; what their tokens stand for is with them.")
	case err == nil && strings.HasSuffix(r.Request.Type, "_REC"):
		add("What previous hosts answered.", "The question was a recursive one, and no trace-back record was there when the host let the report out: it comes some seconds "+
			"after the reply, or was lost.")
	}
	add("That those who are named in the custody are who they say, and that nobody else saw the report.",
		"Names and reasons are what was typed on the host; what a signed request asks for and why, its text says. Whoever has the administrator's key and a copy of the store can open it without a record.")
	add("That a record of custody or of a trace-back has one content only.", "A host that was in an intruder's hands when it wrote one can have prepared two, and shown this one. Of the report there is one.")
	if len(v.Signed) > 0 {
		add("When a request was signed, and for which redemption.", "A signature has no time, and whoever has a request can hand it in again.")
	}
	for _, number := range slices.Sorted(maps.Keys(v.Bad)) {
		add(fmt.Sprintf("The request of the redemption in record %d.", number), fmt.Sprintf("It is not good: %s.", report.Printable(v.Bad[number].Error())))
	}
	add("Who packed this bundle, with what and when.", fmt.Sprintf("It says itself: %s, %s.", report.Printable(b.Agent), b.Day))
	return all
}

// unvouched lists the trace-back records for which the policy has nobody vouch.
func (v *Verdict) unvouched(add func(what, by string)) {
	for _, r := range v.Bundle.Records {
		if s, ok := v.Standing[r.Number]; ok && r.Type == "traceback" && !s.Met {
			add(fmt.Sprintf("That traceback-%d.json existed at any time before this bundle was made.", r.Number), "Too few of the witnesses whom the policy asks for have signed a state of the log that has it.")
		}
	}
	if n := len(v.Bundle.Tracebacks); n > 1 {
		add("Any trace-back record but the first.", fmt.Sprintf("A host writes one: the first of the %d that can be read counts, and whoever had the host in his hands can have added the others.", n))
	}
}

// foreign says where a log is not called after a host.
func foreign(log, host string) string {
	if host == "" || strings.HasPrefix(log, host+"/") {
		return ""
	}
	return " This one is not called after that host: another can have put the report into its own log."
}

// conclusion is the verdict in a sentence or two.
func (v *Verdict) conclusion() string {
	switch v.Result {
	case Met:
		if !v.Witnessed {
			return "The policy is met. It asks for no witness: nobody outside vouches for what this bundle says."
		}
		return fmt.Sprintf("The policy is met: the report existed no later than %s.", when(v.By("report")))
	case Consistent:
		return sentence(v.Short()) + " Give the policy, with the keys of the log and its witnesses, that you have from elsewhere than this bundle."
	}
	if by := v.By("report"); v.Result == Unmet && !by.IsZero() {
		return fmt.Sprintf("The report existed no later than %s, by enough witnesses for the policy. Not all of the bundle did: %s", when(by), sentence(report.Printable(v.Why)))
	}
	return sentence(v.Short())
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// clock says what a host says of its clock, as the end of a sentence.
func clock(c *host.Clock) string {
	switch {
	case c == nil:
		return ""
	case !c.Synchronised:
		return ", which was not synchronised, by the host's word"
	}
	return fmt.Sprintf(", which was synchronised to within %.3f s, by the host's word", c.Error)
}

// ahead says where the host's clock contradicts those of the witnesses: they had signed before the report was written.
func (v *Verdict) ahead(by time.Time) string {
	if kept := v.Bundle.Kept; !by.IsZero() && kept.After(by.Add(time.Second)) { // theirs are to the second
		return fmt.Sprintf(" It was ahead of the witnesses' clocks: by it the report was written on %s.", when(kept))
	}
	return ""
}

func when(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func name(s string) string {
	if s == "" {
		return "without a name"
	}
	return fmt.Sprintf("%q", s)
}

// count says how many there are of something.
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	if strings.HasSuffix(of, "s") {
		return fmt.Sprintf("%d %ses", n, of)
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// A writer fills lines.
type writer struct{ b strings.Builder }

const width = 100

func (w *writer) heading(text string) { fmt.Fprintf(&w.b, "\n%s\n", text) }

// paragraph writes text behind a lead, in lines of at most width where words let it.
func (w *writer) paragraph(lead, format string, values ...any) {
	line := lead
	indent := strings.Repeat(" ", len(lead))
	for i, word := range strings.Fields(fmt.Sprintf(format, values...)) {
		switch {
		case i == 0:
			line += word
		case len(line)+1+len(word) > width:
			w.b.WriteString(line + "\n")
			line = indent + word
		default:
			line += " " + word
		}
	}
	w.b.WriteString(line + "\n")
}
