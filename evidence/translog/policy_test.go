package translog

import (
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
)

func TestPolicy(t *testing.T) {
	key := newKey(t)
	a, b := newWitness(t, "a.example", key), newWitness(t, "b.example", key)
	if _, err := NewPolicy(key.Verifier(), []Witness{a.Witness, a.Witness}, 1); err == nil {
		t.Error("one witness twice")
	}
	if _, err := NewPolicy(key.Verifier(), []Witness{a.Witness}, 2); err == nil {
		t.Error("a quorum of 2 of 1")
	}
	text := fmt.Sprintf("log %s\nwitness A %s %s\nwitness B %s\ngroup both all A B\nquorum both\n",
		key.Public(), a.key, a.URL, b.key)
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if p.Origin() != key.Origin() || !p.Witnessed() || len(p.Witnesses) != 2 || p.Witnesses[0].URL != a.URL || p.Witnesses[1].URL != "" {
		t.Errorf("policy %+v", p)
	}
	signer, err := torchwood.NewCosignatureSigner("alias.example", a.private)
	if err != nil {
		t.Fatal(err)
	}
	twice := strings.Replace(text, "witness B "+b.key.String(), "witness B "+signer.Verifier().String(), 1)
	if twice == text {
		t.Fatal("the policy has no second witness")
	}
	for _, bad := range []string{twice, strings.Replace(text, "all A B", "2 A A", 1), strings.ReplaceAll(text, "\n", "\r\n"), "", "quorum none\n", "log x\nquorum none\n", text + "quorum none\n", text + "log " + key.Public() + "\n",
		strings.Replace(text, a.URL, "ftp://a", 1)} {
		if _, err := ParsePolicy([]byte(bad)); err == nil {
			t.Errorf("ParsePolicy(%q) succeeded", bad)
		}
	}
	alone, err := ParsePolicy([]byte("log " + key.Public() + "\nquorum none\n"))
	if err != nil || alone.Witnessed() {
		t.Errorf("without witnesses: %v, witnessed %v", err, alone.Witnessed())
	}
	for _, bad := range []string{"w.example", "https://", "https://u@h/", "https://h/?q", "gopher://h/"} {
		if _, err := ParseWitness(bad, a.key.String()); err == nil {
			t.Errorf("ParseWitness(%q) succeeded", bad)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	key := newKey(f)
	w := newWitness(f, "w.example", key)
	f.Add(fmt.Appendf(nil, "log %s\nwitness W %s http://w.example\nquorum W\n", key.Public(), w.key))
	f.Add([]byte("log\nwitness\ngroup\nquorum none"))
	f.Add([]byte("\v"))
	f.Add([]byte("\u00a0"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if p, err := ParsePolicy(b); err == nil {
			p.Witnessed()
		}
	})
}
