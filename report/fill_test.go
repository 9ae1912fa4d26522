package report_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// kinds are the kinds of descriptors that have keys of their own, and two that have none.
var kinds = []host.Kind{host.TCP, host.UDP, host.Raw, host.Unix, host.Pipe, host.FIFO, host.PTY, host.TTY, host.File,
	host.SHM, host.Memfd, host.MQueue, host.Msg, "eventfd"}

// A filler makes up reports of which every key has a value, or may have none. Fields that are not written
// (report:"-") it leaves alone, and those that a kind of descriptor does not have.
type filler struct {
	*rand.Rand
	text func() string
	full bool // no value is unknown, and lists have one element, but descriptors one of each kind
}

func fullReport(text func() string) report.Report {
	f := filler{rand.New(rand.NewPCG(1, 0)), text, true}
	var r report.Report
	f.value(reflect.ValueOf(&r).Elem())
	r.Version = report.Version
	return r
}

func randomReport(seed uint64) report.Report {
	f := filler{Rand: rand.New(rand.NewPCG(seed, 0))}
	f.text = func() string {
		runes := []rune("a/\\\"'<>&\n\r\t\x00\x1b\x7f\u0080\u009b\u2028\ufeff\ufffdé𝄞")
		s := []rune{'x'}
		for range f.IntN(6) {
			s = append(s, runes[f.IntN(len(runes))])
		}
		return string(s)
	}
	var r report.Report
	f.value(reflect.ValueOf(&r).Elem())
	r.Version = report.Version
	return r
}

func (f filler) unknown() bool { return !f.full && f.IntN(3) == 0 }

func (f filler) value(v reflect.Value) {
	if !f.unknown() {
		f.set(v)
	}
}

func (f filler) set(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(f.Int64N(1<<33), f.Int64N(1e9)).UTC()))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(f.addr()))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(f.addr(), uint16(f.IntN(4)))))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.set(v.Elem())
	case reflect.Struct:
		f.fields(v)
	case reflect.Slice:
		f.slice(v)
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.full || f.IntN(2) == 0)
	case reflect.Int:
		v.SetInt(f.Int64N(1<<20) - 1<<19)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(f.Uint64N(1 << 32))
	case reflect.Float64:
		v.SetFloat(f.NormFloat64())
	default:
		panic(fmt.Sprint("no values for ", v.Type()))
	}
}

func (f filler) addr() netip.Addr {
	if f.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(f.IntN(256))})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", f.IntN(65536)))
}

func (f filler) fields(v reflect.Value) {
	if v.Type() == reflect.TypeFor[host.Descriptor]() {
		f.descriptor(v, kinds[f.IntN(len(kinds))])
		return
	}
	for i := range v.NumField() {
		if tf := v.Type().Field(i); tf.IsExported() && tf.Tag.Get("report") != "-" {
			f.value(v.Field(i))
		}
	}
}

func (f filler) descriptor(v reflect.Value, kind host.Kind) {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		of := strings.Fields(tag.Get("kinds"))
		if tag.Get("report") == "-" {
			continue
		}
		if len(of) == 0 || slices.Contains(of, string(kind)) || of[0] == "*" && kind == "eventfd" {
			f.value(v.Field(i))
		}
	}
	v.FieldByName("Kind").SetString(string(kind))
}

func (f filler) slice(v reflect.Value) {
	n := 1
	if !f.full {
		n = f.IntN(4)
	} else if v.Type().Elem() == reflect.TypeFor[host.Descriptor]() {
		n = len(kinds)
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		if f.full && v.Type().Elem() == reflect.TypeFor[host.Descriptor]() {
			f.descriptor(v.Index(i), kinds[i])
			continue
		}
		f.value(v.Index(i))
	}
}
