//go:build unix

package evidence

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

const (
	crashDir       = "STOPD_TEST_CRASH_DIR"
	crashRecipient = "STOPD_TEST_CRASH_RECIPIENT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, keepUntilKilled(dir, os.Getenv(crashRecipient)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// keepUntilKilled keeps reports and prints the token of each once it is acknowledged.
func keepUntilKilled(dir, recipient string) error {
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return err
	}
	key, err := translog.ReadKey(dir + ".key")
	if err != nil {
		return err
	}
	p, err := translog.NewPolicy(key.Verifier(), nil, 0)
	if err != nil {
		return err
	}
	s, err := Open(dir, Config{Recipients: []age.Recipient{r}, AllowVolatile: true, SegmentBytes: 32 << 10, LogKey: &key})
	if err != nil {
		return err
	}
	often := translog.Schedule{Grown: 3 * time.Millisecond, Heartbeat: time.Hour, Retry: time.Hour}
	go s.Log().Run(context.Background(), often, p, slog.Default())
	failed := make(chan error)
	for i := range 8 {
		go func() {
			for j := 0; ; j++ {
				token, err := s.Keep(context.Background(), fmt.Appendf(nil, "report %d of %d of %d", j, i, os.Getpid()), stop.Payer{})
				if err == nil {
					_, err = os.Stdout.WriteString(token.String() + "\n")
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

func TestKilled(t *testing.T) {
	kills, each := 5, 120
	if soak {
		kills, each = 100, 200
	}
	id := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "store")
	text, err := translog.GenerateKey("host.example")
	if err == nil {
		err = os.WriteFile(dir+".key", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	audit := func() []translog.Finding {
		t.Helper()
		a, err := Audit(t.Context(), dir, alone(t, key))
		if err != nil {
			t.Fatal(err)
		}
		return a.Findings
	}
	var acknowledged []stop.Token
	for range kills {
		acknowledged = append(acknowledged, killAfter(t, each, dir, id.Recipient().String())...)
		for _, f := range audit() { // a crash looks like nothing else
			if f.Verdict != translog.Uncovered {
				t.Errorf("after a kill: %v", f)
			}
		}
	}
	s := openAt(t, dir, Config{LogKey: &key}, id)
	// Damage is none, and the log has every record.
	all := entries(t, dir)
	if n := s.Log().Size(); uint64(n) != all[len(all)-1].Number+1 || uint64(len(all)) != uint64(n) {
		t.Errorf("%d records, the last of them %d, and %d leaves", len(all), all[len(all)-1].Number, n)
	}
	var checking sync.WaitGroup
	for part := range 16 {
		checking.Go(func() {
			for i := part; i < len(acknowledged); i += 16 {
				sealed, err := s.Export(t.Context(), asking(acknowledged[i]))
				if err == nil {
					_, err = Unseal(sealed, id)
				}
				if err != nil {
					t.Errorf("acknowledged token %d: %v", i, err)
				}
			}
		})
	}
	checking.Wait()
	closeStore(t, s)
	if found := audit(); len(found) > 0 {
		t.Errorf("closed: %v", found)
	}
	t.Logf("%d kills, %d acknowledged tokens", kills, len(acknowledged))
	if len(acknowledged) < kills*each {
		t.Errorf("%d tokens acknowledged, want %d or more", len(acknowledged), kills*each)
	}
}

// killAfter kills a child once it has printed n tokens, and gives all that it printed.
func killAfter(t *testing.T, n int, dir, recipient string) []stop.Token {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), crashDir+"="+dir, crashRecipient+"="+recipient)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait() // it was killed: its error is what the test asks for
	defer child.Process.Kill()
	var tokens []stop.Token
	for lines := bufio.NewScanner(out); lines.Scan(); {
		token, err := stop.ParseToken(lines.Text())
		if err != nil {
			t.Fatal(err) // one write a line: none is cut
		}
		if tokens = append(tokens, token); len(tokens) == n {
			child.Process.Kill()
		}
	}
	return tokens
}
