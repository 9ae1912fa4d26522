package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"time"

	"github.com/stopd/stopd"
)

// A repeat is what makes a request with a SID a duplicate: same requester, SID and connection (thesis
// section 3.2.2).
type repeat struct {
	requester netip.Addr
	sid       uint64
	typ       stop.Type
	flow
}

// A flow is the ends of a connection.
type flow struct{ local, remote netip.AddrPort }

// An answer is a reply, and what is to be done once it has left.
type answer struct {
	reply stop.Reply
	then  func(context.Context)
}

// lookupWait is how long a question may wait for others to end. Without it, a burst of anybody's questions
// would make decoys of everybody's.
const lookupWait = 2 * time.Second

// answer decides one question. The error means that no reply can be given.
func (s *Server) answer(ctx context.Context, cfg *Config, q stop.Question) (answer, error) {
	stranger := q.OnBehalf() && !within(q.Requester, cfg.OnBehalf)
	if stranger || !q.PortsValid() {
		switch {
		case !s.sources.spend(source(q.Requester), q.Time):
			return s.over(cfg, q), nil
		case stranger:
			return s.decoy(ctx, q, "the requester may not ask on behalf of other hosts")
		}
		return s.refuse(ctx, cfg, q, stop.InvalidPort, "invalid port")
	}
	timer := time.NewTimer(lookupWait)
	defer timer.Stop()
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-timer.C:
		return s.over(cfg, q), nil
	}
	if ok, err := s.admit(ctx, cfg, q); err != nil || !ok {
		return s.over(cfg, q), err
	}
	if q.Type.Recursive() {
		return s.recursive(ctx, cfg, q)
	}
	return s.examine(ctx, cfg, q)
}

// admit charges a question. The first SV or SV_REC about a connection that exists is charged to the
// connection's owner, all else to who asks: an intruder must not spend the allowance of the host that
// would ask about him.
func (s *Server) admit(ctx context.Context, cfg *Config, q stop.Question) (bool, error) {
	if q.Type.Full() {
		c, err := s.answerer.Find(ctx, q)
		if err != nil && !errors.Is(err, stop.ErrNoUser) {
			return false, err
		}
		if err == nil && s.first(cfg, q, flow{c.Local, c.Remote}) {
			return s.users.spend(c.UID, q.Time), nil
		}
	}
	return s.sources.spend(source(q.Requester), q.Time), nil
}

// first reports whether nobody has asked about a connection within the window.
func (s *Server) first(cfg *Config, q stop.Question, f flow) bool {
	first := false
	s.connection.update(f, q.Time, q.Time.Add(cfg.Traceback.Window), func(_, known bool) bool {
		first = !known
		return true
	})
	return first
}

// recursive answers a question that carries a SID, unless it is a duplicate.
func (s *Server) recursive(ctx context.Context, cfg *Config, q stop.Question) (answer, error) {
	until := q.Time.Add(cfg.Traceback.Window)
	room := false
	known := s.askers.update(q.SID, q.Time, until, func(m map[netip.Addr]bool, ok bool) map[netip.Addr]bool {
		if !ok {
			m = map[netip.Addr]bool{}
		}
		if m[q.Requester] || len(m) < cfg.Limits.AskersPerSID {
			m[q.Requester], room = true, true
		}
		return m
	})
	if !known || !room {
		return s.over(cfg, q), nil
	}
	k := repeat{q.Requester, q.SID, q.Type, flow{q.Local, q.Remote}}
	var first stop.Token
	duplicate := false
	if !s.asked.update(k, q.Time, until, func(t stop.Token, known bool) stop.Token {
		first, duplicate = t, known
		return t
	}) {
		return s.over(cfg, q), nil
	}
	if duplicate {
		s.Counters.Duplicates.Add(1)
		why := "duplicate"
		if first == (stop.Token{}) {
			why = "duplicate of a request that is still being answered"
		}
		return s.saved(s.answerer.Decline(ctx, q, why, first))(q)
	}
	a, err := s.examine(ctx, cfg, q)
	if err != nil || a.reply.Error != "" {
		s.asked.drop(k) // an error is no answer, so the next request is no duplicate
		return a, err
	}
	t, _ := stop.ParseToken(a.reply.UserID)
	s.asked.update(k, q.Time, until, func(stop.Token, bool) stop.Token { return t })
	return a, nil
}

// examine looks at the host, and prepares to ask the previous hosts.
func (s *Server) examine(ctx context.Context, cfg *Config, q stop.Question) (answer, error) {
	f, err := s.answerer.Examine(ctx, q)
	if errors.Is(err, stop.ErrNoUser) {
		return s.refuse(ctx, cfg, q, stop.NoUser, err.Error())
	}
	a, err := s.saved(f.Token, err)(q)
	if err != nil || !q.Type.Recursive() {
		return a, err
	}
	a.then = func(ctx context.Context) { s.follow(ctx, cfg, q, f) }
	return a, nil
}

// saved makes the reply of a token that is durable.
func (s *Server) saved(t stop.Token, err error) func(stop.Question) (answer, error) {
	return func(q stop.Question) (answer, error) {
		if err != nil {
			return answer{}, err
		}
		s.Counters.Tokens.Add(1)
		return token(q, t), nil
	}
}

func token(q stop.Question, t stop.Token) answer {
	return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, System: "OTHER", UserID: t.String()}}
}

// refuse answers where nobody answers for a connection: with an error, or with a decoy where errors are
// not to be told. A question on behalf of another host never gets an error.
func (s *Server) refuse(ctx context.Context, cfg *Config, q stop.Question, word stop.ErrorWord, why string) (answer, error) {
	if q.OnBehalf() || cfg.Errors == ErrorsToken {
		return s.decoy(ctx, q, why)
	}
	if cfg.Errors == ErrorsUnknown {
		word = stop.UnknownError
	}
	s.Counters.Errors.Add(1)
	return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, Error: word}}, nil
}

// decoy answers with a token that stands for nothing but the reason why.
func (s *Server) decoy(ctx context.Context, q stop.Question, why string) (answer, error) {
	s.Counters.Decoys.Add(1)
	return s.saved(s.answerer.Decline(ctx, q, why, stop.Token{}))(q)
}

// over answers at a bound, without any work: 32 random bytes that no record stands for, or UNKNOWN-ERROR.
func (s *Server) over(cfg *Config, q stop.Question) answer {
	s.Counters.OverBound.Add(1)
	if cfg.Limits.Over == OverError && !q.OnBehalf() {
		return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, Error: stop.UnknownError}}
	}
	var t stop.Token
	rand.Read(t[:]) // never fails
	return token(q, t)
}
