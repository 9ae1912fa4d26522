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
		{queueObject, 4026531839, 3}:      "msg:[4026531839:3]",
		{semObject, 4026531839, 3}:        "sem:[4026531839:3]",
		{eventObject, 0, 7}:               "eventfd:[0:7]",
		{ringObject, 16, 17}:              "io_uring:[16:17]",
		{ttyObject, 4, 64}:                "tty:[4:64]",
		{traceObject, 0, 4711}:            "ptrace:[0:4711]",
		{fuseObject, 0, 39}:               "fuse:[0:39]",
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
		{ttyObject, 4, 64}: {ttyObject, 4, 64}, {eventObject, 0, 7}: {eventObject, 0, 7}, {deviceObject, 5, 0}: {}, {anonObject, 16, 1038}: {},
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
