package server

import (
	"errors"
	"os"
	"sync/atomic"
)

// A Bound is how far a bound on the work is used. What is done at each is in stopd(8).
type Bound struct {
	Name string
	// Used is how much of it is taken now, Limit how much there is; both 0 where it has no level, such as a rate.
	Used, Limit int
	Reached     uint64 // how often it turned something away, since the start
}

// reached counts, for the bounds that have no counter of their own, what they turned away.
type reached struct {
	descriptors, connections, connectionsPerSource, requestsPerConn, idle, line atomic.Uint64
	sourceRate, userRate, askersPerSID, userFiles                               atomic.Uint64
}

// Bounds gives every bound of a server, in the order of a request's way. None tells of a user or a connection.
func (s *Server) Bounds() []Bound {
	cfg := s.config.Load()
	r := &s.reached
	return []Bound{
		{Name: "accept", Reached: r.descriptors.Load()},
		s.conns.bound(cfg.Limits.Connections, r.connections.Load()),
		{Name: "connections_per_source", Reached: r.connectionsPerSource.Load()},
		s.handshakes.bound("handshakes"),
		{Name: "requests_per_connection", Reached: r.requestsPerConn.Load()},
		{Name: "idle", Reached: r.idle.Load()},
		{Name: "line", Reached: r.line.Load()},
		{Name: "per_source_per_second", Reached: r.sourceRate.Load()},
		{Name: "per_user_per_second", Reached: r.userRate.Load()},
		s.sources.bound("sources"),
		s.users.bound("users"),
		s.promised.bound("promises"),
		{Name: "askers_per_sid", Reached: r.askersPerSID.Load()},
		s.askers.bound("sids"),
		s.asked.bound("duplicates"),
		s.connection.bound("asked_connections"),
		s.lookups.bound("lookups"),
		{Name: "user_files", Reached: r.userFiles.Load()},
		{Name: "store", Reached: s.Counters.NoRoom.Load()},
	}
}

// Bounds gives every bound of the trace-backs, which come after those of the server.
func (tb *Tracebacks) Bounds() []Bound {
	return []Bound{
		tb.promises.bound("records_due"),
		{Name: "max_previous", Reached: tb.previous.Load()},
		{Name: "candidates_recorded", Reached: tb.candidates.Load()},
		tb.followed.bound("followed_connections"),
		tb.begun.bound("tracebacks_begun"),
		tb.asking.bound("tracebacks"),
		tb.watching.bound("watches"),
	}
}

func (ps *promises) bound(name string) Bound {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return Bound{name, len(ps.open), ps.limit, ps.reached}
}

func (cs *conns) bound(limit int, reached uint64) Bound {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return Bound{"connections", len(cs.open), limit, reached}
}

func (s *shares) bound(name string) Bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Bound{name, s.taken, s.limit, s.reached}
}

func (t *table[K, V]) bound(name string) Bound {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Bound{name, len(t.known), t.limit, t.reached}
}

// countEnd counts the end of a connection that no whole line came from.
func (r *reached) countEnd(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.idle.Add(1)
	}
}
