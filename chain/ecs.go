package chain

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// ecsVersion is the version of the Elastic Common Schema that the documents follow.
const ecsVersion = "9.4.0"

// ECS writes a chain as documents of the Elastic Common Schema, one a line: for each report the connection that was asked
// about and its processes, then each connection between hosts, then what contradicts what. What the schema has no
// field for is below stopd.
func ECS(c *Chain) (string, error) {
	e := &ecs{chain: c}
	for i := range c.Hosts {
		h := &c.Hosts[i]
		for j := range h.Reports {
			e.report(h, &h.Reports[j])
		}
	}
	for i := range c.Connections {
		e.connection(&c.Connections[i])
	}
	for _, x := range c.Contradictions {
		e.contradiction(x)
	}
	var b strings.Builder
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false)
	for _, d := range e.documents {
		if err := w.Encode(d); err != nil {
			return "", fmt.Errorf("write document: %w", err)
		}
	}
	return b.String(), nil
}

type ecs struct {
	chain     *Chain
	documents []object
}

// set gives a field a value, unless that is unknown.
func (o object) set(field string, v any) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	case *time.Time:
		if v == nil {
			return
		}
	case nil:
		return
	}
	at := o
	for {
		name, rest, deeper := strings.Cut(field, ".")
		if !deeper {
			at[name] = v
			return
		}
		next, ok := at[name].(object)
		if !ok {
			next = object{}
			at[name] = next
		}
		at, field = next, rest
	}
}

// document begins one. Its time is that of the first question where it has none of its own: a document needs one.
func (e *ecs) document(dataset, kind string, categories, types []string, at *time.Time) object {
	d := object{}
	if at == nil {
		at, _ = e.chain.span()
	}
	if at == nil {
		at = &time.Time{}
	}
	d.set("@timestamp", at.UTC().Format("2006-01-02T15:04:05.000000000Z"))
	d.set("ecs.version", ecsVersion)
	d.set("event.kind", kind)
	d.set("event.category", categories)
	d.set("event.type", types)
	d.set("event.module", "stopd")
	d.set("event.dataset", "stopd."+dataset)
	e.documents = append(e.documents, d)
	return d
}

// report writes of the connection that a host was asked about, and of each process.
func (e *ecs) report(h *Host, a *Account) {
	r := &a.redeemed.Report
	d := e.document("report", "event", []string{"network"}, []string{"connection", "info"}, a.Asked)
	d.set("event.action", "examine")
	d.set("event.id", a.Token)
	d.set("event.reason", a.Reason)
	e.hostFields(d, h, a)
	if a.out != 0 {
		k := e.chain.connection(a.out)
		ends(d, k)
		d.set("network.direction", map[bool]string{true: "egress", false: "ingress"}[(k.OpenedBy != "to") == (k.From == h.ID)])
		d.set("message", fmt.Sprintf("%s was asked by %s who is behind %s -> %s", h.Label(), clean(a.Requester.String()), k.Source, k.Destination))
	}
	if a.UID != nil {
		d.set("user.id", strconv.FormatUint(uint64(*a.UID), 10))
		d.set("user.name", a.User)
		d.set("related.user", compact(a.User))
	}
	for i := range r.Processes {
		if r.Processes[i].Via.By == trace.ByOwner {
			processFields(d, &r.Processes[i].Process)
			break
		}
	}
	d.set("stopd.kind", a.Kind)
	d.set("stopd.request.type", a.Type)
	d.set("stopd.request.sid", clean(r.Request.SID))
	d.set("stopd.request.requester", address(a.Requester))
	d.set("stopd.gaps", a.Gaps)
	d.set("stopd.same_as", a.SameAs)
	d.set("stopd.begins", h.Begins)
	d.set("stopd.standing", string(a.Standing))
	d.set("stopd.log", a.Log)
	for i := range r.Processes[:min(len(r.Processes), maxObjects)] {
		p := &r.Processes[i]
		d := e.document("process", "event", []string{"process"}, []string{"info"}, a.Asked)
		d.set("event.action", "examine")
		d.set("event.id", a.Token+"-"+strconv.Itoa(p.Index))
		e.hostFields(d, h, a)
		processFields(d, &p.Process)
		d.set("stopd.token", a.Token)
		d.set("stopd.via", clean(p.Via.By))
	}
}

func (e *ecs) hostFields(d object, h *Host, a *Account) {
	f := &a.redeemed.Report.Host
	d.set("host.name", h.Name)
	d.set("host.hostname", h.Name)
	d.set("host.architecture", clean(f.Arch))
	d.set("host.boot.id", clean(f.BootID))
	d.set("host.os.name", clean(f.OS))
	d.set("host.os.version", clean(f.Release))
	d.set("host.os.kernel", clean(f.Kernel))
	ips := []string{}
	for _, addr := range append(h.Addresses[:len(h.Addresses):len(h.Addresses)], f.Addresses[:min(len(f.Addresses), maxAddresses)]...) {
		ips = append(ips, compact(address(addr))...)
	}
	d.set("host.ip", unique(ips))
	d.set("related.hosts", compact(h.Name))
}

// ends writes a connection in the direction in which it was opened.
func ends(d object, k *Connection) {
	src, dst := k.src, k.dst
	if k.OpenedBy == "to" {
		src, dst = dst, src
	}
	d.set("source.ip", address(src.Addr()))
	d.set("destination.ip", address(dst.Addr()))
	if src.Port() != 0 {
		d.set("source.port", src.Port())
	}
	if dst.Port() != 0 {
		d.set("destination.port", dst.Port())
	}
	d.set("network.transport", "tcp")
	d.set("network.type", map[bool]string{true: "ipv4", false: "ipv6"}[dst.Addr().Unmap().Is4() || !dst.Addr().IsValid() && src.Addr().Unmap().Is4()])
	d.set("related.ip", unique(append(compact(address(src.Addr())), compact(address(dst.Addr()))...)))
}

func processFields(d object, p *host.Process) {
	d.set("process.pid", p.PID)
	d.set("process.name", clean(p.Name))
	d.set("process.executable", clean(p.Exe))
	d.set("process.working_directory", clean(p.CWD))
	if len(p.Args) > 0 {
		d.set("process.args", cleanAll(p.Args, maxObjects))
		d.set("process.args_count", len(p.Args))
		d.set("process.command_line", command(*p))
	}
	if p.PPID != nil {
		d.set("process.parent.pid", *p.PPID)
	}
	if !p.Start.IsZero() {
		d.set("process.start", p.Start.UTC().Format(time.RFC3339Nano))
	}
	if p.Exited != nil {
		d.set("process.end", p.Exited.UTC().Format(time.RFC3339Nano))
	}
	if p.RUID != nil {
		d.set("process.real_user.id", strconv.FormatUint(uint64(*p.RUID), 10))
		d.set("process.real_user.name", clean(p.RUser))
	}
	if p.EUID != nil {
		d.set("process.user.id", strconv.FormatUint(uint64(*p.EUID), 10))
		d.set("process.user.name", clean(p.EUser))
	}
	if p.Session != nil {
		d.set("process.session_leader.pid", *p.Session)
	}
	if p.PGRP != nil {
		d.set("process.group_leader.pid", *p.PGRP)
	}
	d.set("process.hash.sha256", clean(p.ExeSHA256))
	d.set("container.id", clean(p.Container))
	if p.Name == "" && p.Exe != "" {
		d.set("process.name", path.Base(clean(p.Exe)))
	}
}

// connection writes of a connection between two hosts, and of what became of the questions about it.
func (e *ecs) connection(k *Connection) {
	from, to := e.chain.host(k.From), e.chain.host(k.To)
	var at *time.Time
	var statuses, details, tokens []string
	answered := false
	for _, q := range k.Questions {
		if at == nil {
			at = q.Sent
		}
		answered = answered || q.Status == Reported || q.Status == Sealed
		statuses, details, tokens = append(statuses, string(q.Status)), append(details, compact(q.Detail)...), append(tokens, compact(q.Token)...)
	}
	d := e.document("connection", "event", []string{"network"}, []string{"connection", "info"}, at)
	d.set("event.action", "follow")
	switch {
	case len(k.Questions) == 0:
		d.set("event.outcome", "unknown")
	case answered:
		d.set("event.outcome", "success")
	default:
		d.set("event.outcome", "failure")
	}
	ends(d, k)
	d.set("message", fmt.Sprintf("%s -> %s leads from %s to %s", k.Source, k.Destination, from.Label(), to.Label()))
	d.set("related.hosts", unique(append(compact(from.Name), compact(to.Name)...)))
	d.set("stopd.connection.id", k.ID)
	d.set("stopd.connection.from", k.From)
	d.set("stopd.connection.to", k.To)
	d.set("stopd.connection.opened_by", k.OpenedBy)
	d.set("stopd.connection.told_by", k.ToldBy)
	d.set("stopd.connection.linked", k.Linked)
	d.set("stopd.question.status", unique(statuses))
	d.set("stopd.question.detail", unique(details))
	d.set("stopd.question.token", unique(tokens))
	if k.Clock != nil {
		d.set("stopd.clock.seconds", k.Clock.Seconds)
		d.set("stopd.clock.error", k.Clock.Error)
	}
	var joined []int
	for _, j := range e.chain.joinsOf[k.To] {
		if j.In == k.ID {
			joined = append(joined, j.Out)
		}
	}
	if joined != nil {
		d.set("stopd.connection.joined_to", joined)
	}
}

func (e *ecs) contradiction(x Contradiction) {
	d := e.document("contradiction", "alert", []string{"network"}, []string{"info"}, nil)
	d.set("event.action", "compare")
	d.set("event.reason", x.Text)
	d.set("message", x.Text)
	d.set("stopd.contradiction.kind", x.Kind)
	d.set("stopd.contradiction.hosts", x.Hosts)
	if x.Connection != 0 {
		ends(d, e.chain.connection(x.Connection))
		d.set("stopd.connection.id", x.Connection)
	}
}

// address writes an address without a zone, which means nothing elsewhere; empty for none.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// compact is a list without what is unknown.
func compact(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// unique lists each of some texts once.
func unique(ss []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range ss {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
