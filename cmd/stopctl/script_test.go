package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stopd/stopd/internal/netlab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stopctl": main, "hold": hold, "loghost": loghost})
}

// hold makes a connection within this host, writes its two ports into a file and holds it until it is told
// to stop.
func hold() {
	err := func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer out.Close()
		in, err := l.Accept()
		if err != nil {
			return err
		}
		defer in.Close()
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		for i, c := range []net.Addr{out.LocalAddr(), out.RemoteAddr()} {
			if err := os.WriteFile(os.Args[1+i]+".tmp", []byte(strconv.Itoa(c.(*net.TCPAddr).Port)), 0o666); err != nil {
				return err
			}
			if err := os.Rename(os.Args[1+i]+".tmp", os.Args[1+i]); err != nil {
				return err
			}
		}
		<-stop
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
}

// loghost is a log server by TCP: it writes its port into a file and each message that comes (RFC 6587, section 3.4.1) as a
// line into another, until it is told to stop and its last client has gone.
func loghost() {
	err := func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		if err := os.WriteFile(os.Args[1]+".tmp", []byte(strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), 0o666); err != nil {
			return err
		}
		if err := os.Rename(os.Args[1]+".tmp", os.Args[1]); err != nil {
			return err
		}
		file, err := os.OpenFile(os.Args[2], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		defer file.Close()
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		go func() { <-stop; l.Close() }()
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			for r := bufio.NewReader(c); err == nil; {
				var n int
				if _, err = fmt.Fscanf(r, "%d ", &n); err == nil {
					_, err = io.CopyN(file, r, int64(n))
					fmt.Fprintln(file)
				}
			}
			c.Close()
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loghost:", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	// The store refuses a file system in memory, as /tmp may be.
	root, err := os.MkdirTemp("/var/tmp", "stopctl-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(root)
		if err := netlab.DropKeys(func(name string) bool { return strings.Contains(name, root+"/") }); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("go", "build", "-o", root, "../stopd").CombinedOutput(); err != nil {
		t.Fatalf("build stopd: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", WorkdirRoot: root, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", root+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "exitsatlast": exitsatlast, "readenv": readenv, "freeport": freeport, "answers": answers, "alter": alter, "mode": mode, "oneline": oneline, "opens": opens,
		},
	})
}

// exits N PROGRAM ARGS... runs a program that is to exit with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if want, got := status(ts, args); got != want {
		ts.Fatalf("it exits %d, not %d", got, want)
	}
}

// status runs a program, and returns how it is to exit and how it did.
func status(ts *testscript.TestScript, args []string) (want, got int) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var e *exec.ExitError
	if errors.As(err, &e) {
		return want, e.ExitCode()
	}
	ts.Check(err)
	return want, 0
}

// exitsatlast is exits for a question about a connection that is not there. A daemon that has just looked for it in all network
// namespaces, on a machine where that takes long, does not look again at once, and closes without a reply.
func exitsatlast(ts *testscript.TestScript, _ bool, args []string) {
	wait(ts, "exit status "+args[0], func() bool {
		want, got := status(ts, args)
		if spared := got == 1 && strings.Contains(ts.ReadFile("stderr"), "closed without a reply"); got != want && !spared {
			ts.Fatalf("it exits %d, not %d", got, want)
		}
		return got == want
	})
}

// wait waits for a state.
func wait(ts *testscript.TestScript, what string, state func() bool) {
	for deadline := time.Now().Add(2 * time.Minute); !state(); {
		if time.Now().After(deadline) {
			ts.Fatalf("it never came: %s", what)
		}
		tick := time.NewTimer(5 * time.Millisecond)
		<-tick.C
	}
}

// readenv NAME FILE sets a variable to what a file holds, once there is one.
func readenv(ts *testscript.TestScript, _ bool, args []string) {
	var b []byte
	wait(ts, args[1], func() (ok bool) {
		var err error
		b, err = os.ReadFile(ts.MkAbs(args[1]))
		return err == nil
	})
	ts.Setenv(args[0], strings.TrimSpace(string(b)))
}

// freeport NAME sets a variable to a port that nobody else listens on until the script ends.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	at, free, err := netlab.FreePort(netip.MustParseAddr("127.0.0.1"))
	ts.Check(err)
	ts.Defer(free)
	ts.Setenv(args[0], strconv.Itoa(int(at.Port())))
}

// answers ADDR waits until somebody does.
func answers(ts *testscript.TestScript, _ bool, args []string) {
	wait(ts, args[0], func() bool {
		c, err := net.Dial("tcp", args[0])
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// alter FILE flips a bit in the middle of a file.
func alter(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// opens KEY FILE checks that a private key opens every age file within a file.
func opens(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	parts := bytes.Split(b, []byte("age-encryption.org/v1\n"))
	if len(parts) < 2 {
		ts.Fatalf("no age file in %s", args[1])
	}
	for _, p := range parts[1:] {
		_, err := age.Decrypt(bytes.NewReader(append([]byte("age-encryption.org/v1\n"), p...)), ids...)
		ts.Check(err)
	}
}

// mode MODE FILE... checks the permissions of files.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	for _, f := range args[1:] {
		info, err := os.Stat(ts.MkAbs(f))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, not %s", filepath.Base(f), got, args[0])
		}
	}
}

// oneline checks that the last program said what was wrong in one line on stderr, and nothing on stdout.
func oneline(ts *testscript.TestScript, _ bool, _ []string) {
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("on stdout: %q", out)
	}
	if text := []byte(ts.ReadFile("stderr")); bytes.Count(text, []byte("\n")) != 1 || !bytes.HasSuffix(text, []byte("\n")) {
		ts.Fatalf("not one line: %q", text)
	}
}
