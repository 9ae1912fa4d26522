package flows

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Zeek reads a log of Zeek line by line, as JSON or in columns. What the columns are is in the log's header; the zero Zeek takes
// those with which every log of connections begins. Notices that are not about one connection are [ErrNoFlow].
type Zeek struct {
	separator string
	unset     string
	path      string
	fields    []string
}

// firstFields are those of every log that has a connection, in Zeek's order.
var firstFields = []string{"ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"}

// maxFields bounds the columns that are looked at.
const maxFields = 256

// Line reads one line. Of a line of the header it returns [ErrNoFlow].
func (z *Zeek) Line(line []byte) (Flow, error) {
	text := strings.TrimRight(string(line), "\r\n")
	var f Flow
	var err error
	switch {
	case strings.HasPrefix(text, "{"):
		f, err = decodeZeekJSON([]byte(text))
	case strings.HasPrefix(text, "#"):
		z.header(text[1:])
		err = ErrNoFlow
	default:
		f, err = z.columns(text)
	}
	if err != nil {
		return Flow{}, fmt.Errorf("read Zeek record: %w", err)
	}
	return f, nil
}

func (z *Zeek) header(text string) {
	if name, value, ok := strings.Cut(text, " "); ok && name == "separator" {
		// "\x09", as all the others are written without it.
		if s, err := strconv.Unquote(`"` + value + `"`); err == nil && s != "" {
			*z = Zeek{separator: s}
		}
		return
	}
	name, value, _ := strings.Cut(text, z.between())
	switch name {
	case "unset_field":
		z.unset = value
	case "path":
		z.path = value
	case "fields":
		z.fields = strings.SplitN(value, z.between(), maxFields)
	}
}

func (z *Zeek) between() string {
	if z.separator == "" {
		return "\t"
	}
	return z.separator
}

func (z *Zeek) columns(text string) (Flow, error) {
	fields, unset := z.fields, z.unset
	if unset == "" {
		unset = "-"
	}
	values := strings.SplitN(text, z.between(), maxFields)
	if fields == nil {
		fields = firstFields
		// Then comes the protocol, in the log of connections.
		if len(values) > len(firstFields) && slices.Contains([]string{"tcp", "udp", "icmp"}, values[len(firstFields)]) {
			fields = append(slices.Clip(fields), "proto")
		}
	}
	r := zeekRecord{Path: z.path}
	var ts string
	for i, name := range fields {
		if i >= len(values) {
			return Flow{}, fmt.Errorf("%d columns, not %d", len(values), len(fields))
		}
		v := values[i]
		if v == unset {
			continue
		}
		var err error
		switch name {
		case "ts":
			ts = v
		case "id.orig_h":
			r.OrigH = v
		case "id.resp_h":
			r.RespH = v
		case "id.orig_p":
			r.OrigP, err = number(v)
		case "id.resp_p":
			r.RespP, err = number(v)
		case "proto":
			r.Proto = v
		case "duration":
			r.Lasted, err = strconv.ParseFloat(v, 64)
		case "note":
			r.Note = v
		}
		if err != nil {
			return Flow{}, err
		}
	}
	return r.flow(ts)
}

func number(s string) (uint16, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return uint16(p), nil
}
