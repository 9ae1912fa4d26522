package translog

import (
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	text, err := GenerateKey("a host+more")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(k.Origin(), "a-host-more/stopd/") || !strings.HasPrefix(k.Public(), k.Origin()+"+") {
		t.Errorf("origin %q, public key %q", k.Origin(), k.Public())
	}
	other, _ := GenerateKey("a host+more")
	private, public, _ := strings.Cut(string(text), "\n")
	_, otherPublic, _ := strings.Cut(string(other), "\n")
	for _, bad := range []string{"", private, public, private + "\n" + otherPublic, public + "\n" + private} {
		if _, err := ParseKey([]byte(bad)); err == nil {
			t.Errorf("ParseKey(%q) succeeded", bad)
		} else if strings.Contains(err.Error(), private) {
			t.Error("the error holds the private key")
		}
	}
}
