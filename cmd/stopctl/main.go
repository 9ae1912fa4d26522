// Command stopctl asks stopd's questions, redeems its tokens and joins what they stand for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/stopd/stopd/internal/daemon"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitAltered = 3 // verification failed
	exitRefused = 4 // the other host answered an error
)

// A command is one subcommand. Flags stand before arguments.
type command struct {
	name, args, does string
	// setup declares the flags and returns what runs the command.
	setup func(fs *flag.FlagSet) func(ctx context.Context, std stdio, args []string) error
	// min and max bound the number of arguments; max -1 is any.
	min, max int
}

type stdio struct {
	out, err io.Writer
}

var commands = []command{
	{"init", "", "write a configuration and the keys of a host", setupInit, 0, 0},
	{"request", "HOST[:PORT] (LOCAL REMOTE | LINE)", "ask a host about one of its connections; print the token", setupRequest, 2, 3},
	{"redeem", "TOKEN | SEALED", "open what a token stands for", setupRedeem, 1, 1},
	{"export", "TOKEN", "take the sealed report of a token out of the store", setupExport, 1, 1},
	{"bundle", "TOKEN | SEALED", "make a disclosure of what a token stands for, which anybody can verify", setupBundle, 1, 1},
	{"verify", "BUNDLE...", "verify bundles without a network; say in words what they prove", setupVerify, 1, -1},
	{"hold", "TOKEN", "keep what a token stands for from expiring", setupHold, 1, 1},
	{"audit", "", "verify every file of a store", setupAudit, 0, 0},
	{"list", "", "list the records of a store", setupList, 0, 0},
	{"chain", "FILE...", "join redeemed reports of several hosts into the path", setupChain, 1, -1},
	{"watch", "", "ask about the connections that others report, and keep the tokens", setupWatch, 0, 0},
	{"tokens", "[WHAT]", "find kept tokens by connection, address, Community ID or time", setupTokens, 0, 1},
	{"explain", "LOCAL REMOTE | LINE", "say what the daemon would see of a connection, and answer", setupExplain, 1, 2},
	{"token", "FILE", "print the token of a report's exact bytes", setupToken, 1, 1},
	{"record", "", "record this host, so that its traces can be replayed", setupRecord, 0, 0},
	{"demo", "", "trace an intruder through three hosts made on this machine", setupDemo, 0, 0},
	{"version", "", "print the version", setupVersion, 0, 0},
}

// exitError carries an exit code other than that of a failure.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	beginLab()
	ctx, stopped := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, stdio{os.Stdout, os.Stderr}, os.Args[1:])
	stopped()
	os.Exit(code)
}

func run(ctx context.Context, std stdio, args []string) int {
	if len(args) == 0 {
		usage(std.err)
		return exitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		if len(args) > 1 {
			args = []string{args[1], "-h"}
			break
		}
		usage(std.out)
		return exitDone
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, std, args[1:])
		}
	}
	fmt.Fprintf(std.err, "stopctl: unknown command %q; stopctl -h lists them\n", args[0])
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: stopctl COMMAND [FLAGS] [ARGUMENTS]\n\ncommands:")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.does)
	}
	fmt.Fprintln(w, "\nstopctl COMMAND -h shows the flags of one. See stopctl(1).")
}

func (c command) run(ctx context.Context, std stdio, args []string) int {
	fs := flag.NewFlagSet("stopctl "+c.name, flag.ContinueOnError)
	fs.SetOutput(std.err)
	run := c.setup(fs)
	fs.Usage = func() {
		line := "usage: stopctl " + c.name
		hasFlags := false
		fs.VisitAll(func(*flag.Flag) { hasFlags = true })
		if hasFlags {
			line += " [FLAGS]"
		}
		if c.args != "" {
			line += " " + c.args
		}
		fmt.Fprintf(fs.Output(), "%s\n\n%s\n", line, c.does)
		if hasFlags {
			fmt.Fprintln(fs.Output())
			fs.PrintDefaults()
		}
	}
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			fs.SetOutput(std.out)
		}
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitDone
		}
		return exitUsage
	}
	if n := fs.NArg(); n < c.min || c.max >= 0 && n > c.max {
		fmt.Fprintf(std.err, "stopctl %s: %s\n", c.name, c.wrongCount(fs.Args()))
		fs.Usage()
		return exitUsage
	}
	err := run(ctx, std, fs.Args())
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(std.err, "stopctl %s: %s\n", c.name, strings.ReplaceAll(err.Error(), "\n", "; "))
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return exitFailed
}

func (c command) wrongCount(args []string) string {
	want := strconv.Itoa(c.min)
	switch {
	case c.max < 0:
		want += " or more"
	case c.max > c.min:
		want += " or " + strconv.Itoa(c.max)
	}
	hint := ""
	for _, a := range args {
		if len(a) > 1 && a[0] == '-' {
			hint = "; flags stand before arguments"
		}
	}
	return fmt.Sprintf("%d arguments given, not %s%s", len(args), want, hint)
}

// usageError is an error in the words of the command line.
func usageError(format string, v ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, v...)}
}

func setupVersion(*flag.FlagSet) func(context.Context, stdio, []string) error {
	return func(_ context.Context, std stdio, _ []string) error {
		_, err := fmt.Fprintln(std.out, "stopctl", daemon.Version)
		return err
	}
}

// many is a flag that may be given several times.
type many []string

func (m *many) String() string     { return strings.Join(*m, ",") }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }
