package integration

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/stopd/stopd/evidence/translog"
)

var litewitness struct {
	once sync.Once
	path string
	err  error
}

// buildWitness builds torchwood's litewitness, of the version that this module has of torchwood.
func buildWitness(t *testing.T) string {
	t.Helper()
	litewitness.once.Do(func() {
		version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "filippo.io/torchwood").Output()
		if err != nil {
			litewitness.err = err
			return
		}
		dir, err := os.MkdirTemp("", "stopd-witness-")
		if err != nil {
			litewitness.err = err
			return
		}
		ends = append(ends, func() error { return os.RemoveAll(dir) })
		install := exec.Command("go", "install", "filippo.io/torchwood/cmd/litewitness@"+strings.TrimSpace(string(version)))
		install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
		if out, err := install.CombinedOutput(); err != nil {
			litewitness.err = fmt.Errorf("build litewitness: %w: %s", err, out)
		}
		litewitness.path = filepath.Join(dir, "litewitness")
	})
	if litewitness.err != nil {
		t.Fatal(litewitness.err)
	}
	return litewitness.path
}

// A liteWitness is a litewitness on this machine's loopback.
type liteWitness struct {
	url, key string
	dir      string
	address  string
	name     string
	print    string // fingerprint of its key
	stop     func()
}

// startWitness starts a litewitness that knows a log.
func startWitness(t *testing.T, name, origin, logKey string) *liteWitness {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := torchwood.NewCosignatureSigner(name, private)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	w := &liteWitness{dir: t.TempDir(), name: name, key: signer.Verifier().String(), print: ssh.FingerprintSHA256(sshKey)}
	serveAgent(t, filepath.Join(w.dir, "agent"), private)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = free.Addr().String()
	w.url = "http://" + w.address
	free.Close()
	w.start(t)
	// What witnessctl add-log and add-key do.
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	sql := fmt.Sprintf("INSERT INTO log (origin, tree_size, tree_hash) VALUES ('%s', 0, '%s'); INSERT INTO key (origin, key) VALUES ('%[1]s', '%[3]s');",
		origin, empty, logKey)
	if out, err := exec.Command("sqlite3", filepath.Join(w.dir, "db"), sql).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v %s", err, out)
	}
	return w
}

// serveAgent is an ssh-agent with one key.
func serveAgent(t *testing.T, path string, key ed25519.PrivateKey) {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: &key}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				agent.ServeAgent(ring, conn) // it ends with the connection
				conn.Close()
			}()
		}
	}()
}

// start starts the program, and returns when it answers. Its state is that of the last time.
func (w *liteWitness) start(t *testing.T) {
	t.Helper()
	run := exec.Command(buildWitness(t), "-name", w.name, "-db", filepath.Join(w.dir, "db"), "-ssh-agent", filepath.Join(w.dir, "agent"),
		"-key", w.print, "-listen", w.address)
	var log strings.Builder
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			run.Process.Signal(os.Interrupt)
			<-ended
		})
	}
	t.Cleanup(w.stop)
	for {
		answer, err := http.Get(w.url + "/")
		if err == nil {
			answer.Body.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("litewitness: %v\n%s", err, log.String())
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func witnessPolicy(t *testing.T, key translog.Key, quorum int, ws ...*liteWitness) translog.Policy {
	t.Helper()
	var all []translog.Witness
	for _, w := range ws {
		parsed, err := translog.ParseWitness(w.url, w.key)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parsed)
	}
	p, err := translog.NewPolicy(key.Verifier(), all, quorum)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Two witnesses cosign a log that grows; one is away for a while; what was cosigned cannot be rolled back or
// written anew without their saying so.
func TestLiteWitness(t *testing.T) {
	text, err := translog.GenerateKey("host.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	a := startWitness(t, "a.example/w1", key.Origin(), key.Public())
	b := startWitness(t, "b.example/w1", key.Origin(), key.Public())
	dir := filepath.Join(t.TempDir(), "log")
	if err := translog.Create(dir, key); err != nil {
		t.Fatal(err)
	}
	reopen := func(dir string) *translog.Log {
		t.Helper()
		l, err := translog.Open(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	grow := func(l *translog.Log, size int64, as byte) {
		t.Helper()
		var leaves []translog.Leaf
		for n := l.Size(); n < size; n++ {
			leaves = append(leaves, translog.Leaf{Time: time.Unix(n, 0), Content: [32]byte{as, byte(n)}})
		}
		if err := errors.Join(l.Append(leaves), l.Checkpoint()); err != nil {
			t.Fatal(err)
		}
	}
	cosign := func(l *translog.Log, p translog.Policy, missing int) {
		t.Helper()
		failed, err := l.Cosign(context.Background(), p)
		if err != nil || len(failed) != missing {
			t.Fatalf("%d leaves: %v, %v", l.Size(), failed, err)
		}
	}
	both, one := witnessPolicy(t, key, 0, a, b), witnessPolicy(t, key, 1, a, b)
	l := reopen(dir)
	for _, size := range []int64{1, 256, 300, 70000} {
		grow(l, size, 0)
		cosign(l, both, 0)
	}
	cosign(l, both, 0) // nothing grew
	snapshot := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(snapshot, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	b.stop()
	grow(l, 70001, 0)
	cosign(l, one, 1)
	l = reopen(dir) // it no longer knows where its witnesses are
	b.start(t)
	grow(l, 70300, 0)
	cosign(l, both, 0)
	v, err := translog.Verify(dir, both, false, nil)
	if err != nil || len(v.Findings) > 0 || v.Cosigned != 70300 || len(v.Cosignatures) != 4 {
		t.Errorf("%v, findings %v, %d cosigned, %v", err, v.Findings, v.Cosigned, v.Cosignatures)
	}
	if findings, silent := translog.Ask(t.Context(), dir, both); len(findings)+len(silent) > 0 {
		t.Errorf("of the log: %v, %v", findings, silent)
	}
	says := func(dir string, want translog.Verdict) {
		t.Helper()
		findings, silent := translog.Ask(t.Context(), dir, both)
		if len(findings) != 2 || findings[0].Verdict != want || findings[1].Verdict != want || len(silent) > 0 {
			t.Errorf("want %s: %v, %v", want, findings, silent)
		}
	}
	says(snapshot, translog.RolledBack)
	fork := reopen(snapshot)
	grow(fork, 71000, 1)
	says(snapshot, translog.Forked)
	cosign(fork, both, 2)
}
