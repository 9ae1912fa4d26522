package chain

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// Namespaces of the UUIDs (RFC 9562, version 5). That of observables is STIX's own (STIX 2.1, section 2.9), with which all
// producers give the same observable the same id. Ours is for everything else: what is made of one token always has
// the same id, and is an update of itself wherever it is sent twice.
var (
	stixNamespace = [16]byte{0x00, 0xab, 0xed, 0xb4, 0xaa, 0x42, 0x46, 0x6c, 0x9c, 0x01, 0xfe, 0xd2, 0x33, 0x15, 0xa9, 0xb7}
	ourNamespace  = [16]byte{0x5b, 0x0d, 0x4c, 0x1a, 0x7e, 0x93, 0x4f, 0x2e, 0xa6, 0x10, 0x9d, 0x35, 0xc8, 0x7f, 0x21, 0x64}
)

// maxObjects bounds the processes of one report in the forms for other programs.
const maxObjects = 1000

// STIX writes a chain as a bundle of STIX 2.1: for each report observed data with the connection, its processes and users, by
// the host that saw them; a relationship for what a host says belongs together; notes for what contradicts what and
// for hosts without a report.
func STIX(c *Chain) (string, error) {
	s := &stix{chain: c, objects: map[string]object{}, at: stixTime(nil)}
	if first, _ := c.span(); first != nil {
		s.at = stixTime(first)
	}
	s.self = s.domain("identity", "stopctl chain", object{"name": "stopctl chain", "identity_class": "system"}, "")
	for i := range c.Hosts {
		s.host(&c.Hosts[i])
	}
	for _, j := range c.Joins {
		s.join(j)
	}
	for _, x := range c.Contradictions {
		var about []string
		if x.Connection != 0 {
			k := c.connection(x.Connection)
			about = append(about, s.traffic(k.src, k.dst))
		}
		for _, id := range x.Hosts {
			if h := c.host(id); len(h.Reports) > 0 {
				about = append(about, s.identity(h))
			}
		}
		s.note("contradiction: "+x.Kind, x.Text, about...)
	}
	if refs := slices.Sorted(maps.Keys(s.objects)); len(c.Paths) > 0 {
		s.domain("grouping", strings.Join(refs, " "), object{"name": c.headline(), "description": c.spoken(), "context": "suspicious-activity", "object_refs": refs}, s.self)
	}
	ids := slices.Sorted(maps.Keys(s.objects))
	objects := []object{}
	for _, id := range ids {
		objects = append(objects, s.objects[id])
	}
	b, err := json.MarshalIndent(object{"type": "bundle", "id": "bundle--" + uuid5(ourNamespace, strings.Join(ids, " ")), "objects": objects}, "", " ")
	if err != nil {
		return "", fmt.Errorf("write bundle: %w", err)
	}
	return string(b) + "\n", nil
}

type object map[string]any

type stix struct {
	chain   *Chain
	objects map[string]object // by id
	at      string            // when objects that are of no one report were made: when a host was first asked
	self    string            // who says what no host says
}

// domain adds a domain object or a relationship, told apart by a key, and returns its id.
func (s *stix) domain(kind, key string, o object, by string) string {
	id := kind + "--" + uuid5(ourNamespace, kind+" "+key)
	o["type"], o["spec_version"], o["id"] = kind, "2.1", id
	o["created"], o["modified"] = s.at, s.at
	if by != "" {
		o["created_by_ref"] = by
	}
	s.objects[id] = o
	return id
}

// observable adds an observable. Those of its properties that are named make the id.
func (s *stix) observable(kind string, o object, contributing ...string) string {
	part := object{}
	for _, k := range contributing {
		if v, ok := o[k]; ok {
			part[k] = v
		}
	}
	id := kind + "--" + uuid5(stixNamespace, canonical(part))
	return s.observed(kind, id, o)
}

func (s *stix) observed(kind, id string, o object) string {
	o["type"], o["spec_version"], o["id"] = kind, "2.1", id
	s.objects[id] = o
	return id
}

// canonical writes JSON as RFC 8785 has it. Keys are ASCII, numbers integers, and texts have no characters that
// encoding/json writes in another way.
func canonical(o object) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(o); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func uuid5(namespace [16]byte, name string) string {
	h := sha1.Sum(append(namespace[:], name...))
	u := h[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// stixTime writes a time to the millisecond; the beginning of 1970 for one that is not known.
func stixTime(t *time.Time) string {
	if t == nil {
		return "1970-01-01T00:00:00.000Z"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// address adds an address; empty where there is none.
func (s *stix) address(a netip.Addr) string {
	kind := "ipv4-addr"
	if a = a.Unmap().WithZone(""); a.Is6() {
		kind = "ipv6-addr"
	}
	if !a.IsValid() {
		return ""
	}
	return s.observable(kind, object{"value": a.String()}, "value")
}

// traffic adds a connection; empty where no end of it is known.
func (s *stix) traffic(src, dst netip.AddrPort) string {
	o := object{"protocols": []string{"ipv4", "tcp"}}
	if src.Addr().Unmap().Is6() || dst.Addr().Unmap().Is6() {
		o["protocols"] = []string{"ipv6", "tcp"}
	}
	for end, ap := range map[string]netip.AddrPort{"src": src, "dst": dst} {
		if ref := s.address(ap.Addr()); ref != "" {
			o[end+"_ref"] = ref
		}
		if ap.Port() != 0 {
			o[end+"_port"] = ap.Port()
		}
	}
	if o["src_ref"] == nil && o["dst_ref"] == nil {
		return ""
	}
	return s.observable("network-traffic", o, "src_ref", "dst_ref", "src_port", "dst_port", "protocols")
}

func (s *stix) host(h *Host) {
	if len(h.Reports) == 0 {
		if h.Status != Reached && len(h.Addresses) > 0 {
			content := h.Label() + ": " + string(h.Status)
			for _, chip := range s.chain.chips(h) {
				content += "; " + chip.text
			}
			s.note("a host without a report", content, s.address(h.Addresses[0]))
		}
		return
	}
	by := s.identity(h)
	for i := range h.Reports {
		s.account(h, &h.Reports[i], by)
	}
}

// identity is the host as the one who says what its reports say.
func (s *stix) identity(h *Host) string {
	return s.domain("identity", h.Reports[0].Token, object{"name": h.Label(), "identity_class": "system"}, s.self)
}

// account adds what one report observed.
func (s *stix) account(h *Host, a *Account, by string) {
	var refs []string
	add := func(ref string) {
		if ref != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	out := ""
	if a.out != 0 {
		k := s.chain.connection(a.out)
		out = s.traffic(k.src, k.dst)
		add(out)
	}
	for _, j := range s.chain.joinsOf[h.ID] {
		if j.Token == a.Token {
			k := s.chain.connection(j.In)
			add(s.traffic(k.src, k.dst))
		}
	}
	if a.UID != nil {
		add(s.user(a.User, *a.UID))
	}
	r := &a.redeemed.Report
	for i := range r.Processes[:min(len(r.Processes), maxObjects)] {
		p := &r.Processes[i]
		opened := ""
		if p.Via.By == trace.ByOwner {
			opened = out
		}
		add(s.process(a, p, opened))
	}
	if len(refs) > 0 {
		s.domain("observed-data", a.Token, object{"first_observed": stixTime(a.Asked), "last_observed": stixTime(a.Asked), "number_observed": 1, "object_refs": refs,
			"external_references": []object{{"source_name": "stopd", "external_id": a.Token, "description": "the token of the report: the SHA-256 of its bytes" + a.stixStanding()}}}, by)
	}
}

// stixStanding says what speaks for a report, to be added to a sentence.
func (a *Account) stixStanding() string {
	if a.Standing == "" {
		return ""
	}
	return "; " + a.standingText()
}

func (s *stix) user(name string, uid uint32) string {
	o := object{"user_id": strconv.FormatUint(uint64(uid), 10), "account_type": "unix"}
	if name = clean(name); name != "" {
		o["account_login"] = name
	}
	return s.observable("user-account", o, "account_type", "user_id", "account_login")
}

// process adds a process of a report. STIX has no rule for its id: it is that of a pid in a report.
func (s *stix) process(a *Account, p *trace.Process, opened string) string {
	o := object{"pid": p.PID}
	if line := command(p.Process); line != "" {
		o["command_line"] = line
	}
	if p.CWD != "" {
		o["cwd"] = clean(p.CWD)
	}
	if !p.Start.IsZero() {
		o["created_time"] = stixTime(&p.Start)
	}
	if p.RUID != nil {
		o["creator_user_ref"] = s.user(p.RUser, *p.RUID)
	}
	if p.Exe != "" {
		o["image_ref"] = s.file(&p.Process)
	}
	if opened != "" {
		o["opened_connection_refs"] = []string{opened}
	}
	id := func(pid int) string {
		return "process--" + uuid5(ourNamespace, fmt.Sprintf("process %s %d", a.Token, pid))
	}
	if p.PPID != nil && *p.PPID != p.PID && slices.ContainsFunc(a.redeemed.Report.Processes[:min(len(a.redeemed.Report.Processes), maxObjects)],
		func(q trace.Process) bool { return q.PID == *p.PPID }) {
		o["parent_ref"] = id(*p.PPID)
	}
	return s.observed("process", id(p.PID), o)
}

func (s *stix) file(p *host.Process) string {
	exe := clean(p.Exe)
	o := object{"name": path.Base(exe)}
	if dir := path.Dir(exe); path.IsAbs(exe) {
		o["parent_directory_ref"] = s.observable("directory", object{"path": dir}, "path")
	}
	if sum := strings.ToLower(p.ExeSHA256); len(sum) == 64 && strings.Trim(sum, "0123456789abcdef") == "" {
		o["hashes"] = object{"SHA-256": sum}
	}
	return s.observable("file", o, "hashes", "name", "parent_directory_ref")
}

// join adds that two connections belong together, by the word of the host.
func (s *stix) join(j Join) {
	in, out := s.chain.connection(j.In), s.chain.connection(j.Out)
	from, to := s.traffic(in.src, in.dst), s.traffic(out.src, out.dst)
	h := s.chain.host(j.Host)
	if from == "" || to == "" || from == to || len(h.Reports) == 0 {
		return
	}
	says := "that these connections belong together is the word of " + h.Label() + " alone"
	if !j.Corroborated {
		says += ", which has it from its user"
	}
	s.domain("relationship", j.Token+from+to, object{"relationship_type": "related-to", "source_ref": from, "target_ref": to, "description": says}, s.identity(h))
}

func (s *stix) note(abstract, content string, about ...string) {
	about = slices.DeleteFunc(about, func(ref string) bool { return ref == "" })
	if len(about) > 0 {
		s.domain("note", strings.Join(append(about, abstract, content), " "), object{"abstract": abstract, "content": content, "object_refs": about}, s.self)
	}
}
