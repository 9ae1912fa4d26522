package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
)

// Version is what this build calls itself.
const Version = "0.1.0"

// commitTimeout is how long a report may take to become durable. Then the connection closes without a reply.
const commitTimeout = 5 * time.Second

// finishTimeout is how long the daemon takes to finish what is under way when it is told to stop.
const finishTimeout = 15 * time.Second

// vouchTimeout is how long the daemon waits for witnesses before it ends.
const vouchTimeout = 3 * time.Second

// Run runs the daemon until it is told to stop by SIGTERM or SIGINT.
func Run(ctx context.Context, path string, log *slog.Logger) error {
	if err := unseen(runtime.GOOS); err != nil {
		return err // whatever the configuration says
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from the start: unhandled it would end the daemon
	defer signal.Stop(hup)
	ctx, stopped := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stopped()
	cfg, err := Load(path)
	if err != nil {
		return err
	}
	keepMemory(log)
	if err := keepDescriptors(); err != nil {
		log.Warn("the daemon's processes may have more open than they need", "error", err)
	}
	s := &supervisor{log: log, path: path, cfg: cfg, now: cfg}
	defer s.close()
	if err := s.start(); err != nil {
		return err
	}
	warnOfKeys(path, cfg, log)
	s.recordConfig()
	for _, l := range s.listeners {
		log.Info("listening", "address", l.Addr().String())
	}
	if s.metrics != nil {
		log.Info("listening for metrics", "address", s.metrics.Addr().String())
	}
	s.notify("READY=1")
	return s.supervise(ctx, hup)
}

// openStore opens the store and its log, whose witnesses are asked by a transport.
func openStore(cfg Config, by http.RoundTripper, log *slog.Logger) (*evidence.Store, translog.Policy, error) {
	c, err := storeConfig(cfg, log)
	if err != nil {
		return nil, translog.Policy{}, err
	}
	if err := evidence.Check(cfg.Store, c); err != nil {
		return nil, translog.Policy{}, err
	}
	key, err := LogKey(cfg.Store)
	if err != nil {
		return nil, translog.Policy{}, err
	}
	c.LogKey = &key
	policy, err := cfg.LogPolicy(key)
	if err != nil {
		return nil, translog.Policy{}, err
	}
	policy.Transport = by
	store, err := evidence.Open(cfg.Store, c)
	return store, policy, err
}

// LogKey reads the key that signs the log of a store.
func LogKey(store string) (translog.Key, error) {
	path, err := evidence.LogKeyPath(store)
	if err != nil {
		return translog.Key{}, fmt.Errorf("find log key: %w", err)
	}
	return translog.ReadKey(path)
}

// listeners opens the sockets to answer on: those that the service manager passed (sd_listen_fds(3)), else
// the configured ones.
func listeners(cfg Config) ([]net.Listener, error) {
	if ls, err := passed(); err != nil || len(ls) > 0 {
		return ls, err
	}
	var ls []net.Listener
	for _, a := range families(cfg.Listen, runtime.GOOS) {
		l, err := listen(a)
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
			return nil, fmt.Errorf("listen: %w", err)
		}
		ls = append(ls, l)
	}
	return ls, nil
}

// families adds IPv4 to what is for both families where IPv6 has no mapped addresses (inet6(4) of OpenBSD).
func families(addrs []string, system string) (all []string) {
	for _, a := range addrs {
		all = append(all, a)
		if port, ok := strings.CutPrefix(a, "[::]:"); ok && system == "openbsd" && !slices.Contains(addrs, "0.0.0.0:"+port) {
			all = append(all, "0.0.0.0:"+port)
		}
	}
	return all
}

// listen opens one socket. An IPv4 address is that alone; [::] is both families, and IPv4 alone where there
// is no IPv6.
func listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return listenBy(addr, func(network, addr string) (net.Listener, error) {
		return lc.Listen(context.Background(), network, addr)
	})
}

func listenBy(addr string, open func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if ap.Addr().Is4() {
		network = "tcp4"
	}
	l, err := open(network, addr)
	if errors.Is(err, syscall.EAFNOSUPPORT) && ap.Addr() == netip.IPv6Unspecified() {
		return open("tcp4", fmt.Sprintf("0.0.0.0:%d", ap.Port()))
	}
	return l, err
}
