package posix

import (
	"strings"
	"testing"
)

func TestParsePasswd(t *testing.T) {
	for _, c := range []struct {
		line string
		want Account
	}{
		{"alice:x:1000:1001:Alice,,,:/home/alice:/bin/bash\n", Account{"alice", 1001, "/home/alice"}},
		{"alice:x:1000:1001::/home/alice", Account{"alice", 1001, "/home/alice"}},
		{"ACME\\xavier:*:1000:4294967294::/home/x y:\nbob:x:1000:1::/:\n", Account{"ACME\\xavier", 4294967294, "/home/x y"}},
		{"j\xfc:x:1000:0:::", Account{"j\xfc", 0, ""}},
		{"alice:x:1001:1001::/home/alice:/bin/bash", Account{}},
		{"alice:x:01000:1001::/home/alice:/bin/bash", Account{}},
		{":x:1000:1001::/home/alice:/bin/bash", Account{}},
		{"alice:x:1000:-1::/home/alice:/bin/bash", Account{}},
		{"alice:x:1000:4294967296::/home/alice:/bin/bash", Account{}},
		{"alice:x:1000:1001:", Account{}},
		{"", Account{}},
	} {
		got, err := parsePasswd([]byte(c.line), 1000)
		if got != c.want || (err == nil) != (c.want != Account{}) {
			t.Errorf("%q: %+v, %v", c.line, got, err)
		}
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add([]byte("alice:x:1000:1001:Alice:/home/alice:/bin/bash\n"))
	f.Add([]byte("alice:x:1000:-1::\nbob:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parsePasswd(b, 1000)
		if err != nil && a != (Account{}) || err == nil && (a.Name == "" || strings.ContainsAny(a.Name+a.Home, ":\n")) {
			t.Errorf("%q: %+v, %v", b, a, err)
		}
	})
}
