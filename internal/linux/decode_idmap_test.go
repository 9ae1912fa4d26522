package linux

import "testing"

func TestIDMap(t *testing.T) {
	for _, tt := range []struct {
		ids, overflow string
		id            uint32
		known         bool
	}{
		{"         0          0 4294967295\n", "65534\n", 65534, true},
		{"         0     100000      65536\n", "65534\n", 65534, false},
		{"         0     100000      65536\n", "65534\n", 1000, true},
		{"         0     100000      65536\n", "60000\n", 60000, false},
		{"         0     100000      65536\n", "60000\n", 65534, true},
		{"0 0 1\n1 1 4294967294\n", "", 65534, false},
		{"", "x", 65534, false},
	} {
		if p := parseIDMap([]byte(tt.ids), []byte(tt.overflow)).known(tt.id); (p != nil) != tt.known || p != nil && *p != tt.id {
			t.Errorf("%q, %q: %d is known %t, want %t", tt.ids, tt.overflow, tt.id, p != nil, tt.known)
		}
	}
}

func FuzzParseIDMap(f *testing.F) {
	f.Add([]byte("0 0 4294967295\n"), []byte("65534\n"), uint32(65534))
	f.Fuzz(func(t *testing.T, ids, overflow []byte, id uint32) {
		m := parseIDMap(ids, overflow)
		if p := m.known(id); p == nil && (m.all || id != m.overflow) {
			t.Errorf("%+v does not know %d", m, id)
		}
	})
}
