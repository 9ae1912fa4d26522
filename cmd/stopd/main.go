// Command stopd is an ident daemon that speaks the Session Token Protocol: it answers with tokens, and
// keeps what they stand for.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/stopd/stopd/internal/daemon"
)

func main() {
	if status, is := daemon.RunRole(); is { // this program once more, started by itself
		os.Exit(status)
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	fs := flag.NewFlagSet("stopd", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "usage: stopd [-config FILE] [-check] [-selftest] [-version]\n\nanswer who is behind a connection of this host, with tokens of reports\n\n")
		fs.PrintDefaults()
		fmt.Fprintln(fs.Output(), "\nstopctl init writes a configuration. See stopd(8).")
	}
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			fs.SetOutput(os.Stdout)
		}
	}
	config, check, selftest, version := declare(fs)
	if err := fs.Parse(args); err != nil {
		if err == flag.ErrHelp {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "stopd: unexpected argument %q\n", fs.Arg(0))
		return 2
	}
	switch {
	case *version:
		fmt.Println("stopd", daemon.Version)
		return 0
	case *selftest:
		if err := daemon.SelfTest(context.Background(), os.Stdout); err != nil {
			return fail(err)
		}
		return 0
	case *check:
		cfg, err := daemon.Load(*config)
		if err != nil {
			return fail(err)
		}
		if err := daemon.Check(cfg, os.Stdout); err != nil {
			return fail(err)
		}
		return 0
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := daemon.Run(context.Background(), *config, log); err != nil {
		return fail(err)
	}
	return 0
}

func declare(fs *flag.FlagSet) (config *string, check, selftest, version *bool) {
	config = fs.String("config", "/etc/stopd/stopd.toml", "the configuration `file`")
	check = fs.Bool("check", false, "validate the configuration, print what the daemon will see, and exit")
	selftest = fs.Bool("selftest", false, "make sockets, pipes, a terminal and a process, check that the daemon would see each, and exit")
	version = fs.Bool("version", false, "print the version and exit")
	return config, check, selftest, version
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "stopd:", err)
	return 1
}
