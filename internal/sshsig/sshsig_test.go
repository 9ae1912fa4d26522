package sshsig_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/sshsig"
)

const namespace = "redemption@stopd"

// sign has ssh-keygen make a key of a type, and sign a message with it. It returns the public key and the signature.
func sign(t *testing.T, kind, message string, flags ...string) (public, signature string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen")
	}
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "message")
	if err := os.WriteFile(file, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	generate := []string{"-q", "-N", "", "-t", kind, "-f", key}
	if kind == "rsa" {
		generate = append(generate, "-b", "2048")
	}
	run(t, "", generate...)
	run(t, "", append(append([]string{"-q", "-Y", "sign", "-n", namespace, "-f", key}, flags...), file)...)
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return strings.TrimSpace(read(key + ".pub")), read(file + ".sig")
}

func run(t *testing.T, stdin string, args ...string) {
	t.Helper()
	c := exec.Command("ssh-keygen", args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
}

// What ssh-keygen signs is read, and nothing else than what it signed.
func TestSignaturesOfSSHKeygen(t *testing.T) {
	const message = "Redeem s...\nfor case 17.\n"
	for _, test := range []struct {
		kind  string
		flags []string
	}{{"ed25519", nil}, {"ecdsa", nil}, {"rsa", nil}, {"rsa", []string{"-O", "hashalg=sha256"}}, {"ed25519", []string{"-O", "hashalg=sha256"}}} {
		public, signature := sign(t, test.kind, message, test.flags...)
		s, err := sshsig.Parse(signature)
		if err != nil {
			t.Errorf("%s: %v", test.kind, err)
			continue
		}
		if err := s.Check([]byte(message), namespace); err != nil {
			t.Errorf("%s: %v", test.kind, err)
		}
		if s.Check([]byte(message+"\n"), namespace) == nil || s.Check(nil, namespace) == nil {
			t.Errorf("%s: a signature of another message is taken", test.kind)
		}
		if s.Check([]byte(message), "file") == nil {
			t.Errorf("%s: a signature for another purpose is taken", test.kind)
		}
		signers, err := sshsig.ParseSigners([]byte("alice@example.org " + public + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := signers.Allow("alice@example.org", namespace, s.Key, time.Now()); err != nil {
			t.Errorf("%s: %v", test.kind, err)
		}
		if signers.Allow("bob@example.org", namespace, s.Key, time.Now()) == nil {
			t.Errorf("%s: alice may sign for bob", test.kind)
		}
	}
}

// Any bit that is flipped in a signature makes it another one.
func TestEveryByteOfASignatureFlipped(t *testing.T) {
	const message = "Redeem s...\n"
	_, signature := sign(t, "ed25519", message)
	body := strings.TrimSuffix(strings.TrimPrefix(signature, "-----BEGIN SSH SIGNATURE-----\n"), "-----END SSH SIGNATURE-----\n")
	blob, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	for i := range blob {
		for bit := range 8 {
			blob[i] ^= 1 << bit
			armored := "-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(blob) + "\n-----END SSH SIGNATURE-----\n"
			blob[i] ^= 1 << bit
			if s, err := sshsig.Parse(armored); err == nil && s.Check([]byte(message), namespace) == nil {
				t.Fatalf("octet %d, bit %d: it is still good", i, bit)
			}
		}
	}
	for _, bad := range []string{"", "x" + signature, signature + signature, signature + "x", strings.Replace(signature, "\n", "", 1), signature[:len(signature)/2], "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n"} {
		if _, err := sshsig.Parse(bad); err == nil {
			t.Errorf("%q is taken for a signature", bad)
		}
	}
}

func TestAllowedSigners(t *testing.T) {
	public, signature := sign(t, "ed25519", "x")
	other, _ := sign(t, "ed25519", "x")
	s, err := sshsig.Parse(signature)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		list string
		want bool
	}{
		{"alice@example.org " + public, true},
		{"alice@example.org\t" + public, true},
		{`"alice@example.org,bob@example.org" ` + public, true},
		{"# a list\n\n*@example.org " + public, true},
		{"a?ice@example.org,x " + public, true},
		{"*,!alice@example.org " + public, false},
		{"!alice@example.org,* " + public, false},
		{"alice@example.com " + public, false},
		{"alice " + public, false},
		{"alice@example.org " + other, false},
		{"alice@example.org " + other + "\nalice@example.org " + public, true},
		{`alice@example.org namespaces="file,git" ` + public, false},
		{`alice@example.org namespaces="file,redemption@*" ` + public, true},
		{`alice@example.org NAMESPACES="redemption@stopd" ` + public, true},
		{`alice@example.org valid-after="20261123080001Z" ` + public, false},
		{`alice@example.org valid-after="20261123Z" ` + public, true},
		{`alice@example.org valid-before="20261123Z" ` + public, false},
		{`alice@example.org valid-before="202611230800Z" ` + public, true},
		{`alice@example.org valid-after="20261101Z",valid-before="20261201Z" ` + public, true},
		{`alice@example.org cert-authority ` + public, false},
		{"", false},
	} {
		signers, err := sshsig.ParseSigners([]byte(test.list))
		if err != nil {
			t.Errorf("%s: %v", test.list, err)
			continue
		}
		if err := signers.Allow("alice@example.org", namespace, s.Key, at); (err == nil) != test.want {
			t.Errorf("%s: %v, want allowed %t", test.list, err, test.want)
		}
	}
	for _, bad := range []string{
		"alice@example.org", public, `alice@example.org no-touch-required ` + public, `alice@example.org valid-before="soon" ` + public,
		`alice@example.org valid-before="2026" ` + public, `alice@example.org namespaces="" ` + public, "alice@example.org ssh-ed25519 AAAA", "alice@example.org \x00" + public,
	} {
		if signers, err := sshsig.ParseSigners([]byte(bad)); err == nil && signers.Allow("alice@example.org", namespace, s.Key, at) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// The list says the same to ssh-keygen.
func TestSignersAsSSHKeygenReadsThem(t *testing.T) {
	public, signature := sign(t, "ed25519", "x")
	s, err := sshsig.Parse(signature)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	list, sig := filepath.Join(dir, "list"), filepath.Join(dir, "sig")
	if err := os.WriteFile(sig, []byte(signature), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"alice@example.org " + public, "*@example.org,!alice@* " + public, `alice@example.org namespaces="file" ` + public, `alice@example.org namespaces="redemption@*" ` + public,
		`alice@example.org valid-before="20200101Z" ` + public, `alice@example.org valid-after="20200101" ` + public, `alice@example.org cert-authority ` + public,
		`"alice@example.org" ` + public, "ALICE@example.org " + public,
	} {
		if err := os.WriteFile(list, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("ssh-keygen", "-q", "-Y", "verify", "-n", namespace, "-I", "alice@example.org", "-f", list, "-s", sig)
		c.Stdin = strings.NewReader("x")
		theirs := c.Run() == nil
		signers, err := sshsig.ParseSigners([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if ours := signers.Allow("alice@example.org", namespace, s.Key, time.Now()) == nil; ours != theirs {
			t.Errorf("%s: allowed %t, and ssh-keygen says %t", line, ours, theirs)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n", "alice@example.org ssh-ed25519 AAAA")
	// The example of PROTOCOL.sshsig.
	f.Add("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgJKxoLBJBivUPNTUJUSslQTt2hD\njozKvHarKeN8uYFqgAAAADZm9vAAAAAAAAAFMAAAALc3NoLWVkMjU1MTkAAABAKNC4IEbt\n"+
		"Tq0Fb56xhtuE1/lK9H9RZJfON4o6hE9R4ZGFX98gy0+fFJ/1d2/RxnZky0Y7GojwrZkrHT\nFgCqVWAQ==\n-----END SSH SIGNATURE-----\n", `a,b namespaces="x" ssh-ed25519 AAAA`)
	f.Fuzz(func(t *testing.T, signature, list string) {
		s, err := sshsig.Parse(signature)
		signers, _ := sshsig.ParseSigners([]byte(list))
		if err != nil {
			return
		}
		s.Check([]byte("x"), s.Namespace)
		signers.Allow("alice", s.Namespace, s.Key, time.Time{})
	})
}
