// Package settings reads TOML files in which nothing may be misspelt.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Decode reads a file into what v points to. A key that v has no field for is an error: a rule that is spelled wrong must not be
// a rule that is not there. Errors name line and column.
func Decode(b []byte, v any) error {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return located(d.Decode(v))
}

func located(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		line, column := e.Position()
		return fmt.Errorf("line %d, column %d: unknown key %q", line, column, strings.Join(e.Key(), "."))
	}
	var d *toml.DecodeError
	if errors.As(err, &d) {
		line, column := d.Position()
		text := goType.ReplaceAllString(strings.TrimPrefix(d.Error(), "toml: "), " as ${1}")
		if key := strings.Join(d.Key(), "."); key != "" {
			text = key + ": " + text
		}
		return fmt.Errorf("line %d, column %d: %s", line, column, text)
	}
	return err
}

// goType is what the decoder says of this program instead of the file.
var goType = regexp.MustCompile(` into struct field \S+ of type (\S+)`)

// A Duration is written as Go writes it: "120s". A number without its unit is none.
type Duration struct{ time.Duration }

// UnmarshalText parses a duration.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	d.Duration, err = ParseDuration(b)
	return err
}

// ParseDuration parses a duration.
func ParseDuration(b []byte) (time.Duration, error) {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as \"30s\" or \"2m\"", b)
	}
	return v, nil
}

// A Network is a prefix. A single address is one, too.
type Network struct{ netip.Prefix }

// UnmarshalText parses an address or a prefix.
func (n *Network) UnmarshalText(b []byte) (err error) {
	n.Prefix, err = ParseNetwork(b)
	return err
}

// ParseNetwork parses an address or a prefix.
func ParseNetwork(b []byte) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(string(b)); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(string(b))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or prefix such as \"192.0.2.9\" or \"2001:db8::/32\"", b)
	}
	return p, nil
}

// Any reports whether one of the networks has an address, or there is none.
func Any(ns []Network, a netip.Addr) bool {
	return len(ns) == 0 || Within(ns, a)
}

// Within reports whether one of the networks has an address.
func Within(ns []Network, a netip.Addr) bool {
	return slices.ContainsFunc(ns, func(n Network) bool { return n.Contains(a) })
}
