package linux

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func flowOf(src, dst string) packet {
	return packet{netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)}
}

var equatePackets = cmp.Options{cmp.AllowUnexported(packet{}, tracked{}, route{}, link{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

// entryOf makes an entry as the kernel answers it.
func entryOf(t tracked) []byte {
	b := append(nfGenMsg(t.original.src.Addr()), tupleAttribute(ctaTupleOrig, t.original)...)
	b = append(b, tupleAttribute(ctaTupleReply, t.reply)...)
	return appendAttribute(b, 3, []byte{0, 0, 1, 0x8e}) // CTA_STATUS
}

func TestParseTracked(t *testing.T) {
	for _, want := range []tracked{
		{flowOf("10.0.0.2:5555", "192.0.2.3:80"), flowOf("192.0.2.3:80", "192.0.2.2:61000")},
		{flowOf("[2001:db8::1]:40000", "[2001:db8::2]:2222"), flowOf("[fd00::2]:22", "[2001:db8::1]:40000")},
	} {
		got, err := parseTracked(entryOf(want))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equatePackets); d != "" {
			t.Error(d)
		}
	}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"no directions": {2, 0, 0, 0},
		"one direction": append([]byte{2, 0, 0, 0}, tupleAttribute(ctaTupleOrig, flowOf("10.0.0.2:1", "10.0.0.3:2"))...),
		"cut":           entryOf(tracked{flowOf("10.0.0.2:1", "10.0.0.3:2"), flowOf("10.0.0.3:2", "10.0.0.2:1")})[:50],
	} {
		if got, err := parseTracked(b); !errors.Is(err, errSyntax) || got != (tracked{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A packet leaves as the reverse of what comes the other way.
func TestTranslate(t *testing.T) {
	source := tracked{flowOf("10.0.0.2:5555", "192.0.2.3:80"), flowOf("192.0.2.3:80", "192.0.2.2:61000")}
	forward := tracked{flowOf("192.0.2.1:616", "192.0.2.2:2222"), flowOf("10.0.0.2:22", "192.0.2.1:616")}
	hairpin := tracked{flowOf("10.0.0.3:4000", "192.0.2.2:2222"), flowOf("10.0.0.2:22", "10.0.0.1:61001")}
	for _, c := range []struct {
		entry    tracked
		in, want packet
	}{
		{source, flowOf("10.0.0.2:5555", "192.0.2.3:80"), flowOf("192.0.2.2:61000", "192.0.2.3:80")},
		{source, flowOf("192.0.2.3:80", "192.0.2.2:61000"), flowOf("192.0.2.3:80", "10.0.0.2:5555")},
		{forward, flowOf("192.0.2.1:616", "192.0.2.2:2222"), flowOf("192.0.2.1:616", "10.0.0.2:22")},
		{forward, flowOf("10.0.0.2:22", "192.0.2.1:616"), flowOf("192.0.2.2:2222", "192.0.2.1:616")},
		{hairpin, flowOf("10.0.0.3:4000", "192.0.2.2:2222"), flowOf("10.0.0.1:61001", "10.0.0.2:22")},
		{hairpin, flowOf("10.0.0.2:22", "10.0.0.1:61001"), flowOf("192.0.2.2:2222", "10.0.0.3:4000")},
	} {
		got, ok := c.entry.translate(c.in)
		if d := cmp.Diff(c.want, got, equatePackets); d != "" || !ok {
			t.Errorf("%v: %t %s", c.in, ok, d)
		}
	}
	if got, ok := source.translate(flowOf("10.0.0.2:5555", "192.0.2.3:81")); ok || got != flowOf("10.0.0.2:5555", "192.0.2.3:81") {
		t.Errorf("another connection: %v, %t", got, ok)
	}
}

func TestMerged(t *testing.T) {
	p := flowOf("192.0.2.1:616", "192.0.2.2:2222")
	same := tracked{p, p.back()}
	one := tracked{p, flowOf("10.0.0.2:22", "192.0.2.1:616")}
	two := tracked{p, flowOf("10.0.0.3:22", "192.0.2.1:616")}
	for name, c := range map[string]struct {
		found []tracked
		want  tracked
		ok    bool
		fails bool
	}{
		"none":                    {},
		"one zone":                {found: []tracked{one}, want: one, ok: true},
		"the second translates":   {found: []tracked{same, one}, want: one, ok: true},
		"the first translates":    {found: []tracked{one, same}, want: one, ok: true},
		"both do so alike":        {found: []tracked{one, one}, want: one, ok: true},
		"both do so, differently": {found: []tracked{one, same, two}, fails: true},
	} {
		got, ok, err := merged(c.found, p)
		if got != c.want || ok != c.ok || (err != nil) != c.fails {
			t.Errorf("%s: %v, %t, %v", name, got, ok, err)
		}
	}
}

func TestParseZones(t *testing.T) {
	entry := entryOf(tracked{flowOf("10.0.0.2:1", "10.0.0.3:2"), flowOf("10.0.0.3:2", "10.0.0.2:1")})
	both := appendAttribute(slices.Clone(entry), ctaZone, []byte{0, 7})
	one := appendAttribute([]byte{2, 0, 0, 0}, ctaTupleOrig|nested, appendAttribute(nil, ctaTupleZone, []byte{1, 0}))
	for name, c := range map[string]struct {
		b    []byte
		want []uint16
	}{"none": {entry, nil}, "both directions": {both, []uint16{7}}, "one direction": {one, []uint16{256}}, "empty": {nil, nil}} {
		if got := parseZones(c.b); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	message := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// struct nlmsghdr: length, type, flags, sequence, port; of a little-endian machine.
	for name, c := range map[string]struct {
		b    []byte
		want string
		err  error
	}{
		"payload":          {message("14000000" + "0001" + "0200" + "07000000" + "01000000" + "02000000"), "\x02\x00\x00\x00", nil},
		"refused":          {message("14000000" + "0200" + "0000" + "07000000" + "01000000" + "ffffffff"), "", syscall.EPERM},
		"another sequence": {message("14000000" + "0001" + "0200" + "08000000" + "01000000" + "02000000"), "", errSyntax},
		"cut":              {message("18000000" + "0001" + "0200" + "07000000" + "01000000" + "02000000"), "", errSyntax},
		"empty":            {nil, "", errSyntax},
	} {
		if got, err := parseAnswer(c.b, 7); string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestParseEntries(t *testing.T) {
	if n, err := parseEntries(appendAttribute([]byte{0, 0, 0, 0}, ctaStatsEntries, []byte{0, 0, 1, 2})); n != 258 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseEntries(nil); !errors.Is(err, errSyntax) {
		t.Error(err)
	}
}

func FuzzParseTracked(f *testing.F) {
	for _, c := range recordedEntries {
		f.Add(recordedBy(f, "ctnetlink", c.name))
	}
	f.Add(recordedBy(f, "ctnetlink", "stats"))
	f.Add(entryOf(tracked{flowOf("10.0.0.2:1", "10.0.0.3:2"), flowOf("10.0.0.3:2", "10.0.0.2:1")}))
	f.Add(entryOf(tracked{flowOf("[fd00::2]:1", "[fd00::3]:2"), flowOf("[fd00::3]:2", "[fd00::2]:1")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseZones(b)
		_, _ = parseEntries(b)
		_, _ = parseAnswer(b, 0)
		e, err := parseTracked(b)
		if err != nil {
			return
		}
		p, ok := e.translate(e.original)
		if !ok {
			t.Fatalf("%v does not belong to its own entry", e.original)
		}
		if back, _ := e.translate(p.back()); e.original != e.reply && back != e.original.back() {
			t.Errorf("%v comes back as %v", e, back)
		}
	})
}
