package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
)

// runAlone traces a connection that this program has opened within this host.
func runAlone(ctx context.Context, w io.Writer) error {
	fmt.Fprintln(w, "Without root: one host, this one, and a connection that this program opens within it.")
	programs, err := site.Programs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "stopd-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	addr, stop, err := startAlone(ctx, programs, dir)
	if err != nil {
		return err
	}
	defer stop()
	stopctl := func(args ...string) (string, error) {
		fmt.Fprintf(w, "  $ stopctl %s\n", strings.ReplaceAll(strings.Join(args, " "), dir+"/", ""))
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "stopctl"), args...)
		cmd.Stderr = w
		out, err := cmd.Output()
		return strings.TrimSuffix(string(out), "\n"), err
	}
	near, far := c.LocalAddr().(*net.TCPAddr).Port, c.RemoteAddr().(*net.TCPAddr).Port
	token, err := stopctl("request", "-type", "SV", addr, strconv.Itoa(near), strconv.Itoa(far))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "  %s\n", token)
	text, err := stopctl("redeem", "-store", filepath.Join(dir, "site/store"), "-identity", filepath.Join(dir, "site/admin.key"),
		"-format", "text", "-by", "me", "-reason", "a demonstration", token)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n", text)
	fmt.Fprintln(w, "\nWhat the report holds of other users, such as the arguments of their programs, this user could see anyway.")
	fmt.Fprintln(w, "\nRoot adds: other users' processes, port 113, and the demonstration with three hosts, ssh between\nthem and the chain that leads back (run it as root).")
	return nil
}

// startAlone starts stopd on a free port of the loopback address.
func startAlone(ctx context.Context, programs, dir string) (addr string, stop func(), err error) {
	at, free, err := netlab.FreePort(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		return "", nil, err
	}
	defer free()
	addr = at.String()
	site := filepath.Join(dir, "site")
	if out, err := exec.CommandContext(ctx, filepath.Join(programs, "stopctl"), "init", "-dir", site, "-listen", addr).CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("stopctl init: %w: %s", err, out)
	}
	if err := allowVolatile(filepath.Join(site, "stopd.toml")); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "stopd"), "-config", filepath.Join(site, "stopd.toml"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start stopd: %w", err)
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		netlab.DropKeys(func(name string) bool { return strings.Contains(name, dir+"/") })
	}
	err = netlab.WaitFor(ctx, func() (bool, error) {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		stop()
		return "", nil, errors.Join(fmt.Errorf("start stopd: %w", err), errors.New(log.String()))
	}
	return addr, stop, nil
}

// allowVolatile lets the store be where temporary directories are, which is memory on many machines.
func allowVolatile(config string) error {
	b, err := os.ReadFile(config)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return os.WriteFile(config, bytes.Replace(b, []byte("volatile   = false"), []byte("volatile   = true"), 1), 0o600)
}
