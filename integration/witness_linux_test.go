package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/netlab"
)

// freeAddress is one of loopback at which nobody else listens until the test has ended.
func freeAddress(t *testing.T) string {
	t.Helper()
	at, free, err := netlab.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(free)
	return at.String()
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

// A witnessed is a daemon whose log two witnesses cosign, and what is done to it by command.
type witnessed struct {
	t         *testing.T
	bin, dir  string
	address   string
	log       strings.Builder
	daemon    *exec.Cmd
	witnesses []*liteWitness
}

func newWitnessed(t *testing.T) *witnessed {
	t.Helper()
	root, err := os.MkdirTemp("/var/tmp", "stopd-test-") // the store refuses a file system in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(root)
		if err := netlab.DropKeys(func(name string) bool { return strings.Contains(name, root+"/") }); err != nil {
			t.Error(err)
		}
	})
	w := &witnessed{t: t, bin: root, dir: filepath.Join(root, "host")}
	if out, err := exec.Command("go", "build", "-o", root, "../cmd/stopd", "../cmd/stopctl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	w.address = freeAddress(t)
	if code, out := w.stopctl("init", "-dir", w.dir, "-listen", w.address); code != 0 {
		t.Fatal(out)
	}
	key, err := translog.ReadKey(filepath.Join(w.dir, "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.example/w1", "b.example/w1"} {
		w.witnesses = append(w.witnesses, startWitness(t, name, key.Origin(), key.Public()))
	}
	config := filepath.Join(w.dir, "stopd.toml")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range w.witnesses {
		b = fmt.Appendf(b, "[[witness]]\nurl = %q\nkey = %q\n", x.url, x.key)
	}
	if err := os.WriteFile(config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *witnessed) stopctl(args ...string) (int, string) {
	w.t.Helper()
	out, err := exec.Command(filepath.Join(w.bin, "stopctl"), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// start starts the daemon, and asks it: every run has records of its own.
func (w *witnessed) start() {
	w.t.Helper()
	w.log.Reset()
	w.daemon = exec.Command(filepath.Join(w.bin, "stopd"), "-config", filepath.Join(w.dir, "stopd.toml"))
	w.daemon.Stderr = &w.log
	if err := w.daemon.Start(); err != nil {
		w.t.Fatal(err)
	}
	daemon := w.daemon
	w.t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	if err := netlab.WaitFor(w.t.Context(), func() (bool, error) { return w.ask(), nil }); err != nil {
		w.t.Fatalf("the daemon never answered: %v", err)
	}
}

// ask has the daemon keep a record, and reports whether it said so: who may not ask on behalf of others gets a decoy,
// from any port.
func (w *witnessed) ask() bool {
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		return false
	}
	defer c.Close()
	fmt.Fprint(c, "1 , 2 : SV : 192.0.2.7\r\n")
	reply, _ := bufio.NewReader(c).ReadString('\n')
	return strings.Contains(reply, "USERID")
}

// covered waits until the witnesses have cosigned all that the daemon has kept: the next checkpoint is seconds away.
func (w *witnessed) covered() {
	w.t.Helper()
	var out string
	err := netlab.WaitFor(w.t.Context(), func() (bool, error) {
		_, out = w.stopctl("audit", "-store", filepath.Join(w.dir, "store"))
		var records, leaves int
		for line := range strings.Lines(out) {
			fmt.Sscanf(line, "store: %d records", &records)
			fmt.Sscanf(line, "vouched for by the witnesses: the first %d leaves", &leaves)
		}
		return records > 0 && leaves == records, nil
	})
	if err != nil {
		w.t.Fatalf("the witnesses never cosigned it: %v\n%s", err, out)
	}
}

func (w *witnessed) stop(s os.Signal) string {
	w.t.Helper()
	if err := w.daemon.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
	w.daemon.Wait()
	return w.log.String()
}

// crash kills all of the daemon's processes, the keeper first: it would close the store as soon as it noticed.
func (w *witnessed) crash() {
	w.t.Helper()
	if err := w.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		w.t.Fatal(err)
	}
	var keeper, others []int
	for _, stat := range stats {
		b, _ := os.ReadFile(stat) // it may be gone
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) < 2 || f[1] != strconv.Itoa(w.daemon.Process.Pid) {
			continue
		}
		dir := filepath.Dir(stat)
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			w.t.Fatal(err)
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			w.t.Fatal(err)
		}
		if string(args) == "stopd\x00keeper\x00" {
			keeper = append(keeper, pid)
		} else {
			others = append(others, pid)
		}
	}
	for _, pid := range append(keeper, others...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			w.t.Fatal(err)
		}
	}
	if len(keeper) != 1 || len(others) != 3 {
		w.t.Errorf("the daemon had the processes %v and %v beside the first", keeper, others)
	}
	w.stop(os.Kill)
}

// audit audits the store, and looks for texts in what it says.
func (w *witnessed) audit(what string, code int, texts ...string) {
	w.t.Helper()
	got, out := w.stopctl("audit", "-store", filepath.Join(w.dir, "store"))
	if got != code {
		w.t.Errorf("%s: audit exits %d, want %d\n%s", what, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.t.Errorf("%s: no %q in\n%s", what, text, out)
		}
	}
}

// What two witnesses cosigned of a daemon's log is found out when it is rolled back or written anew, also by a
// daemon that is started on it; a crash is told from that, and closed by the next start.
func TestWitnessedDaemon(t *testing.T) {
	w := newWitnessed(t)
	w.audit("before the first start", 3, "unvouched")
	w.start()
	w.covered() // else a stop would leave witnesses little time
	w.audit("running", 0, "being written")
	if log := w.stop(os.Interrupt); strings.Contains(log, "witness") {
		t.Errorf("the daemon complains:\n%s", log)
	}
	w.audit("after a clean stop", 0, "cosigned:", "by a.example/w1", "by b.example/w1")

	store, early := filepath.Join(w.dir, "store"), filepath.Join(w.bin, "early")
	if err := os.CopyFS(early, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ { // again where a checkpoint, which is due every ten seconds, comes between the request and the crash
		w.start()
		w.covered()
		if !w.ask() {
			t.Fatal("no token")
		}
		w.crash()
		if code, out := w.stopctl("audit", "-store", store); code != 0 || n == 20 {
			if code != 3 || !strings.Contains(out, "uncovered: ") || !strings.Contains(out, "crash or cut: start stopd to close it") {
				t.Errorf("after a crash: audit exits %d\n%s", code, out)
			}
			break
		}
	}
	w.start()
	w.covered()
	w.witnesses[1].stop()
	if !w.ask() {
		t.Fatal("no token")
	}
	if log := w.stop(os.Interrupt); !strings.Contains(log, "b.example/w1") {
		t.Errorf("the daemon does not say that a witness is away:\n%s", log)
	}
	w.audit("without one witness", 0, "did not answer: witness b.example/w1")
	w.witnesses[1].start(t)
	w.audit("with it again", 0)

	if err := errors.Join(os.RemoveAll(store), os.Rename(early, store)); err != nil {
		t.Fatal(err)
	}
	w.audit("rolled back", 3, "rolled back: log/checkpoint: witness a.example/w1: ")
	w.start()
	if log := w.stop(os.Interrupt); !strings.Contains(log, "a.example/w1") {
		t.Errorf("the daemon does not say that it was rolled back:\n%s", log)
	}
	w.audit("rolled back, and written on", 3, "witness a.example/w1: ")
}
