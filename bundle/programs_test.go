package bundle

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Other programs may pack a bag again.
func TestOtherPrograms(t *testing.T) {
	s := newSite(t, "stone.example", 1)
	token := s.keep("report one", "[]")
	s.bundle(token)
	b := s.bundle(token)
	want := mustOpen(t, b)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.zip"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	shell := func(command string) ([]byte, error) {
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		return c.CombinedOutput()
	}
	need := func(programs ...string) bool {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				t.Logf("no %s", p)
				return false
			}
		}
		return true
	}
	if !need("unzip") {
		t.Skip("nothing to unpack with")
	}
	if out, err := shell("unzip -q a.zip && mv s* bag && cd bag && sha256sum -c --strict --quiet manifest-sha256.txt && sha256sum -c --strict --quiet tagmanifest-sha256.txt"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What docs/bundle.md does by hand: the leaf in a proof is of the token and of the record.
	if need("xxd", "base64") {
		if out, err := shell(byHand); err != nil || strings.TrimSpace(string(out)) != "4 records, 3 of the report's locator" {
			t.Errorf("by hand: %v: %s", err, out)
		}
	}
	for command, program := range map[string]string{
		"zip -q -r b.zip bag": "zip", "zip -q -r -D -X -9 b.zip bag": "zip", "zip -q -r -0 b.zip bag": "zip", "zip -q -r - bag >b.zip": "zip",
		"python3 -m zipfile -c b.zip bag":                                                 "python3",
		"python3 -c 'import shutil; shutil.make_archive(\"b\", \"zip\", \".\", \"bag\")'": "python3",
		"python3 -c '" + streaming + "' >b.zip":                                           "python3",
	} {
		if !need(program) {
			continue
		}
		out, err := shell("rm -f b.zip; " + command)
		if err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
			continue
		}
		again, err := os.ReadFile(filepath.Join(dir, "b.zip"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Open(again)
		if err != nil {
			t.Errorf("%s: %v", command, err)
		} else if got.Token != want.Token || !bytes.Equal(got.Report, want.Report) || len(got.Records) != len(want.Records) {
			t.Errorf("%s: it says something else", command)
		}
	}
	if need("zip") {
		if out, err := shell("ln -s /etc/passwd bag/data/x; zip -q -y -r l.zip bag; rm bag/data/x"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		linked, err := os.ReadFile(filepath.Join(dir, "l.zip"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(linked); !errors.Is(err, ErrAltered) {
			t.Errorf("with a link: %v", err)
		}
	}
}

const byHand = `
cd bag
{ printf 'stopd store v2 report\0'; sha256sum <data/report.json | cut -c1-64 | xxd -r -p; } | sha256sum | cut -c1-64 | xxd -r -p >../r
locator=$({ printf 'stopd store v2 leaf\0'; cat ../r; } | sha256sum | cut -c1-64)
records=0 same=0
for r in data/log/*.record; do
  content=$({ printf 'stopd store v2 content\0'; head -c 68 $r; tail -c +73 $r; } | sha256sum | cut -c1-64)
  set -- $(sed -n 's/^extra //p' ${r%.record}.tlog-proof | base64 -d | tail -c 64 | xxd -p -c 32)
  [ "$2" = "$content" ] && records=$((records + 1))
  [ "$1" = "$locator" ] && same=$((same + 1))
done
echo "$records records, $same of the report's locator"
`

// streaming writes a zip file to what cannot be rewound: sizes follow each file.
const streaming = `
import os, sys, zipfile
class Pipe:
    def write(self, b): return sys.stdout.buffer.write(b)
    def flush(self): sys.stdout.buffer.flush()
with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as z:
    for d, _, names in os.walk("bag"):
        for n in names: z.write(os.path.join(d, n))
`
