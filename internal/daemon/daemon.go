package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
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
	d, err := open(cfg, log)
	if err != nil {
		return err
	}
	defer d.close()
	ls, err := listeners(cfg)
	if err != nil {
		return err
	}
	endMetrics, err := d.serveMetrics(cfg.Metrics.Listen)
	if err != nil {
		return err
	}
	defer endMetrics()
	warnOfKeys(path, cfg, log)
	d.recordConfig(path)
	for _, l := range ls {
		log.Info("listening", "address", l.Addr().String())
	}
	return d.serve(ctx, ls, func() {
		for {
			select {
			case <-hup:
				d.reload(path)
			case <-ctx.Done():
				return
			}
		}
	})
}

// A daemon is the parts of stopd, in one process.
type daemon struct {
	log      *slog.Logger
	sys      system
	store    *evidence.Store
	keeper   *keeper
	answerer *answerer
	server   *server.Server
	ctl      net.Listener
	policy   translog.Policy
	cfg      Config         // as at the start
	later    sync.WaitGroup // what the start does not wait for
}

func open(cfg Config, log *slog.Logger) (*daemon, error) {
	c, err := storeConfig(cfg, log)
	if err != nil {
		return nil, err
	}
	if err := evidence.Check(cfg.Store, c); err != nil {
		return nil, err
	}
	key, err := LogKey(cfg.Store)
	if err != nil {
		return nil, err
	}
	c.LogKey = &key
	policy, err := cfg.LogPolicy(key)
	if err != nil {
		return nil, err
	}
	sys, err := openSystem()
	if err != nil {
		return nil, err
	}
	store, err := evidence.Open(cfg.Store, c)
	if err != nil {
		sys.close()
		return nil, err
	}
	ctl, err := evidence.ListenControl(cfg.Store)
	if err != nil {
		store.Close()
		sys.close()
		return nil, err
	}
	d := &daemon{log: log, sys: sys, store: store, keeper: &keeper{store}, answerer: &answerer{}, ctl: ctl, policy: policy, cfg: cfg}
	d.answerer.now.Store(examiner(cfg, sys, d.keeper))
	d.server = server.New(d.answerer, serverConfig(cfg, log))
	d.later.Go(func() {
		if err := sys.accelerate(); err != nil {
			log.Info("descriptors are read by /proc alone", "cause", err)
		}
	})
	return d, nil
}

func storeConfig(cfg Config, log *slog.Logger) (evidence.Config, error) {
	rs, err := cfg.AgeRecipients()
	if err != nil {
		return evidence.Config{}, err
	}
	return evidence.Config{Recipients: rs, MaxBytes: cfg.Limits.StoreBytes, Retention: cfg.Limits.Retention.Duration,
		AllowVolatile: cfg.Volatile, Logger: log}, nil
}

func (d *daemon) close() {
	d.later.Wait()
	d.ctl.Close() // it is closed already, unless the daemon never came to answer
	if err := errors.Join(d.store.Close(), d.sys.close()); err != nil {
		d.log.Error("close", "error", err)
	}
}

// serve answers until the context ends, then finishes what is under way.
func (d *daemon) serve(ctx context.Context, ls []net.Listener, background func()) error {
	// The control socket goes on while the last requests finish, and so do the log and its witnesses.
	ctlCtx, endCtl := context.WithCancel(context.Background())
	ctlDone := make(chan error, 1)
	go func() { ctlDone <- d.store.ServeControl(ctlCtx, d.ctl) }()
	logDone := make(chan struct{})
	go func() { d.store.Log().Run(ctlCtx, translog.DefaultSchedule, d.policy, d.log); close(logDone) }()
	done := make(chan error, len(ls))
	for _, l := range ls {
		go func() { done <- d.server.Serve(ctx, l) }()
	}
	go background()
	if err := notify("READY=1"); err != nil {
		d.log.Warn("tell the service manager", "error", err)
	}
	var err error
	for range ls {
		if e := <-done; e != nil && err == nil {
			err = fmt.Errorf("accept connections: %w", e)
		}
	}
	d.log.Info("stopping")
	if e := notify("STOPPING=1"); e != nil {
		d.log.Warn("tell the service manager", "error", e)
	}
	finish, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if e := d.server.Wait(finish); e != nil {
		d.log.Warn("stopped before all trace-backs had ended")
	}
	d.count()
	endCtl()
	<-logDone
	err = errors.Join(err, <-ctlDone)
	d.vouch()
	return err
}

// vouch signs the log as it is at the end, and shows it to the witnesses once more.
func (d *daemon) vouch() {
	if err := d.store.Log().Checkpoint(); err != nil {
		return // the store's Close tries again, and says so
	}
	ctx, cancel := context.WithTimeout(context.Background(), vouchTimeout)
	defer cancel()
	failed, err := d.store.Log().Cosign(ctx, d.policy)
	if err != nil {
		d.log.Error("cosignatures cannot be kept", "error", err)
	}
	for _, f := range failed {
		d.log.Warn("a witness did not cosign the last checkpoint", "witness", f.Witness.Name(), "error", f.Err)
	}
}

// count logs what was counted since the start, on one line.
func (d *daemon) count() {
	d.log.Info("counted since the start", slog.Any("", &d.server.Counters)) // a group without a name is inlined
}

// reload replaces the configuration. A bad one is refused and the old one stays; so does what cannot be
// changed while the daemon runs.
func (d *daemon) reload(path string) {
	d.count()
	cfg, err := Load(path)
	if err != nil {
		d.log.Error("reload refused", "error", err)
		return
	}
	if fmt.Sprint(cfg.atStart()) != fmt.Sprint(d.cfg.atStart()) {
		d.log.Warn("listen, store, volatile, recipients, quorum, witness and limits.store_bytes, retention, lookups and table, traceback.parallel and metrics.listen, change with a restart only")
	}
	d.server.Configure(serverConfig(cfg, d.log))
	d.answerer.now.Store(examiner(cfg, d.sys, d.keeper))
	d.recordConfig(path)
	d.log.Info("configuration reloaded")
}

// recordConfig puts on record which configuration holds from now on, by the SHA-256 of its file.
func (d *daemon) recordConfig(path string) {
	b, err := os.ReadFile(path)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		defer cancel()
		err = d.store.RecordConfig(ctx, sha256.Sum256(b))
	}
	if err != nil {
		d.log.Error("record the configuration", "error", err)
	}
}

// atStart returns what cannot change while the daemon runs.
func (c Config) atStart() []any {
	return []any{c.Listen, c.Store, c.Volatile, c.Recipients, c.Quorum, c.Witnesses, c.Limits.StoreBytes, c.Limits.Retention, c.Limits.Lookups, c.Limits.Table, c.Traceback.Parallel, c.Metrics.Listen}
}

// examiner makes an examiner; without a keeper it can only look.
func examiner(cfg Config, sys system, k *keeper) *examine.Examiner {
	s := cfg.Save
	x := &examine.Examiner{
		Host: sys.Host, Name: "stopd", Version: Version, Sources: sys.sources, PID: os.Getpid(), UserName: sys.userName,
		Deadline: cfg.Limits.Deadline.Duration,
		Trace:    trace.Options{Hub: cfg.Limits.Hub, Processes: cfg.Limits.Processes, Descriptors: cfg.Limits.Descriptors, Bytes: cfg.Limits.Bytes},
		Save: examine.Groups{Arguments: s.Arguments, Host: s.Host, CWD: s.CWD, ExeHash: s.ExeHash, Login: s.Login,
			Files: s.Files, Users: s.Users, Environ: s.Environment},
	}
	if k != nil {
		x.Keeper, x.Checkpoint = k, k.checkpoint
	}
	return x
}

// An answerer is the examiner of the configuration that holds now.
type answerer struct {
	now atomic.Pointer[examine.Examiner]
}

func (a *answerer) Find(ctx context.Context, q stop.Question) (stop.Connection, error) {
	return a.now.Load().Find(ctx, q)
}

func (a *answerer) Examine(ctx context.Context, q stop.Question) (stop.Finding, error) {
	return a.now.Load().Examine(ctx, q)
}

func (a *answerer) Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	return a.now.Load().Decline(ctx, q, why, sameAs)
}

func (a *answerer) KeepTraceback(ctx context.Context, t stop.Token, ts []stop.Traceback) error {
	return a.now.Load().KeepTraceback(ctx, t, ts)
}

func serverConfig(c Config, log *slog.Logger) *server.Config {
	l, t := c.Limits, c.Traceback
	return &server.Config{
		Errors: c.Reply.Errors, OnBehalf: c.OnBehalf, Logger: log,
		Slots: server.Slots{ID: c.Reply.Slots.ID.Duration, IDRec: c.Reply.Slots.IDRec.Duration,
			SV: c.Reply.Slots.SV.Duration, SVRec: c.Reply.Slots.SVRec.Duration},
		Limits: server.Limits{
			Connections: l.Connections, ConnectionsPerSource: l.ConnectionsPerSource, RequestsPerConn: l.RequestsPerConn,
			Idle: l.Idle.Duration, Lookups: l.Lookups, PerSourcePerSecond: float64(l.PerSourcePerSecond), Burst: l.Burst,
			PerUserPerSecond: float64(l.PerUserPerSecond), UserBurst: l.UserBurst, AskersPerSID: l.AskersPerSID,
			Table: l.Table, Over: l.Over,
		},
		Traceback: server.TracebackConfig{Port: uint16(t.Port), Window: t.Window.Duration, To: t.To, OutboundTo: t.OutboundTo,
			MaxPrevious: t.MaxPrevious, Timeout: t.Timeout.Duration, Parallel: t.Parallel},
	}
}

// LogKey reads the key that signs the log of a store.
func LogKey(store string) (translog.Key, error) {
	path, err := evidence.LogKeyPath(store)
	if err != nil {
		return translog.Key{}, fmt.Errorf("find log key: %w", err)
	}
	return translog.ReadKey(path)
}

// A keeper gives reports to the store, and does not wait for it for ever.
type keeper struct {
	store *evidence.Store
}

func (k *keeper) Keep(ctx context.Context, report []byte, p stop.Payer) (stop.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	return k.store.Keep(ctx, report, p)
}

// checkpoint is the digest of the log's last checkpoint.
func (k *keeper) checkpoint() string { return k.store.Log().LastDigest() }

func (k *keeper) KeepTraceback(ctx context.Context, t stop.Token, record []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	return k.store.KeepTraceback(ctx, t, record)
}

// Record records this host, for replaying.
func Record(ctx context.Context) (host.Recording, error) { return record(ctx) }

// listeners opens the sockets to answer on: those that the service manager passed (sd_listen_fds(3)), else
// the configured ones.
func listeners(cfg Config) ([]net.Listener, error) {
	if ls, err := passed(); err != nil || len(ls) > 0 {
		return ls, err
	}
	var ls []net.Listener
	for _, a := range cfg.Listen {
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
