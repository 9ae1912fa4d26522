package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stopd/stopd/evidence/translog"
)

// What a daemon kept and two witnesses cosigned is disclosed, and proven by a policy alone; by no other one.
func TestWitnessedBundle(t *testing.T) {
	w := newWitnessed(t)
	w.start()
	code, token := w.stopctl("request", "-type", "SV_REC", "-sid", "7", "-for", "192.0.2.7", w.address, "1", "2")
	if token = strings.TrimSpace(token); code != 0 {
		t.Fatal(token)
	}
	w.stop(os.Interrupt) // after the trace-back record is written
	w.start()
	w.covered()
	key, err := translog.ReadKey(filepath.Join(w.dir, "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text string) string {
		path := filepath.Join(w.bin, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := w.witnesses[0], w.witnesses[1]
	policy := write("policy", fmt.Sprintf("log %s\nwitness a %s\nwitness b %s\ngroup both all a b\nquorum both\n", key.Public(), a.key, b.key))
	stranger := startWitness(t, "c.example/w1", key.Origin(), key.Public())
	strict := write("strict", fmt.Sprintf("log %s\nwitness a %s\nwitness c %s\ngroup both all a c\nquorum both\n", key.Public(), a.key, stranger.key))
	bundle := exec.Command(filepath.Join(w.bin, "stopctl"), "bundle", "-store", filepath.Join(w.dir, "store"), "-identity", filepath.Join(w.dir, "admin.key"),
		"-by", "alice", "-reason", "case 17", token)
	out, err := bundle.Output()
	if err != nil {
		t.Fatal(err)
	}
	file := write("case17.zip", string(out))
	verify := func(want int, policy string, texts ...string) {
		t.Helper()
		got, out := w.stopctl("verify", "-policy", policy, file)
		flat := strings.Join(strings.Fields(out), " ")
		if got != want {
			t.Errorf("verify exits %d, want %d\n%s", got, want, out)
		}
		for _, text := range texts {
			if !strings.Contains(flat, text) {
				t.Errorf("no %q in\n%s", text, out)
			}
		}
	}
	verify(0, policy, "The report existed no later than", "2 of the 2 witnesses that the policy names had then signed", "a.example/w1 (", "b.example/w1 (",
		"answers of previous hosts", "The policy is met: the report existed no later than")
	verify(3, strict, "policy not met", "is under no checkpoint that as many witnesses have signed as the policy asks for")
}
