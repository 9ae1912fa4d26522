package daemon

import (
	"context"
	"crypto/sha256"
	"os"
)

// reload replaces the configuration. A bad one is refused and the old one stays; so does what cannot be
// changed while the daemon runs.
func (s *supervisor) reload() {
	s.notify(reloading())
	defer s.notify("READY=1")
	s.counted()
	cfg, err := Load(s.path)
	if err != nil {
		s.log.Error("reload refused", "error", err)
		return
	}
	for _, key := range s.cfg.fixedIn(cfg) {
		s.log.Warn("a key was changed that takes effect with a restart only", "key", key)
	}
	cfg.Reply.OptIn = cfg.Reply.OptIn && s.cfg.Reply.OptIn // the tracer cannot look names up otherwise
	cfg.NAT = s.cfg.NAT                                    // the processes have to agree, and privileges are given at the start
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	for r, what := range map[role]started{front: {Server: fronted(cfg)}, tracer: {Server: traced(cfg)},
		collector: {Config: collected(cfg), PIDs: s.running.pids()}} {
		if _, err := ask[none](ctx, s.running.processes[r].control, callReload, what); err != nil {
			s.log.Error("reload", "process", string(r), "error", err)
			return
		}
	}
	s.now = cfg
	s.recordConfig()
	s.log.Info("configuration reloaded")
}

// recordConfig puts on record which configuration holds from now on, by the SHA-256 of its file.
func (s *supervisor) recordConfig() {
	b, err := os.ReadFile(s.path)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		defer cancel()
		_, err = ask[none](ctx, s.running.processes[keeper].control, callRecordConfig, sha256.Sum256(b))
	}
	if err != nil {
		s.log.Error("record the configuration", "error", err)
	}
}
