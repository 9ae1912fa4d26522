package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// serveTokens is the daemon made to speak the Session Token Protocol. The server parses requests (parse_req
// of the thesis's Table 4.1), the examiner finds the processes (process_req), and the trace-backs ask previous
// hosts (send_reqs).
func serveTokens(ctx context.Context, l net.Listener, h openedHost, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cfg := &server.Config{
		Errors: server.ErrorsStandard,
		Limits: server.Limits{Connections: 256, ConnectionsPerSource: 32, RequestsPerConn: 100, Idle: 30 * time.Second, Lookups: 16,
			PerSourcePerSecond: 50, Burst: 100, PerUserPerSecond: 50, UserBurst: 100, AskersPerSID: 32, Table: 4096, Over: server.OverDecoy},
		Traceback: server.TracebackConfig{Port: 113, Window: 2 * time.Minute, To: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
			MaxPrevious: 8, Timeout: 10 * time.Second, Parallel: 16},
		Logger: slog.Default(),
	}
	tracebacks := server.NewTracebacks(directory(dir).keepTraceback, cfg)
	x := &examine.Examiner{Host: h, UserName: h.UserName, Keeper: directory(dir), Tracer: tracebacks, Name: "identd", Version: "1",
		Sources: func() []string { return []string{"netlink", "proc"} }, PIDs: []int{os.Getpid()}, Deadline: time.Second,
		Trace: trace.Defaults, Save: examine.AllGroups}
	s := server.New(x, tracebacks, cfg)
	if err := s.Serve(ctx, l); err != nil {
		return err
	}
	if err := s.Wait(context.Background()); err != nil {
		return err
	}
	return tracebacks.Wait(context.Background())
}

// A directory keeps each report in the form of the thesis's Appendix B (print_procddata), beside the exact
// bytes whose hash is the token. Nothing is sealed in it: who can read it can read every report.
type directory string

// Keep keeps a report.
func (d directory) Keep(_ context.Context, b []byte, _ stop.Payer) (stop.Token, error) {
	t := stop.TokenOf(b)
	r, err := report.Decode(b)
	if err == nil {
		err = d.write(t, ".txt", []byte(report.Text(r)))
	}
	if err == nil {
		err = d.write(t, ".json", b)
	}
	return t, err
}

// keepTraceback keeps what previous hosts answered. It never reaches the requester.
func (d directory) keepTraceback(_ context.Context, t stop.Token, records []stop.Traceback) error {
	return d.write(t, ".traceback.json", report.EncodeTraceback(records))
}

// write returns once the file is durable: a token must not leave before what it stands for is.
func (d directory) write(t stop.Token, suffix string, b []byte) error {
	f, err := os.OpenFile(filepath.Join(string(d), t.String()+suffix), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}
