package report

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// timeFormat is RFC 3339 in UTC, with all nine digits of the nanoseconds.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

var (
	timeType     = reflect.TypeFor[time.Time]()
	addrType     = reflect.TypeFor[netip.Addr]()
	addrPortType = reflect.TypeFor[netip.AddrPort]()
)

// A field is one key of an object.
type field struct {
	name  string
	key   string // the name as it is written
	index []int
	// null is true where zero means unknown; other numbers and booleans are written as they are.
	null bool
	// kinds are the values of the object's Kind with which the key is there at all; nil is any, and "*" is
	// every kind that has no keys of its own.
	kinds []string
}

// A shape is the fields of a struct type in their order, for each kind of object that has some of its own
// and, as "*", for all others.
type shape map[string][]field

// of returns the fields that are there in an object.
func (s shape) of(v reflect.Value) []field {
	if len(s) > 1 {
		if fs, ok := s[kindOf(v)]; ok {
			return fs
		}
	}
	return s["*"]
}

// shapes remembers those of the types that reports are made of.
var shapes sync.Map

func shapeOf(t reflect.Type) shape {
	if s, ok := shapes.Load(t); ok {
		return s.(shape)
	}
	all := fields(t)
	s := shape{"*": nil}
	for _, f := range all {
		for _, k := range f.kinds {
			s[k] = nil
		}
	}
	for k := range s {
		for _, f := range all {
			if f.kinds == nil || slices.Contains(f.kinds, k) {
				s[k] = append(s[k], f)
			}
		}
	}
	shapes.Store(t, s)
	return s
}

// fields lists the keys of a struct type in their order. Embedded structs are inlined. A `report:"-"` tag
// leaves a field out, and `report:"null"` says that zero is unknown.
func fields(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("report") == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous {
			for _, g := range fields(f.Type) {
				g.index = append([]int{i}, g.index...) // a copy
				fs = append(fs, g)
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		g := field{name: name, key: strconv.Quote(name) + ":", index: []int{i}, null: f.Tag.Get("report") == "null"}
		if k := f.Tag.Get("kinds"); k != "" {
			g.kinds = strings.Fields(k)
		}
		fs = append(fs, g)
	}
	return fs
}

// kindOf returns the value of an object's Kind field; empty where it has none.
func kindOf(v reflect.Value) string {
	if k := v.FieldByName("Kind"); k.IsValid() && k.Kind() == reflect.String {
		return k.String()
	}
	return ""
}

// A member is a key and its value as JSON text.
type member struct{ name, value string }

type encoder struct {
	b []byte
	margins
}

func (e *encoder) value(path string, x any) { e.reflect(path, reflect.ValueOf(x), false) }

func (e *encoder) reflect(path string, v reflect.Value, null bool) {
	if null && v.IsZero() {
		e.raw("null")
		return
	}
	switch v.Type() {
	case timeType:
		e.time(v.Interface().(time.Time))
		return
	case addrType:
		e.text(addrText(v.Interface().(netip.Addr)))
		return
	case addrPortType:
		e.text(addrPortText(v.Interface().(netip.AddrPort)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			e.raw("null")
			return
		}
		e.reflect(path, v.Elem(), false)
	case reflect.Struct:
		e.object(path, v)
	case reflect.Slice:
		e.raw("[")
		for i := range v.Len() {
			if i > 0 {
				e.raw(",")
			}
			// An element of a list of strings is known, even if it is empty.
			if v.Index(i).Kind() == reflect.String {
				e.string(v.Index(i).String())
				continue
			}
			at := path
			if e.margins.some() {
				at += "[" + strconv.Itoa(i) + "]"
			}
			e.reflect(at, v.Index(i), false)
		}
		e.raw("]")
	case reflect.String:
		e.text(v.String())
	case reflect.Bool:
		e.b = strconv.AppendBool(e.b, v.Bool())
	case reflect.Int:
		e.b = strconv.AppendInt(e.b, v.Int(), 10)
	case reflect.Uint32, reflect.Uint64:
		e.b = strconv.AppendUint(e.b, v.Uint(), 10)
	case reflect.Float64:
		e.b = strconv.AppendFloat(e.b, v.Float(), 'f', -1, 64)
	default:
		panic(fmt.Sprintf("report: %s has a type that reports do not have: %s", path, v.Type()))
	}
}

func (e *encoder) object(path string, v reflect.Value) {
	fs := shapeOf(v.Type()).of(v)
	if n, short := e.short[path]; short {
		fs = fs[:n]
	}
	e.raw("{")
	for i, f := range fs {
		if i > 0 {
			e.raw(",")
		}
		e.raw(f.key)
		at := path
		if e.margins.some() {
			at += "." + f.name
		}
		e.reflect(at, v.FieldByIndex(f.index), f.null)
	}
	for i, m := range e.unknown[path] {
		if i > 0 || len(fs) > 0 {
			e.raw(",")
		}
		e.string(m.name)
		e.raw(":")
		e.raw(m.value)
	}
	e.raw("}")
}

func (e *encoder) raw(s string) { e.b = append(e.b, s...) }

func (e *encoder) time(t time.Time) {
	if t.IsZero() {
		e.raw("null")
		return
	}
	e.string(t.UTC().Format(timeFormat))
}

// text writes a string whose emptiness means that it is unknown.
func (e *encoder) text(s string) {
	if s == "" {
		e.raw("null")
		return
	}
	e.string(s)
}

// string writes a JSON string (RFC 8259) with the shortest escapes: quotation mark, backslash and control
// characters only. What is not UTF-8 has been escaped by who read it; were there any left, it is escaped
// the same way, as \xNN, so that it is not lost.
func (e *encoder) string(s string) {
	const hex = "0123456789abcdef"
	e.b = append(e.b, '"')
	if plain(s) {
		e.b = append(append(e.b, s...), '"')
		return
	}
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			e.b = append(e.b, '\\', '\\', 'x', hex[s[i]>>4], hex[s[i]&15])
		case r == '"' || r == '\\':
			e.b = append(e.b, '\\', byte(r))
		case r == '\n':
			e.raw(`\n`)
		case r == '\r':
			e.raw(`\r`)
		case r == '\t':
			e.raw(`\t`)
		case r < 0x20 || r == 0x7f:
			e.b = append(e.b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			e.b = utf8.AppendRune(e.b, r)
		}
	}
	e.b = append(e.b, '"')
}

// plain reports whether a string is written as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

// addrPortText writes an address and port; a host of which no port is known is its address alone.
func addrPortText(ap netip.AddrPort) string {
	switch {
	case !ap.IsValid():
		return ""
	case ap.Port() == 0:
		return addrText(ap.Addr())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}
