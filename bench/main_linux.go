// Bench measures how long stopd takes to look at a host, beside the algorithm of Brian Carrier's thesis
// (package thesis), on processes and connections that it makes for the purpose. It runs as root, in
// namespaces of its own where nothing else runs, and takes about twenty minutes.
//
// It prints a line for each round, which benchstat reads, and then the medians as a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/netlab"
)

// What this program is, where it has executed itself again.
const (
	stageEnv   = "STOPD_BENCH_STAGE"
	initStage  = "init"
	benchStage = "bench"
)

func main() {
	var err error
	switch {
	case os.Getenv(sowEnv) != "":
		var size int
		if size, err = strconv.Atoi(os.Getenv(sizeEnv)); err == nil {
			err = sow(os.Getenv(sowEnv), size)
		}
	case os.Getenv(memoryEnv) != "":
		err = remember()
	case os.Getenv(stageEnv) == initStage:
		err = reap()
	case os.Getenv(stageEnv) == benchStage:
		err = run()
	default:
		err = enter()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(1) // it said so itself
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// enter executes the program again as the init of namespaces of its own. When that ends, in whatever way,
// the kernel ends all that was started in them.
func enter() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: it makes namespaces and reads the descriptors of all users")
	}
	// There is no network in the namespaces. Without the package the bench says so, and goes on.
	netlab.Packages(context.Background(), oidentd)
	runtime.LockOSThread() // what it starts ends with the thread that started it
	cmd := again(initStage)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd.Run()
}

func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageEnv+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// reap is init: it starts the benchmark, and ends with it. Until then it waits for all that ends.
func reap() error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	cmd := again(benchStage)
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait: %w", err)
		}
		if pid == cmd.Process.Pid {
			os.Exit(status.ExitStatus())
		}
	}
}

func run() error {
	only := flag.String("only", "", "measure these alone, separated by commas: P1, P2, P3, P4, owner, P5, P6, P8, P9, P11, timing, tokens")
	quick := flag.Bool("quick", false, "leave the largest sizes out")
	update := flag.String("update", "", "replace the tables in this document")
	dir := flag.String("dir", "", "directory on a disk to save in (default: the current one)")
	profile := flag.String("cpuprofile", "", "write a profile of stopd's and the thesis's work to this file")
	flag.Parse()
	ctx, stopped := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stopped()
	raiseFiles()
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := errors.Join(linkUp("lo"), address("lo:1", here)); err != nil {
		return err
	}
	b := &bench{ctx: ctx, out: os.Stdout, quick: *quick, dir: *dir}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	kind, err := machine()
	if err != nil {
		return err
	}
	fmt.Printf("goos: linux\ngoarch: %s\npkg: github.com/stopd/stopd/bench\nmachine: %s\n", runtime.GOARCH, kind)
	for _, m := range []struct {
		name string
		run  func() error
	}{{"P1", b.lookUp}, {"P2", b.requests}, {"P3", b.simple}, {"P4", b.complex}, {"owner", b.owners}, {"P5", b.impact}, {"P6", b.recorder}, {"P8", b.store},
		{"P9", b.idle}, {"P11", b.worst}, {"timing", b.timing}, {"tokens", b.keptTokens}} {
		if *only != "" && !strings.Contains(","+*only+",", ","+m.name+",") {
			continue
		}
		if err := m.run(); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	text := kind + ".\n\n" + strings.TrimSuffix(b.text.String(), "\n")
	fmt.Print("\n", text)
	if *update == "" {
		return nil
	}
	doc, err := os.ReadFile(*update)
	if err != nil {
		return err
	}
	s, err := replace(string(doc), text)
	if err != nil {
		return err
	}
	return os.WriteFile(*update, []byte(s), 0o644)
}

// machine says what kind of machine it is.
func machine() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d processors, Linux %s", runtime.NumCPU(), release), nil
}
