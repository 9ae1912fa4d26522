package daemon

import (
	"log/slog"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// storeConfig is what a configuration says of the store.
func storeConfig(cfg Config, log *slog.Logger) (evidence.Config, error) {
	rs, err := cfg.AgeRecipients()
	if err != nil {
		return evidence.Config{}, err
	}
	return evidence.Config{Recipients: rs, MaxBytes: cfg.Limits.StoreBytes, Retention: cfg.Limits.Retention.Duration,
		AllowVolatile: cfg.Volatile, Logger: log}, nil
}

// examiner makes an examiner, which can only look as long as it has no keeper.
func examiner(cfg Config, sys system, pids []int) *examine.Examiner {
	return &examine.Examiner{
		Host: sys.Host, Name: "stopd", Version: Version, Sources: sys.sources, PIDs: pids, UserName: sys.userName,
		Deadline: cfg.Limits.Deadline.Duration,
		Trace:    trace.Options{Hub: cfg.Limits.Hub, Processes: cfg.Limits.Processes, Descriptors: cfg.Limits.Descriptors, Bytes: cfg.Limits.Bytes},
		Save:     examine.Groups(cfg.Save),
		Forwards: cfg.NAT.Answer,
	}
}

// serverConfig is what a configuration says of answering, and of asking previous hosts.
func serverConfig(c Config) *server.Config {
	l, t := c.Limits, c.Traceback
	return &server.Config{
		Errors: c.Reply.Errors, OptIn: c.Reply.OptIn, OnBehalf: prefixes(c.OnBehalf), Peers: c.serverPeers(), Forwards: c.NAT.Answer,
		Slots: server.Slots{ID: c.Reply.Slots.ID.Duration, IDRec: c.Reply.Slots.IDRec.Duration,
			SV: c.Reply.Slots.SV.Duration, SVRec: c.Reply.Slots.SVRec.Duration},
		Limits: server.Limits{
			Connections: l.Connections, ConnectionsPerSource: l.ConnectionsPerSource, RequestsPerConn: l.RequestsPerConn,
			Idle: l.Idle.Duration, Lookups: l.Lookups, PerSourcePerSecond: float64(l.PerSourcePerSecond), Burst: l.Burst,
			PerUserPerSecond: float64(l.PerUserPerSecond), UserBurst: l.UserBurst, AskersPerSID: l.AskersPerSID,
			Table: l.Table, Over: l.Over,
		},
		Traceback: server.TracebackConfig{Port: uint16(t.Port), Window: t.Window.Duration, To: prefixes(t.To), OutboundTo: prefixes(t.OutboundTo),
			MaxPrevious: t.MaxPrevious, Timeout: t.Timeout.Duration, Parallel: t.Parallel},
	}
}

// kept is what the keeper has to know of a configuration, with the store where it is: who is confined may not see the symbolic links on the way.
func kept(c Config) Config {
	store, err := evidence.RealPath(c.Store)
	if err != nil { // the keeper says why there can be none
		store = c.Store
	}
	return Config{Store: store, Volatile: c.Volatile, Recipients: c.Recipients, Quorum: c.Quorum, Witnesses: c.Witnesses, Syslog: c.Syslog,
		Limits: Limits{StoreBytes: c.Limits.StoreBytes, Retention: c.Limits.Retention}, Recorder: Recorder{Memory: c.Recorder.Memory}}
}

// fronted is what the front has to know of a configuration: nothing of who may be asked.
func fronted(c Config) *server.Config {
	s := serverConfig(c)
	s.Traceback = server.TracebackConfig{Window: c.Traceback.Window.Duration, Timeout: c.Traceback.Timeout.Duration}
	return s
}

// traced is what the tracer has to know of a configuration: nothing of who may ask.
func traced(c Config) *server.Config {
	s := serverConfig(c)
	s.OnBehalf, s.Limits = nil, server.Limits{Table: c.Limits.Table}
	return s
}

// tracedAtStart is what the tracer has to know besides, and once: who is told of the log, and whether names of hosts are looked up.
func tracedAtStart(c Config) Config {
	return Config{Witnesses: c.Witnesses, Reply: Reply{OptIn: c.Reply.OptIn}, Peers: c.Peers, Syslog: c.Syslog}
}

// collected is what the collector has to know of a configuration.
func collected(c Config) Config {
	return Config{Limits: Limits{Deadline: c.Limits.Deadline, Processes: c.Limits.Processes, Descriptors: c.Limits.Descriptors,
		Bytes: c.Limits.Bytes, Hub: c.Limits.Hub}, Save: c.Save, NAT: c.NAT, Recorder: c.Recorder}
}
