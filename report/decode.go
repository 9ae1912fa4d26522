package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

var errNotCanonical = errors.New("the bytes are not canonical")

// maxReport bounds what is read: far above what the bounds of a trace let it write.
const maxReport = 64 << 20

// A decoder reads what an encoder wrote. It need not be strict about form, since the result is encoded
// again and compared.
type decoder struct{ margins }

// margins are where an object read differs from those that this version writes, by path. It was written by a
// later version, which has keys of its own at the end, or by an earlier one, which had not all of ours.
type margins struct {
	unknown map[string][]member
	short   map[string]int // how many of our keys are there
}

// some reports whether there are any; else nobody needs to know the path.
func (m margins) some() bool { return len(m.unknown)+len(m.short) > 0 }

func newDecoder() decoder {
	return decoder{margins{unknown: map[string][]member{}, short: map[string]int{}}}
}

func (d *decoder) decode(b []byte, to any) error {
	if len(b) > maxReport {
		return fmt.Errorf("larger than %d octets", maxReport)
	}
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	return d.value("", json.RawMessage(b), reflect.ValueOf(to).Elem())
}

// at says where in a text something is wrong: the text as a whole has no path.
func at(path string, err error) error {
	if path == "" {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (d *decoder) value(path string, raw json.RawMessage, v reflect.Value) error {
	if string(raw) == "null" {
		return nil
	}
	switch v.Type() {
	case timeType, addrType, addrPortType:
		return d.scalar(path, raw, v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(path, raw, v.Elem())
	case reflect.Struct:
		return d.object(path, raw, v)
	case reflect.Slice:
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return at(path, err)
		}
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
		for i, item := range items {
			if err := d.value(path+"["+strconv.Itoa(i)+"]", item, v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		return at(path, err)
	}
	return nil
}

func (d *decoder) object(path string, raw json.RawMessage, v reflect.Value) error {
	shape := shapeOf(v.Type())
	seen := 0
	err := members(path, raw, func(name string, value json.RawMessage) error {
		// kind stands before the keys that depend on it.
		for _, f := range shape.of(v) {
			if f.name == name {
				seen++
				return d.value(path+"."+name, value, v.FieldByIndex(f.index))
			}
		}
		var c bytes.Buffer
		if err := json.Compact(&c, value); err != nil {
			return fmt.Errorf("%s.%s: %w", path, name, err)
		}
		d.unknown[path] = append(d.unknown[path], member{name, c.String()})
		return nil
	})
	if seen < len(shape.of(v)) {
		d.short[path] = seen
	}
	return err
}

// members calls yield for each member of an object in turn. A key that is there twice is an error: readers
// would not agree which of them counts.
func members(path string, raw json.RawMessage, yield func(name string, value json.RawMessage) error) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return at(path, errors.New("not an object"))
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return at(path, err)
		}
		name := t.(string)
		if seen[name] {
			return at(path, fmt.Errorf("key %q twice", name))
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return at(path, err)
		}
		if err := yield(name, value); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return at(path, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return at(path, errors.New("more after the end"))
	}
	return nil
}

func (d *decoder) scalar(path string, raw json.RawMessage, v reflect.Value) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return at(path, err)
	}
	var x any
	var err error
	switch v.Type() {
	case timeType:
		x, err = time.Parse(timeFormat, s)
	case addrType:
		x, err = netip.ParseAddr(s)
	case addrPortType:
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			x = netip.AddrPortFrom(a, 0)
			break
		}
		x, err = netip.ParseAddrPort(s)
	}
	if err != nil {
		return at(path, err)
	}
	v.Set(reflect.ValueOf(x))
	return nil
}
