package daemon

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
)

// What each process can still do of what it tries, started by root or not.
var can = map[bool]map[role][]string{
	true: {
		front:  nil,
		tracer: {"connect sockets", "make sockets of the network"},
		keeper: {"act as root", "use CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_IPC_LOCK", "write the store"},
		collector: {"act as root", "connect sockets", "make UNIX sockets", "make netlink sockets", "read files", "run programs", "signal other processes",
			"use CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_IPC_LOCK, CAP_IPC_OWNER, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF"},
	},
	false: {
		front:     nil,
		tracer:    {"connect sockets", "make sockets of the network"},
		keeper:    {"write the store"},
		collector: {"connect sockets", "make UNIX sockets", "make netlink sockets", "read files", "run programs", "signal other processes"},
	},
}

// Each process of a daemon that answers tries what it must not be able to do.
func TestConfined(t *testing.T) {
	if landlockVersion() < 1 {
		t.Skip("this kernel has no Landlock")
	}
	s := newSite(t)
	d := s.start(t)
	for r, want := range can[os.Geteuid() == 0] {
		got, err := ask[[]string](t.Context(), d.running.processes[r].control, callProve, d.trial())
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("the %s (-want +got): %v\n%s", r, err, d)
		}
	}
	if strings.Contains(s.log.String(), "keeps more than it needs") {
		t.Errorf("the log has %q", s.log.String())
	}
	// This process, which gave up nothing, can: the trial tells the two apart.
	if got := prove(d.trial()); len(got) < 7 {
		t.Errorf("the test itself can only %q", got)
	}
	for _, c := range d.running.processes {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(c.process.Pid) + "/status")
		if err != nil || !bytes.HasPrefix(status, []byte("Name:\tstopd\n")) || !bytes.Contains(status, []byte("NoNewPrivs:\t1\n")) {
			t.Errorf("the %s: %v, %s", c.role, err, status)
		}
	}
}

// A tracer that asks on behalf of others may bind ports below 1024, and nothing else that others may not.
func TestConfinedGateway(t *testing.T) {
	if landlockVersion() < 1 || os.Geteuid() != 0 {
		t.Skip("needs root, and Landlock")
	}
	s := newSite(t)
	s.cfg.NAT.Answer = true
	s.write(t)
	d := s.start(t)
	for r, want := range can[true] {
		if r == tracer {
			want = append(want[:len(want):len(want)], "use CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT")
		}
		got, err := ask[[]string](t.Context(), d.running.processes[r].control, callProve, d.trial())
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("the %s (-want +got): %v\n%s", r, err, d)
		}
	}
	pid := d.running.processes[tracer].process.Pid
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/etc", pid)); !os.IsNotExist(err) {
		t.Errorf("its root directory is not empty: %v", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	uid := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", unprivileged())
	if err != nil || !bytes.Contains(status, []byte(uid)) || !bytes.Contains(status, []byte("\nGroups:\t \n")) {
		t.Errorf("%v, %s", err, status)
	}
	if log := s.log.String(); strings.Contains(log, "by TLS alone") || strings.Contains(log, "keeps more than it needs") || strings.Contains(log, "not once they have ended") {
		t.Errorf("the log has %q", log)
	}
}

// steady leaves of what can be seen of this machine what other programs that come and go do not change.
func steady(sees []string) []string {
	return slices.DeleteFunc(slices.Clone(sees), func(s string) bool {
		return strings.HasPrefix(s, "descriptors of all processes: ") || strings.HasPrefix(s, "other network namespaces: ")
	})
}

// What the check says can be seen is what the collector sees, with what is left to it, and not who runs the check.
func TestAbilitiesAreThoseOfTheProcess(t *testing.T) {
	s := newSite(t)
	d := &supervisor{log: s.logger(), cfg: s.cfg}
	for _, r := range roles {
		_, sees, err := d.try(r)
		if err != nil {
			t.Fatal(err)
		}
		blind := slices.ContainsFunc(sees, func(s string) bool { return strings.HasPrefix(s, "sockets by sock_diag: no") })
		if blind != (r != collector) {
			t.Errorf("the %s says %q", r, sees)
		}
		if r != collector {
			continue
		}
		if d := cmp.Diff(steady(abilities()), steady(sees)); os.Geteuid() == 0 && d != "" {
			t.Errorf("root sees other things than the collector that it starts:\n%s", d)
		}
		var b bytes.Buffer
		if err := Check(s.cfg, &b); err != nil {
			t.Fatal(err)
		}
		for _, line := range steady(sees) {
			if !strings.Contains(b.String(), "\n"+line+"\n") {
				t.Errorf("no %q in %s", line, b.String())
			}
		}
	}
}

// Without root the check shows what the processes of a user can.
func TestConfinedWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 || landlockVersion() < 1 {
		t.Skip("needs root, to become somebody else, and Landlock")
	}
	s := newSite(t)
	program := s.dir + "/stopd"
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/stopd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.Chmod(s.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.config, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-config", s.config, "-check")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for r, want := range can[false] {
		if want == nil {
			want = []string{"none of it"}
		}
		if line := string(r) + " can: " + strings.Join(want, ", ") + "\n"; !strings.Contains(string(out), line) {
			t.Errorf("no %q in %s", line, out)
		}
	}
}

// Whichever process dies, all are started anew, on the same port and store; nothing that had a token is lost. One that
// dies again and again ends the daemon.
func TestStartedAnew(t *testing.T) {
	s := newSite(t)
	s.cfg.Recorder.Mode = recorderOff // it begins after the start, and says so
	d := s.start(t)
	ended := make(chan error, 1)
	go func() { ended <- d.supervise(t.Context(), nil) }()
	to := netip.MustParseAddrPort(d.listeners[0].Addr().String())
	local, remote := connection(t)
	var tokens []stop.Token
	token := func() {
		t.Helper()
		var a stop.Answer
		var err error
		eventually(t, stateTime, func() bool {
			a, err = (&stop.Client{}).Ask(t.Context(), to, stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: stop.SV})
			return err == nil && a.Kind == stop.KindToken
		}, func() string { return fmt.Sprintf("no answer: %v, %v; %s", a.Line, err, s.log.String()) })
		tokens = append(tokens, a.Token)
	}
	kill := func(r role, times int) {
		t.Helper()
		pids := childrenOf(t, r)
		if len(pids) != 1 {
			t.Fatalf("%s is %v", r, pids)
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, stateTime, func() bool { return strings.Count(s.log.String(), "are started anew") >= times },
			func() string { return fmt.Sprintf("the %s is not started anew: %s", r, s.log.String()) })
	}
	token()
	for i, r := range roles {
		kill(r, i+1)
		token()
	}
	for _, tok := range tokens {
		s.redeem(t, tok)
	}
	// A signal to one of them is not for it.
	before := map[role][]int{}
	for _, r := range roles {
		before[r] = childrenOf(t, r)
	}
	for _, r := range roles {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(childrenOf(t, r)[0], sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	token()
	for _, r := range roles {
		if now := childrenOf(t, r); !slices.Equal(now, before[r]) || strings.Contains(s.log.String(), "reload") {
			t.Errorf("a signal to one process did something: the %s was %v and is %v; %s", r, before[r], now, s.log.String())
		}
	}
	for i := len(roles) + 1; i <= maxRestarts; i++ {
		kill(front, i)
		token()
	}
	// Once more, or more often where the machine is so slow that the first were long ago.
	for n := maxRestarts; n < 5*maxRestarts; n++ {
		if err := syscall.Kill(childrenOf(t, front)[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var err error
		over := false
		eventually(t, stateTime, func() bool {
			select {
			case err = <-ended:
				over = true
			default:
			}
			return over || strings.Count(s.log.String(), "are started anew") > n
		}, func() string { return "the end of the front is not noticed: " + s.log.String() })
		if over {
			if err == nil || !strings.Contains(err.Error(), "the front ended") {
				t.Errorf("it ended with %v", err)
			}
			return
		}
		token()
	}
	t.Fatalf("it goes on for ever: %s", s.log.String())
}

// childrenOf are the processes of a role that this process started.
func childrenOf(t *testing.T, r role) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if len(fields) > 1 && fields[0] != "Z" && fields[1] == strconv.Itoa(os.Getpid()) && string(line) == "stopd\x00"+string(r)+"\x00" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// What whoever started the daemon left open is open in none of its processes.
func TestInheritsNothing(t *testing.T) {
	s := newSite(t)
	f, err := os.Open(s.config)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 100) // beyond those that the processes are given
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, s.config, s.logger()) }()
	eventually(t, stateTime, func() bool { return strings.Contains(s.log.String(), "msg=listening") },
		func() string { return "it does not start: " + s.log.String() })
	for _, r := range roles {
		for _, pid := range childrenOf(t, r) {
			dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
			fds, err := os.ReadDir(dir)
			if err != nil || len(fds) == 0 {
				t.Fatalf("descriptors of the %s: %v, %v", r, fds, err)
			}
			for _, fd := range fds {
				if to, _ := os.Readlink(dir + fd.Name()); to == s.config {
					t.Errorf("the %s has %s open", r, to)
				}
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
