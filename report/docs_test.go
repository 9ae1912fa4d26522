package report_test

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// values are those that a key can have, where they are words of ours.
var values = map[string][]string{
	"report.kind":                 {report.KindSV, report.KindID, report.KindDuplicate, report.KindNone},
	"request.type":                {stop.ID.String(), stop.IDRec.String(), stop.SV.String(), stop.SVRec.String()},
	"connection.direction":        words(host.Outbound, host.Inbound, host.UnknownDirection),
	"connection.direction_source": words(host.FromCounters, host.FromKernel, host.FromRecorder, host.FromConntrack, host.FromListener, host.FromAddress),
	"processes[].role":            {trace.Primary, trace.Resolved},
	"processes[].via.by":          {trace.ByOwner, trace.ByParent, trace.ByChannel, trace.ByRecordedParent},
	"processes[].job.source":      {host.JobCgroup, host.JobEnvironment},
	"processes[].login.source":    {host.LoginEnvironment, host.LoginUtmp, host.LoginAudit, host.LoginSSHD},
	"processes[].descriptors[].kind": words(host.TCP, host.UDP, host.Raw, host.Unix, host.Pipe, host.FIFO, host.PTY, host.TTY, host.File, host.SHM, host.Memfd,
		host.MQueue, host.Msg, host.EventFD, host.Sem, host.IOUring, host.FUSE, host.PTrace),
	"processes[].descriptors[].mode": words(host.Read, host.Write, host.ReadWrite),
	"processes[].descriptors[].side": {host.Master, host.Slave},
	"channels[].ends[].mode":         words(host.Read, host.Write, host.ReadWrite),
	"previous[].reasons": {trace.ReasonInbound, trace.ReasonJoinedOutbound, trace.ReasonSSHConnection, trace.ReasonUtmp, trace.ReasonAuditSession,
		trace.ReasonUnknownDirection, trace.ReasonRecorded, trace.ReasonNAT},
	"traceback[].kind": {stop.KindToken.String(), stop.KindLegacy.String(), stop.KindError.String(), "none"},
}

func words[S ~string](ws ...S) (all []string) {
	for _, w := range ws {
		all = append(all, string(w))
	}
	return all
}

// A documented is a row of docs/report.md; of the head of an object only the name is there.
type documented struct{ name, typ, meaning, null string }

func (d documented) String() string { return strings.TrimSpace(d.name + " " + d.typ) }

// page reads docs/report.md.
func page(t *testing.T) (rows []documented) {
	t.Helper()
	b, err := os.ReadFile("../docs/report.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile("^### `(.*)`\n")
	var object string
	for line := range strings.Lines(string(b)) {
		switch m := heading.FindStringSubmatch(line); {
		case m != nil:
			object = m[1]
			rows = append(rows, documented{name: object})
		case strings.HasPrefix(line, "## "):
			object = ""
		case object != "" && strings.HasPrefix(line, "| `"):
			var cells []string
			for _, c := range strings.Split(strings.Trim(line, "|\n"), "|") {
				cells = append(cells, strings.TrimSpace(c))
			}
			if len(cells) < 4 || slices.Contains(cells, "") {
				t.Errorf("%s: cells are missing, or empty: %q", object, line)
				continue
			}
			d := documented{object + "." + strings.Trim(cells[0], "`"), cells[1], cells[len(cells)-2], cells[len(cells)-1]}
			if len(cells) == 5 {
				d.typ += " (" + cells[2] + ")"
			}
			rows = append(rows, d)
		}
	}
	return rows
}

// TestDocs holds docs/report.md to the types that reports are made of: the same objects and keys in the same order, of the same types, null
// only where they can be, with the same values.
func TestDocs(t *testing.T) {
	const orNull = " or null"
	var want, keys []string
	objects(&want, "report", reflect.TypeFor[report.Report]())
	want = append(want, "redeemed", "redeemed.token text", "redeemed.report object", "redeemed.traceback list of objects")
	objects(&want, "traceback[]", reflect.TypeFor[stop.Traceback]())
	for _, w := range want {
		keys = append(keys, strings.TrimSuffix(w, orNull))
	}
	var got []string
	seen := 0
	for _, d := range page(t) {
		got = append(got, d.String())
		if slices.Contains(want, d.String()) && d.typ != "" && d.null != "never" {
			t.Errorf("%s is never null", d.name)
		}
		if vs, ok := values[d.name]; ok {
			seen++
			if diff := cmp.Diff(slices.Sorted(slices.Values(vs)), slices.Sorted(slices.Values(valuesIn(d.meaning)))); diff != "" {
				t.Errorf("%s: its values (-) and docs/report.md (+):\n%s", d.name, diff)
			}
		}
	}
	if d := cmp.Diff(keys, got); d != "" {
		t.Errorf("keys (-) and docs/report.md (+):\n%s", d)
	}
	if seen != len(values) {
		t.Errorf("the values of %d keys were looked at, of %d", seen, len(values))
	}
}

// valuesIn gives the words that are quoted in a meaning, but for keys.
func valuesIn(meaning string) (all []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(meaning, -1) {
		if m[1] != "from" {
			all = append(all, m[1])
		}
	}
	return all
}

// objects lists an object and its keys with their types, and then the objects in it, as docs/report.md does.
func objects(all *[]string, path string, of reflect.Type) {
	*all = append(*all, path)
	var below []func()
	var keys func(of reflect.Type)
	keys = func(of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			if f.Tag.Get("report") == "-" || !f.IsExported() {
				continue
			}
			if f.Anonymous {
				keys(f.Type)
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			typ := typeOf(f.Type)
			key := path + "." + name + " " + typ
			if k := f.Tag.Get("kinds"); of == reflect.TypeFor[host.Descriptor]() {
				key += " (" + map[string]string{"": "all", "*": "others"}[k]
				if k != "" && k != "*" {
					key += k
				}
				key += ")"
			}
			if nullable(f) {
				key += " or null"
			}
			*all = append(*all, key)
			at, elem := strings.TrimPrefix(path+"."+name, "report."), f.Type
			for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
				if elem.Kind() == reflect.Slice {
					at += "[]"
				}
				elem = elem.Elem()
			}
			if strings.HasSuffix(typ, "object") || strings.HasSuffix(typ, "objects") {
				below = append(below, func() { objects(all, at, elem) })
			}
		}
	}
	keys(of)
	for _, b := range below {
		b()
	}
}

// nullable reports whether a key can be null, as encode.go writes it.
func nullable(f reflect.StructField) bool {
	switch f.Type {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort]():
		return true
	}
	return f.Type.Kind() == reflect.Pointer || f.Type.Kind() == reflect.String || f.Tag.Get("report") == "null"
}

// typeOf names a type as docs/report.md does.
func typeOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[netip.Addr]():
		return "address"
	case reflect.TypeFor[netip.AddrPort]():
		return "end"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeOf(t.Elem())
	case reflect.Slice:
		if of := typeOf(t.Elem()); of != "address" {
			return "list of " + of + "s"
		}
		return "list of addresses"
	case reflect.Struct:
		return "object"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return "number"
	}
	panic(fmt.Sprint("no word for ", t))
}
