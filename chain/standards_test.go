package chain

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// rich is a chain with everything that the standards have a place for.
func rich() []report.Redeemed {
	rs := everything()
	one, zero, parent := uint32(1000), uint32(0), 300
	for i := range rs {
		for j := range rs[i].Report.Processes {
			p := &rs[i].Report.Processes[j]
			p.Exe, p.CWD, p.Start, p.ExeSHA256 = "/usr/bin/nc (deleted)", "/home/intruder", at, strings.Repeat("0af", 22)[:64]
			p.RUID, p.EUID, p.RUser, p.EUser, p.PPID, p.Session, p.PGRP = &one, &zero, "intruder", "root", &parent, &parent, &parent
			p.Exited, p.Container = &at, "0123456789ab"
			p.Name = "nc"
		}
		h := &rs[i].Report.Host
		h.BootID, h.Arch, h.Release, h.Kernel = fmt.Sprint("boot ", i), "x86_64", "12", "Linux version 6.1"
		h.Addresses = []netip.Addr{netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("2001:db8::7")}
	}
	return rs
}

// schemas reads the schemas of STIX that OASIS published, and the names of the properties of each kind of object.
func schemas(t *testing.T) (of map[string]*jsonschema.Schema, properties map[string][]string) {
	t.Helper()
	const base = "http://raw.githubusercontent.com/oasis-open/cti-stix2-json-schemas/stix2.1/"
	c := jsonschema.NewCompiler()
	files, err := filepath.Glob("testdata/stix/schemas/*/*.json")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d schemas: %v", len(files), err)
	}
	documents := map[string]map[string]any{}
	for _, f := range files {
		b, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(b)
		b.Close()
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		name := strings.TrimPrefix(f, "testdata/stix/")
		documents[name] = doc.(map[string]any)
		if err := c.AddResource(base+name, doc); err != nil {
			t.Fatal(err)
		}
	}
	of, properties = map[string]*jsonschema.Schema{}, map[string][]string{}
	for name, doc := range documents {
		kind := strings.TrimSuffix(filepath.Base(name), ".json")
		common := documents["schemas/common/core.json"]
		switch filepath.Base(filepath.Dir(name)) {
		case "observables":
			common = documents["schemas/common/cyber-observable-core.json"]
		case "common":
			if kind != "bundle" {
				continue
			}
		}
		if of[kind], err = c.Compile(base + name); err != nil {
			t.Fatal(err)
		}
		properties[kind] = append(propertiesOf(doc), propertiesOf(common)...)
	}
	return of, properties
}

func propertiesOf(doc map[string]any) []string {
	var names []string
	if p, ok := doc["properties"].(map[string]any); ok {
		names = slices.Collect(maps.Keys(p))
	}
	if all, ok := doc["allOf"].([]any); ok {
		for _, part := range all {
			names = append(names, propertiesOf(part.(map[string]any))...)
		}
	}
	return names
}

var stixID = regexp.MustCompile(`^[a-z0-9-]+--[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// checkSTIX checks a bundle against the schemas: as a whole, each object against those of its type, which
// have no place for what is misspelt, and that no reference leads out of it.
func checkSTIX(t *testing.T, text string, of map[string]*jsonschema.Schema, properties map[string][]string) map[string]int {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	bundle := doc.(map[string]any)
	objects := bundle["objects"].([]any)
	// The schema of bundles has no place for groupings and notes, which the standard and schemas of their own have.
	bundle["objects"] = slices.DeleteFunc(slices.Clone(objects), func(o any) bool {
		kind := o.(map[string]any)["type"]
		return kind == "grouping" || kind == "note"
	})
	if err := of["bundle"].Validate(doc); err != nil {
		t.Errorf("bundle: %v", err)
	}
	ids := map[string]bool{}
	count := map[string]int{}
	for _, o := range objects {
		o := o.(map[string]any)
		kind, id := o["type"].(string), o["id"].(string)
		if ids[id] || !stixID.MatchString(id) || !strings.HasPrefix(id, kind+"--") {
			t.Errorf("%s: not an id, or there twice", id)
		}
		ids[id] = true
		count[kind]++
		if of[kind] == nil {
			t.Errorf("%s is no kind of object", kind)
			continue
		}
		if err := of[kind].Validate(o); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		for name := range o {
			if !slices.Contains(properties[kind], name) {
				t.Errorf("%s has no property %s", kind, name)
			}
		}
	}
	for _, o := range objects {
		for name, v := range o.(map[string]any) {
			for _, ref := range refs(name, v) {
				if !ids[ref] {
					t.Errorf("%s of %v leads out of the bundle: %s", name, o.(map[string]any)["id"], ref)
				}
			}
		}
	}
	return count
}

func refs(name string, v any) (ids []string) {
	switch v := v.(type) {
	case string:
		if strings.HasSuffix(name, "_ref") {
			ids = append(ids, v)
		}
	case []any:
		for _, id := range v {
			if s, ok := id.(string); ok && strings.HasSuffix(name, "_refs") {
				ids = append(ids, s)
			}
		}
	}
	return ids
}

func TestSTIX(t *testing.T) {
	of, properties := schemas(t)
	text, err := STIX(Build(Of(rich()...)))
	if err != nil {
		t.Fatal(err)
	}
	count := checkSTIX(t, text, of, properties)
	for _, kind := range []string{"identity", "ipv4-addr", "ipv6-addr", "network-traffic", "user-account", "process", "file", "directory", "observed-data", "relationship", "note", "grouping"} {
		if count[kind] == 0 {
			t.Errorf("no %s", kind)
		}
	}
	// The example of the standard, section 2.9.
	if !strings.Contains(text, `"id": "ipv4-addr--28bb3599-77cd-5a82-a950-b5bc3caf07c4"`) {
		t.Error("198.51.100.3 has not the id that the standard gives it")
	}
	if strings.Count(text, "is the word of") != count["relationship"] {
		t.Error("a relationship does not say whose word it is")
	}
	for name, in := range map[string][]report.Redeemed{"three": rowOf(2), "nothing": nil, "one": rowOf(1)} {
		t.Run(name, func(t *testing.T) {
			text, err := STIX(Build(Of(in...)))
			if err != nil {
				t.Fatal(err)
			}
			checkSTIX(t, text, of, properties)
		})
	}
	// Whoever wrote the reports.
	fields := ecsFields(t)
	r := rand.New(rand.NewPCG(3, 4))
	for range 12 {
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		d := &dealer{b}
		var rs []report.Redeemed
		for len(d.b) > 0 {
			rs = append(rs, d.report())
		}
		text, err := STIX(Build(Of(rs...)))
		if err != nil {
			t.Fatal(err)
		}
		checkSTIX(t, text, of, properties)
		if text, err = ECS(Build(Of(rs...))); err != nil {
			t.Fatal(err)
		}
		checkECS(t, text, fields)
	}
	// What it refuses.
	for wrong, right := range map[string]string{`"pid": "300"`: `"pid": 300`, `"protocols": [],`: "\"protocols\": [\n    \"ipv4\",\n    \"tcp\"\n   ],", `"spec_version": "3"`: `"spec_version": "2.1"`} {
		broken := strings.Replace(text, right, wrong, 1)
		if doc, err := jsonschema.UnmarshalJSON(strings.NewReader(broken)); err != nil || broken == text {
			t.Errorf("%s: %v", wrong, err)
		} else if !slices.ContainsFunc(doc.(map[string]any)["objects"].([]any), func(o any) bool {
			return of[o.(map[string]any)["type"].(string)].Validate(o) != nil
		}) {
			t.Errorf("the schemas pass %s", wrong)
		}
	}
}

// A fieldRule is what the Elastic Common Schema says of one field.
type fieldRule struct {
	kind    string
	array   bool
	allowed []string
	types   map[string][]string // event types that go with a category
}

func ecsFields(t *testing.T) map[string]fieldRule {
	t.Helper()
	b, err := os.ReadFile("testdata/ecs/fields.csv")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(b))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]fieldRule{}
	for _, l := range lines[1:] {
		r := fieldRule{kind: l[1], array: l[2] != "", types: map[string][]string{}}
		if l[3] != "" {
			r.allowed = strings.Split(l[3], "|")
		}
		for _, pair := range strings.Split(l[4], "|") {
			if category, types, ok := strings.Cut(pair, ":"); ok {
				r.types[category] = strings.Split(types, "+")
			}
		}
		fields[l[0]] = r
	}
	return fields
}

// checkECS checks documents against the list of fields: their types, which of them are lists, and the values that some
// of them may have. What the schema does not have is below stopd.
func checkECS(t *testing.T, text string, fields map[string]fieldRule) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		var d map[string]any
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		flat := map[string]any{}
		flatten("", d, flat)
		for _, must := range []string{"@timestamp", "ecs.version", "event.kind", "event.category", "event.type", "event.dataset"} {
			if flat[must] == nil {
				t.Errorf("no %s: %s", must, line)
			}
		}
		for name, v := range flat {
			seen[name] = true
			if strings.HasPrefix(name, "stopd.") {
				continue
			}
			rule, ok := fields[name]
			if !ok {
				t.Errorf("%s is no field", name)
				continue
			}
			list, isList := v.([]any)
			if isList != rule.array {
				t.Errorf("%s is a list: %t", name, isList)
			}
			if !isList {
				list = []any{v}
			}
			for _, v := range list {
				rule.check(t, name, v)
			}
		}
		for _, category := range flat["event.category"].([]any) {
			for _, kind := range flat["event.type"].([]any) {
				if !slices.Contains(fields["event.category"].types[category.(string)], kind.(string)) {
					t.Errorf("type %s does not go with category %s", kind, category)
				}
			}
		}
	}
	return seen
}

func flatten(prefix string, v any, to map[string]any) {
	if m, ok := v.(map[string]any); ok {
		for name, v := range m {
			flatten(strings.TrimPrefix(prefix+"."+name, "."), v, to)
		}
		return
	}
	to[prefix] = v
}

func (r fieldRule) check(t *testing.T, name string, v any) {
	t.Helper()
	ok := false
	switch s, isText := v.(string); r.kind {
	case "long":
		n, isNumber := v.(float64)
		ok = isNumber && n == float64(int64(n))
	case "date":
		_, err := time.Parse(time.RFC3339Nano, s)
		ok = err == nil
	case "ip":
		_, err := netip.ParseAddr(s)
		ok = err == nil
	case "keyword", "wildcard", "match_only_text", "constant_keyword":
		ok = isText && (s != "" || r.array)
	}
	if !ok || r.allowed != nil && !slices.Contains(r.allowed, v.(string)) {
		t.Errorf("%s is %#v, of type %s and of %q", name, v, r.kind, r.allowed)
	}
}

func TestECS(t *testing.T) {
	fields := ecsFields(t)
	text, err := ECS(Build(Of(rich()...)))
	if err != nil {
		t.Fatal(err)
	}
	seen := checkECS(t, text, fields)
	for _, name := range []string{"source.ip", "destination.port", "network.type", "network.direction", "process.pid", "process.parent.pid", "process.hash.sha256", "process.args",
		"user.name", "host.os.kernel", "host.ip", "related.ip", "event.outcome", "message", "stopd.contradiction.kind", "stopd.clock.seconds", "stopd.question.status"} {
		if !seen[name] {
			t.Errorf("no %s", name)
		}
	}
	for want, n := range map[string]int{`"dataset":"stopd.report"`: 8, `"dataset":"stopd.contradiction"`: 2} {
		if got := strings.Count(text, want); got != n {
			t.Errorf("%d documents with %s, want %d", got, want, n)
		}
	}
	// Of a connection that came to the host.
	in := redeemed("sb", "b", bIn, aToB)
	in.Report.Connection.Direction = host.Inbound
	if text, err = ECS(Build(Of(in))); err != nil || !strings.Contains(text, `"direction":"ingress"`) || !strings.Contains(text, `"source":{"ip":"192.0.2.1","port":616}`) {
		t.Errorf("%v\n%s", err, text)
	}
	checkECS(t, text, fields)
}
