package linux

import (
	"math"
	"testing"

	"github.com/stopd/stopd/host"
)

func TestObjectName(t *testing.T) {
	for o, want := range map[object]host.Object{
		{}:                                "",
		{socketObject, 0, 17}:             "socket:[17]",
		{pipeObject, 0, 17}:               "pipe:[17]",
		{fifoObject, 65, 17}:              "fifo:[65:17]",
		{masterObject, 23, 0}:             "ptm:[23:0]",
		{slaveObject, 23, math.MaxUint64}: "pts:[23:18446744073709551615]",
	} {
		got := o.name()
		if got != want {
			t.Errorf("name of %+v: %q, want %q", o, got, want)
		}
		if back, ok := parseObject(got); o.class != 0 && (!ok || back != o) {
			t.Errorf("parseObject(%q) = %+v, %t; want %+v", got, back, ok, o)
		}
	}
	for _, s := range []host.Object{"", "socket", "socket:[]", "socket:[x]", "socket:[-1]", "socket:[+1]", "socket:[01]", "socket:[1:2]", "pipe:[0:1]",
		"fifo:[1]", "fifo:[1:]", "fifo:[1:2:3]", "socket:[1", "socket:1]", "socket:[1]]", " socket:[1]", "socket:[18446744073709551616]", "anon:[1]", ":[1]"} {
		if o, ok := parseObject(s); ok || o != (object{}) {
			t.Errorf("parseObject(%q) = %+v, %t", s, o, ok)
		}
	}
}

func TestObjectPeer(t *testing.T) {
	for o, want := range map[object]object{
		{socketObject, 0, 1}: {}, {pipeObject, 0, 1}: {pipeObject, 0, 1}, {fifoObject, 2, 1}: {fifoObject, 2, 1},
		{masterObject, 2, 1}: {slaveObject, 2, 1}, {slaveObject, 2, 1}: {masterObject, 2, 1}, {}: {},
	} {
		if got := o.peer(); got != want {
			t.Errorf("peer of %+v: %+v, want %+v", o, got, want)
		}
	}
}

func FuzzParseObject(f *testing.F) {
	for _, s := range []string{"socket:[17]", "pts:[23:1]", "fifo:[0:0]", "pipe:[00]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, ok := parseObject(host.Object(s))
		if !ok {
			if o != (object{}) {
				t.Errorf("parseObject(%q) = %+v without success", s, o)
			}
			return
		}
		if got := o.name(); string(got) != s {
			t.Errorf("parseObject(%q).name() = %q", s, got)
		}
	})
}
