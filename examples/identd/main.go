// Command identd is a small ident daemon of the old kind (RFC 1413), and what it takes to make it speak the
// Session Token Protocol: README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:1130", "the `address` and port to answer on")
	keep := flag.String("stop", "", "speak the Session Token Protocol, and keep reports in this `directory`")
	flag.Parse()
	ctx, stopped := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stopped()
	if err := run(ctx, *listen, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "identd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, keep string) error {
	h, err := openHost()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(os.Stderr, "identd: listening on", l.Addr())
	if keep != "" {
		return serveTokens(ctx, l, h, keep)
	}
	return serveNames(ctx, l, h)
}
