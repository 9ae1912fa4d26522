package integration

import (
	"crypto/ed25519"
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
	w.address = freeAddress(t)
	w.url = "http://" + w.address
	w.start(t)
	if out, err := exec.Command("sqlite3", "-cmd", sqliteWaits, filepath.Join(w.dir, "db"), knowsLog(t, origin, logKey)).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v %s", err, out)
	}
	return w
}

// sqliteWaits has sqlite3(1) wait while the witness writes, which it is not asked for by default.
const sqliteWaits = ".timeout 60000"

// knowsLog is what witnessctl add-log and add-key do to the database of a litewitness.
func knowsLog(t *testing.T, origin, logKey string) string {
	t.Helper()
	empty, err := tlog.TreeHash(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("INSERT INTO log (origin, tree_size, tree_hash) VALUES ('%s', 0, '%s'); INSERT INTO key (origin, key) VALUES ('%[1]s', '%[3]s');",
		origin, empty, logKey)
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
