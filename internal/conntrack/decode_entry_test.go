package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stopd/stopd/internal/nlattr"
)

func flowOf(src, dst string) Tuple {
	return Tuple{netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)}
}

// entryOf makes an entry as the kernel answers it.
func entryOf(e Entry) []byte {
	b := AppendTuple(AppendTuple(header(e.Original.Src.Addr()), OriginalTuple, e.Original), ReplyTuple, e.Reply)
	status := byte(0x88)
	if e.Replied {
		status |= statusReplied
	}
	return nlattr.Append(b, ctaStatus, []byte{0, 0, 1, status})
}

// recorded returns an answer of a Linux 6.18 on amd64, recorded by TestRecordTracked of internal/linux.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("recorded on a machine with the other byte order")
	}
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entryRecorded is an entry of an established connection.
func entryRecorded(zone uint16, original, reply Tuple) Entry {
	return Entry{Original: original, Reply: reply, Zone: zone, State: "ESTABLISHED"}
}

// recordedEntries are those of testdata.
var recordedEntries = []struct {
	name  string
	zones []uint16
	want  Entry
}{
	{"plain4", nil, entryRecorded(0, flowOf("10.0.0.2:40000", "192.0.2.3:80"), flowOf("192.0.2.3:80", "10.0.0.2:40000"))},
	{"snat4", nil, entryRecorded(0, flowOf("10.0.0.2:5555", "192.0.2.3:80"), flowOf("192.0.2.3:80", "192.0.2.2:61000"))},
	{"dnat4", nil, entryRecorded(0, flowOf("192.0.2.1:616", "192.0.2.2:2222"), flowOf("10.0.0.2:22", "192.0.2.1:616"))},
	{"snat6", nil, entryRecorded(0, flowOf("[fd00::2]:5555", "[2001:db8::3]:80"), flowOf("[2001:db8::3]:80", "[2001:db8::2]:61000"))},
	{"dnat6", nil, entryRecorded(0, flowOf("[2001:db8::1]:616", "[2001:db8::2]:2222"), flowOf("[fd00::2]:22", "[2001:db8::1]:616"))},
	{"zone4", []uint16{7}, entryRecorded(7, flowOf("10.0.0.2:6666", "192.0.2.3:80"), flowOf("192.0.2.3:80", "192.0.2.2:61001"))},
	{"zone4-original", []uint16{8}, entryRecorded(0, flowOf("10.0.0.2:7777", "192.0.2.3:80"), flowOf("192.0.2.3:80", "192.0.2.2:61002"))},
	{"zone6", []uint16{256}, entryRecorded(256, flowOf("[2001:db8::1]:617", "[2001:db8::2]:2222"), flowOf("[fd00::2]:22", "[2001:db8::1]:617"))},
}

func TestParseRecorded(t *testing.T) {
	for _, c := range recordedEntries {
		b := recorded(t, c.name)
		if got, err := ParseEntry(b); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if got := ParseZones(b); !slices.Equal(got, c.zones) {
			t.Errorf("%s: zones %v, want %v", c.name, got, c.zones)
		}
	}
	if got, err := ParseStats(recorded(t, "stats")); got != uint32(len(recordedEntries)) || err != nil {
		t.Errorf("%d entries, %v", got, err)
	}
}

// What the kernel first saw in its middle it shows with the ends of whoever spoke then. It is of a service on port 7001 of an address, and of a client of it on the same
// host, made before the tracking was: the service spoke first after that (Linux 6.18, amd64).
func TestParsePickedUp(t *testing.T) {
	e, err := ParseEntry(recorded(t, "picked-up4"))
	if err != nil || !e.PickedUp || !e.Assured || e.Original.Src != netip.MustParseAddrPort("127.0.0.1:7001") || e.Reply != e.Original.Back() {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestParseEntry(t *testing.T) {
	for _, want := range []Entry{
		{Original: flowOf("10.0.0.2:5555", "192.0.2.3:80"), Reply: flowOf("192.0.2.3:80", "192.0.2.2:61000")},
		{Original: flowOf("[2001:db8::1]:40000", "[2001:db8::2]:2222"), Reply: flowOf("[fd00::2]:22", "[2001:db8::1]:40000"), Replied: true},
	} {
		got, err := ParseEntry(entryOf(want))
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"no directions": {2, 0, 0, 0},
		"one direction": AppendTuple([]byte{2, 0, 0, 0}, OriginalTuple, flowOf("10.0.0.2:1", "10.0.0.3:2")),
		"cut":           entryOf(Entry{Original: flowOf("10.0.0.2:1", "10.0.0.3:2"), Reply: flowOf("10.0.0.3:2", "10.0.0.2:1")})[:50],
	} {
		if got, err := ParseEntry(b); !errors.Is(err, nlattr.ErrSyntax) || got != (Entry{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A packet leaves as the reverse of what comes the other way.
func TestTranslate(t *testing.T) {
	source := Entry{Original: flowOf("10.0.0.2:5555", "192.0.2.3:80"), Reply: flowOf("192.0.2.3:80", "192.0.2.2:61000")}
	forward := Entry{Original: flowOf("192.0.2.1:616", "192.0.2.2:2222"), Reply: flowOf("10.0.0.2:22", "192.0.2.1:616")}
	hairpin := Entry{Original: flowOf("10.0.0.3:4000", "192.0.2.2:2222"), Reply: flowOf("10.0.0.2:22", "10.0.0.1:61001")}
	for _, c := range []struct {
		entry    Entry
		in, want Tuple
	}{
		{source, flowOf("10.0.0.2:5555", "192.0.2.3:80"), flowOf("192.0.2.2:61000", "192.0.2.3:80")},
		{source, flowOf("192.0.2.3:80", "192.0.2.2:61000"), flowOf("192.0.2.3:80", "10.0.0.2:5555")},
		{forward, flowOf("192.0.2.1:616", "192.0.2.2:2222"), flowOf("192.0.2.1:616", "10.0.0.2:22")},
		{forward, flowOf("10.0.0.2:22", "192.0.2.1:616"), flowOf("192.0.2.2:2222", "192.0.2.1:616")},
		{hairpin, flowOf("10.0.0.3:4000", "192.0.2.2:2222"), flowOf("10.0.0.1:61001", "10.0.0.2:22")},
		{hairpin, flowOf("10.0.0.2:22", "10.0.0.1:61001"), flowOf("192.0.2.2:2222", "10.0.0.3:4000")},
	} {
		got, ok := c.entry.Translate(c.in)
		if got != c.want || !ok {
			t.Errorf("%v: %v, %t, want %v", c.in, got, ok, c.want)
		}
	}
	if got, ok := source.Translate(flowOf("10.0.0.2:5555", "192.0.2.3:81")); ok || got != flowOf("10.0.0.2:5555", "192.0.2.3:81") {
		t.Errorf("another connection: %v, %t", got, ok)
	}
}

func TestMerged(t *testing.T) {
	p := flowOf("192.0.2.1:616", "192.0.2.2:2222")
	same := Entry{Original: p, Reply: p.Back()}
	one := Entry{Original: p, Reply: flowOf("10.0.0.2:22", "192.0.2.1:616")}
	two := Entry{Original: p, Reply: flowOf("10.0.0.3:22", "192.0.2.1:616")}
	for name, c := range map[string]struct {
		found []Entry
		want  Entry
		ok    bool
		fails bool
	}{
		"none":                    {},
		"one zone":                {found: []Entry{one}, want: one, ok: true},
		"the second translates":   {found: []Entry{same, one}, want: one, ok: true},
		"the first translates":    {found: []Entry{one, same}, want: one, ok: true},
		"both do so alike":        {found: []Entry{one, one}, want: one, ok: true},
		"both do so, differently": {found: []Entry{one, same, two}, fails: true},
	} {
		got, ok, err := Merged(c.found, p)
		if got != c.want || ok != c.ok || (err != nil) != c.fails {
			t.Errorf("%s: %v, %t, %v", name, got, ok, err)
		}
	}
}

func TestParseZones(t *testing.T) {
	entry := entryOf(Entry{Original: flowOf("10.0.0.2:1", "10.0.0.3:2"), Reply: flowOf("10.0.0.3:2", "10.0.0.2:1")})
	both := nlattr.Append(slices.Clone(entry), ctaZone, []byte{0, 7})
	one := nlattr.Append([]byte{2, 0, 0, 0}, OriginalTuple|nlattr.Nested, nlattr.Append(nil, ctaTupleZone, []byte{1, 0}))
	for name, c := range map[string]struct {
		b    []byte
		want []uint16
	}{"none": {entry, nil}, "both directions": {both, []uint16{7}}, "one direction": {one, []uint16{256}}, "empty": {nil, nil}} {
		if got := ParseZones(c.b); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestParseStats(t *testing.T) {
	if n, err := ParseStats(nlattr.Append([]byte{0, 0, 0, 0}, ctaStatsEntries, []byte{0, 0, 1, 2})); n != 258 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := ParseStats(nil); !errors.Is(err, nlattr.ErrSyntax) {
		t.Error(err)
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, c := range recordedEntries {
		f.Add(recorded(f, c.name))
	}
	f.Add(recorded(f, "stats"))
	f.Add(entryOf(Entry{Original: flowOf("10.0.0.2:1", "10.0.0.3:2"), Reply: flowOf("10.0.0.3:2", "10.0.0.2:1")}))
	f.Add(entryOf(Entry{Original: flowOf("[fd00::2]:1", "[fd00::3]:2"), Reply: flowOf("[fd00::3]:2", "[fd00::2]:1")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseZones(b)
		_, _ = ParseStats(b)
		_, _, _ = ParseEvent(MessageDelete, 0, b)
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		p, ok := e.Translate(e.Original)
		if !ok {
			t.Fatalf("%v does not belong to its own entry", e.Original)
		}
		if back, _ := e.Translate(p.Back()); e.Original != e.Reply && back != e.Original.Back() {
			t.Errorf("%v comes back as %v", e, back)
		}
	})
}
