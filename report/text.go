package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// Text shows a report as Appendix B of the thesis does: its sections, order and words. What the thesis
// did not save follows in the same style. There is a line only for what is known. Times are UTC.
func Text(r Report) string {
	t := &texter{}
	t.line("- BEGIN -")
	t.host(r)
	t.request(r)
	if len(r.Processes) > 0 {
		t.processes(r.Processes)
	}
	t.users(r.Users)
	t.channels(r.Channels)
	t.previous(r.Previous)
	t.gaps(r)
	t.line("- END -")
	return t.b.String()
}

type texter struct{ b strings.Builder }

// line writes one line. Strings among the values may have been chosen by an intruder: they are cleaned.
func (t *texter) line(format string, values ...any) {
	for i, v := range values {
		if s, ok := v.(string); ok {
			values[i] = Printable(s)
		}
	}
	fmt.Fprintf(&t.b, format+"\n", values...)
}

func (t *texter) section(name string) { t.line("\n%s\n", name) }

// known writes a line if there is something to say.
func (t *texter) known(label, value string) {
	if value != "" {
		t.line("%s: %s", label, value)
	}
}

// Printable escapes what is not printable, so that no name can draw on a terminal or forge a line. Octets that
// are not UTF-8 are among it: a terminal may take 0x9b for an escape sequence.
func Printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("Mon Jan 2 15:04:05 2006")
}

func (t *texter) host(r Report) {
	t.section("HOST INFORMATION")
	h := r.Host
	t.known("Name", h.Name)
	t.known("Boot", when(h.BootTime))
	t.known("OS", words(h.OS, h.Release))
	if h.Kernel != "" {
		t.line("%s", h.Kernel)
	}
	if c := h.Clock; c != nil {
		state := "not synchronised"
		if c.Synchronised {
			state = "synchronised"
		}
		t.line("Clock: %s, offset %.6f s, error %.6f s", state, c.Offset, c.Error)
	}
	t.known("Architecture", h.Arch)
	var addresses []string
	for _, a := range h.Addresses {
		addresses = append(addresses, addrText(a))
	}
	t.known("Addresses", strings.Join(addresses, ", "))
	t.known("Tool", words(r.Tool.Name, r.Tool.Version))
	t.known("Not saved", strings.Join(r.Tool.GroupsOff, ", "))
}

// words joins what is known.
func words(ss ...string) string {
	return strings.Join(slices.DeleteFunc(ss, func(s string) bool { return s == "" }), " ")
}

func (t *texter) request(r Report) {
	t.section("REQUEST INFORMATION")
	q := r.Request
	t.known("Date", when(q.Time))
	t.known("Remote", addrPortText(q.Remote))
	t.known("Local", addrPortText(q.Local))
	t.known("Requester", addrText(q.Requester))
	t.known("Type", q.Type)
	t.known("Session", q.SID)
	if q.OnBehalf {
		t.line("On behalf of: %s", addrText(q.Remote.Addr()))
	}
	if c := r.Connection; c != nil {
		t.known("State", c.State)
		source := string(c.DirectionSource)
		if source != "" {
			source = "(by " + source + ")"
		}
		t.known("Direction", words(string(c.Direction), source))
		t.line("User: %s", userText(c.User, c.UID))
		t.known("Owners", ownersText(c.Owners))
		if n := c.NAT; n != nil && n.Original != nil {
			t.line("Translated by this host from: %s -> %s", addrPortText(n.Original.Local), addrPortText(n.Original.Remote))
		}
		if c.NetNS != 0 && c.NetNS != r.Host.NetNS && r.Host.NetNS != 0 || c.NAT != nil {
			t.line("Network namespace: %d", c.NetNS)
		}
	}
	if f := r.Forwarded; f != nil {
		t.forwarded(*f)
	}
	switch r.Kind {
	case KindDuplicate:
		t.line("Duplicate of: %s", r.SameAs)
	case KindNone:
		t.line("Nothing saved: %s", r.Reason)
	}
}

// forwarded shows a connection that the host passes on: the machine that has it is on the left.
func (t *texter) forwarded(f host.Forwarded) {
	t.line("Passed on by this host (NAT) for: %s %s %s", addrPortText(f.Original.Local), arrowOf(f.Direction), addrPortText(f.Original.Remote))
	t.known("State", f.State)
	t.known("Opened", when(f.Opened))
	t.known("Not tracked any more since", when(f.Removed))
}

// arrowOf leads from who opened a connection to the other end.
func arrowOf(d host.Direction) string {
	switch d {
	case host.Outbound:
		return "->"
	case host.Inbound:
		return "<-"
	}
	return "<>"
}

// ownersText is empty where nobody looked for the processes that hold the socket.
func ownersText(pids []int) string {
	if pids == nil {
		return ""
	}
	var s []string
	for _, pid := range pids {
		s = append(s, "["+strconv.Itoa(pid)+"]")
	}
	if s == nil {
		return "none found"
	}
	return strings.Join(s, ", ")
}

func (t *texter) processes(ps []trace.Process) {
	t.section("PROCESS INFORMATION")
	for _, role := range []struct{ name, title string }{{trace.Primary, "Primary Processes"}, {trace.Resolved, "Resolved Processes"}} {
		title := role.title
		for _, p := range ps {
			if p.Role != role.name {
				continue
			}
			if title != "" {
				t.line("%s\n", title)
				title = ""
			}
			t.process(p)
		}
	}
}

func (t *texter) process(p trace.Process) {
	name := p.Exe
	if name == "" {
		name = p.Name
	}
	t.line("%d: %s [%d]", p.Index, name, p.PID)
	parent := "N/A"
	if p.PPID != nil && (p.PID != 0 || *p.PPID != 0) {
		parent = strconv.Itoa(*p.PPID)
	}
	if p.Priority != nil {
		t.line("   priority: %d   parent: %s", *p.Priority, parent)
	} else {
		t.line("   parent: %s", parent)
	}
	t.known("   start time", when(p.Start))
	if p.Exited != nil {
		t.known("   exited", when(*p.Exited))
	}
	if p.RUID != nil && p.EUID != nil {
		t.line("   ruid: %s euid: %s", userText(p.RUser, *p.RUID), userText(p.EUser, *p.EUID))
	}
	t.session(p)
	t.known("   device", p.TTY)
	if p.ExeDeleted != nil && *p.ExeDeleted {
		t.line("   program: deleted since it was started")
	}
	t.known("   sha256", p.ExeSHA256)
	if len(p.Args) > 0 {
		t.line("   arguments: %s", strings.Join(p.Args, " "))
	}
	t.known("   directory", p.CWD)
	t.known("   container", p.Container)
	if p.Job != nil {
		t.job(*p.Job)
	}
	if p.Login != nil {
		t.login(*p.Login)
	}
	t.descriptors("Sockets", p.Descriptors, socketText)
	t.descriptors("Pipes", p.Descriptors, pipeText)
	t.descriptors("Terminals", p.Descriptors, terminalText)
	t.descriptors("Files", p.Descriptors, fileText)
	t.descriptors("Other", p.Descriptors, otherText)
	t.line("")
}

// job writes to which batch job the process belongs, and who says so.
func (t *texter) job(j host.Job) {
	s := fmt.Sprintf("   job: %s (%s)", j.ID, j.Source)
	if j.ClaimedID != "" {
		s += fmt.Sprintf(", %s by its environment", j.ClaimedID)
	}
	if j.SubmitHost != "" {
		s += fmt.Sprintf(", submitted on %s by its environment", j.SubmitHost)
	}
	t.line("%s", s)
}

// login writes where the process's user came from, and who says so.
func (t *texter) login(l host.Login) {
	from := l.Line
	if l.Remote.IsValid() {
		from = addrPortText(l.Remote)
	}
	s := fmt.Sprintf("   login: %s (%s)", from, l.Source)
	if l.Key != "" {
		s += " key: " + l.Key
	}
	t.line("%s", s)
}

// session writes to which session a process belongs, and as whom its user logged on.
func (t *texter) session(p trace.Process) {
	var s string
	if p.Session != nil {
		s += fmt.Sprintf("   session: %d", *p.Session)
	}
	if p.LoginUID != nil {
		s += fmt.Sprintf("   login uid: %d", *p.LoginUID)
	}
	if p.AuditSession != nil {
		s += fmt.Sprintf("   audit session: %d", *p.AuditSession)
	}
	if s != "" {
		t.line("%s", s)
	}
}

func userText(name string, uid uint32) string {
	if name == "" {
		return fmt.Sprintf("(%d)", uid)
	}
	return fmt.Sprintf("%s (%d)", name, uid)
}

func (t *texter) users(us []trace.User) {
	if len(us) == 0 {
		return
	}
	t.section("ADDITIONAL USER INFORMATION")
	for _, u := range us {
		t.line("%s", userText(u.Name, u.UID))
		for _, l := range u.Logins {
			ended := ""
			if !l.Ended.IsZero() {
				ended = " to " + when(l.Ended)
			}
			t.line("   %s %s %s%s", l.Line, l.Host, when(l.Time), ended)
		}
	}
}

func (t *texter) channels(cs []trace.Channel) {
	if len(cs) == 0 {
		return
	}
	t.section("CHANNELS")
	for _, c := range cs {
		var ends []string
		for _, e := range c.Ends {
			ends = append(ends, strconv.Itoa(e.PID)+modeText(e.Mode))
		}
		s := fmt.Sprintf("%d: %s %s", c.ID, c.Kind, strings.Join(ends, ", "))
		if c.Remembered {
			s += ", remembered"
		} else if !c.Complete {
			s += ", an end was not found"
		}
		if !c.Followed {
			s += ", not followed: " + c.Why
		}
		t.line("%s", s)
	}
}

func (t *texter) previous(ps []trace.Previous) {
	if len(ps) == 0 {
		return
	}
	t.section("PREVIOUS HOSTS")
	for _, p := range ps {
		s := fmt.Sprintf("%s -> %s [%d] %s", addrPortText(p.Remote), addrPortText(p.Local), p.PID, strings.Join(p.Reasons, ", "))
		if !p.Corroborated {
			s += " (the user's word)"
		}
		t.line("%s", s)
	}
}

func (t *texter) gaps(r Report) {
	if len(r.Gaps) == 0 {
		return
	}
	t.section("GAPS")
	for _, g := range r.Gaps {
		if g.PID != 0 {
			t.line("[%d] %s: %s", g.PID, g.What, g.Why)
		} else {
			t.line("%s: %s", g.What, g.Why)
		}
	}
}

// TracebackText shows what became of the previous hosts, in the same style.
func TracebackText(ts []stop.Traceback) string {
	if len(ts) == 0 {
		return ""
	}
	t := &texter{}
	t.section("TRACE-BACK")
	for _, r := range ts {
		t.line("%s -> %s selected by: %s", addrPortText(r.Previous.Remote), addrPortText(r.Previous.Local), r.SelectedBy)
		t.known("   asked", r.Request)
		t.known("   sent", when(r.Sent))
		if r.Asked && r.Answered.IsZero() {
			t.line("   answered: not yet")
		}
		t.known("   answered", when(r.Answered))
		t.known("   reply", r.Reply)
		t.known("   token", r.Token)
		t.known("   error", r.Error)
		t.known("   asked under token", r.SameAs)
	}
	return t.b.String()
}
