package daemon

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/stopd/stopd/server"
)

// Template is a configuration file with every key at its default, to be completed with what differs.
func Template(c Config) []byte {
	var b bytes.Buffer
	b.WriteString("# stopd.toml: the configuration of stopd(8). Every key is here; unknown keys are errors.\n\n")
	config := reflect.ValueOf(c)
	writeKeys(&b, config)
	for f, v := range config.Fields() {
		if v.Kind() == reflect.Struct {
			fmt.Fprintf(&b, "\n[%s]\n", f.Tag.Get("toml"))
			writeKeys(&b, v)
		}
	}
	b.WriteString("\n# Who is answered otherwise than the rest; one section a peer, and the longest prefix decides:\n")
	if len(c.Peers) == 0 {
		b.WriteString("# [[peer]]\n# hosts  = [\"192.0.2.9\"]\n# system = \"OTHER\"  # or UNIX, for those that refuse OTHER\n" +
			"# names  = false  # whether ID is answered with the user's name\n# pin    = \"\"  # of its TLS key: then by TLS alone; empty is none\n")
	}
	for _, p := range c.Peers {
		p.System = cmp.Or(p.System, server.SystemOther)
		b.WriteString("[[peer]]\n")
		writeKeys(&b, reflect.ValueOf(p))
	}
	b.WriteString("\n# Who is shown the log's checkpoints and cosigns them; one section a witness:\n")
	if len(c.Witnesses) == 0 {
		b.WriteString("# [[witness]]\n# url = \"https://witness.example/\"\n# key = \"witness.example/w1+...\"\n")
	}
	for _, w := range c.Witnesses {
		b.WriteString("[[witness]]\n")
		writeKeys(&b, reflect.ValueOf(w))
	}
	return b.Bytes()
}

// writeKeys writes the keys of one section, a line each, and not the sections within.
func writeKeys(b *bytes.Buffer, section reflect.Value) {
	width := 0
	for f, v := range section.Fields() {
		if literal(v) != "" {
			width = max(width, len(f.Tag.Get("toml")))
		}
	}
	for f, v := range section.Fields() {
		text := literal(v)
		if text == "" {
			continue
		}
		if says := f.Tag.Get("says"); says != "" {
			text += "  # " + says
		}
		fmt.Fprintf(b, "%-*s = %s\n", width, f.Tag.Get("toml"), text)
	}
}

// literal is the value of a key as it is written, empty for a section.
func literal(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case string:
		return strconv.Quote(x)
	case Duration:
		return strconv.Quote(x.String())
	case []string:
		return list(x)
	case []Network:
		return list(x)
	case bool, int, int64:
		return fmt.Sprint(x)
	case Slots:
		var slots []string
		for f, slot := range v.Fields() {
			slots = append(slots, f.Tag.Get("toml")+" = "+literal(slot))
		}
		return "{" + strings.Join(slots, ", ") + "}"
	}
	return ""
}

func list[T any](vs []T) string {
	var ss []string
	for _, v := range vs {
		ss = append(ss, strconv.Quote(fmt.Sprint(v)))
	}
	return "[" + strings.Join(ss, ", ") + "]"
}
