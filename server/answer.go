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
// section 3.2.2). Whole reports are apart from names, which whoever asks first would else be left with.
type repeat struct {
	requester  netip.Addr
	sid        uint64
	connection uint64 // as the look-up found it: a host with several addresses can be asked at each of them
	full       bool
}

// An asking is a request that others may be duplicates of. Its token is there once it is done; none where
// it was answered with an error, which is no answer.
type asking struct {
	done  chan struct{}
	token stop.Token
}

// An answer is a reply, and what is to be done once it has left.
type answer struct {
	reply stop.Reply
	// follow is the reply's token where it will have a trace-back record, else zero.
	follow stop.Token
	// examined is set where the host was looked at and that was saved: later questions of the session are
	// duplicates then.
	examined bool
}

// lookupWait is how long a question may wait for others to end. Without it, a burst of anybody's questions
// would make decoys of everybody's.
const lookupWait = 2 * time.Second

// answer decides one question. Where stranger is not empty, it is why who asks may not on behalf of other hosts. The
// error means that no reply can be given.
func (s *Server) answer(ctx context.Context, cfg *Config, q stop.Question, stranger string) (a answer, err error) {
	if cfg.tracesBack(q.Type) {
		by := payer{source: Source(q.Requester)}
		if !s.promised.take(by) {
			return s.over(cfg, q), nil
		}
		defer func() {
			if a.follow == (stop.Token{}) {
				s.promised.giveBack(by)
				return
			}
			time.AfterFunc(recordAfter(cfg, q.Type), func() { s.promised.giveBack(by) })
		}()
	}
	return s.decide(ctx, cfg, q, stranger)
}

func (s *Server) decide(ctx context.Context, cfg *Config, q stop.Question, stranger string) (answer, error) {
	strange := q.OnBehalf() && stranger != ""
	if strange || !q.PortsValid() || q.Type == stop.ID {
		switch {
		case !s.charge(cfg, q):
			return s.over(cfg, q), nil
		case strange:
			return s.decoy(ctx, cfg, q, stranger)
		case !q.PortsValid():
			return s.refuse(ctx, cfg, q, stop.InvalidPort, "invalid port")
		}
		return s.examine(ctx, cfg, q, 0, payer{source: Source(q.Requester)})
	}
	c, err := s.answerer.Find(ctx, q)
	by := payer{Source(q.Requester), c.Owner, true}
	switch {
	case errors.Is(err, stop.ErrNoUser):
		if !s.charge(cfg, q) {
			return s.over(cfg, q), nil
		}
		return s.refuse(ctx, cfg, q, stop.NoUser, err.Error())
	case err != nil:
		return answer{}, err
	case !s.admit(cfg, q, c):
		return s.over(cfg, q), nil
	case q.Type.Recursive():
		return s.recursive(ctx, cfg, q, c.ID, by)
	}
	return s.examine(ctx, cfg, q, c.ID, by)
}

// admit charges a question about a connection that exists. The first SV or SV_REC is charged to the
// connection's owner, a repeat to who asks: an intruder must not spend the allowance of the host that would
// ask about him. Nor must he hide behind his own, spent: then who asks may pay for the first as well.
func (s *Server) admit(cfg *Config, q stop.Question, c stop.Connection) bool {
	first := q.Type.Full() && s.first(cfg, q, c.ID)
	if first {
		if s.users.spend(c.Owner, q.Time, cfg.Limits.perUser()) {
			return true
		}
		s.reached.userRate.Add(1)
	}
	if s.charge(cfg, q) {
		return true
	}
	if first {
		s.connection.drop(c.ID) // it was not answered, so the next is the first
	}
	return false
}

// charge charges a question to who asks; false where the allowance is spent.
func (s *Server) charge(cfg *Config, q stop.Question) bool {
	if s.sources.spend(Source(q.Requester), q.Time, cfg.Limits.perSource()) {
		return true
	}
	s.reached.sourceRate.Add(1)
	return false
}

// first reports whether nobody has asked about a connection within the window.
func (s *Server) first(cfg *Config, q stop.Question, connection uint64) bool {
	first := false
	s.connection.update(connection, q.Time, q.Time.Add(cfg.Traceback.Window), func(_, known bool) bool {
		first = !known
		return true
	})
	return first
}

// recursive answers a question that carries a SID, unless it is a duplicate.
func (s *Server) recursive(ctx context.Context, cfg *Config, q stop.Question, connection uint64, by payer) (answer, error) {
	until := q.Time.Add(cfg.Traceback.Window)
	room := false
	s.askers.update(q.SID, q.Time, until, func(m map[netip.Addr]bool, known bool) map[netip.Addr]bool {
		if !known {
			m = map[netip.Addr]bool{}
		}
		if m[q.Requester] || len(m) < cfg.Limits.AskersPerSID {
			m[q.Requester], room = true, true
		}
		return m
	})
	if !room {
		s.reached.askersPerSID.Add(1)
		return s.over(cfg, q), nil
	}
	k := repeat{q.Requester, q.SID, connection, q.Type.Full()}
	mine := &asking{done: make(chan struct{})}
	for {
		first := mine
		s.asked.update(k, q.Time, until, func(o *asking, known bool) *asking {
			if known {
				first = o
			}
			return first
		})
		if first == mine {
			break
		}
		<-first.done
		if first.token != (stop.Token{}) {
			s.Counters.Duplicates.Add(1)
			return s.decline(ctx, cfg, q, "duplicate", first.token)
		}
		// The first had no answer, so this one may take its place.
	}
	defer close(mine.done)
	a, err := s.examine(ctx, cfg, q, connection, by)
	if err != nil || !a.examined {
		s.asked.drop(k)
		return a, err
	}
	mine.token, err = stop.ParseToken(a.reply.UserID)
	return a, err
}

// examine looks at the host. The connection is 0 where it was not looked up before.
func (s *Server) examine(ctx context.Context, cfg *Config, q stop.Question, connection uint64, by payer) (answer, error) {
	if !s.lookups.wait(by, lookupWait) {
		s.connection.drop(connection) // it was not answered, so the next is the first
		return s.over(cfg, q), nil
	}
	x, err := s.answerer.Examine(ctx, q)
	s.lookups.giveBack(by)
	switch {
	case errors.Is(err, stop.ErrNoUser):
		return s.refuse(ctx, cfg, q, stop.NoUser, err.Error())
	case err != nil:
		s.connection.drop(connection)
	}
	examined := err == nil
	if x.Unread {
		s.reached.userFiles.Add(1)
	}
	a, err := s.saved(cfg, q, x.Token, err)
	a.examined = examined
	if examined && q.Naming != stop.NameNever && sendable(x.Name) {
		s.Counters.Names.Add(1)
		a.reply.UserID = x.Name
	}
	return a, err
}

// saved makes the reply of a token that is durable. Where there was no room for what it would stand for, it is as
// over a bound.
func (s *Server) saved(cfg *Config, q stop.Question, t stop.Token, err error) (answer, error) {
	if errors.Is(err, stop.ErrNoRoom) {
		s.Counters.NoRoom.Add(1)
		return s.turnAway(cfg, q), nil
	}
	if err != nil {
		return answer{}, err
	}
	s.Counters.Tokens.Add(1)
	a := token(cfg, q, t)
	if cfg.tracesBack(q.Type) {
		a.follow = t
	}
	return a, nil
}

func token(cfg *Config, q stop.Question, t stop.Token) answer {
	return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, System: cfg.peer(q.Requester).System, UserID: t.String()}}
}

// refuse answers where nobody answers for a connection: with an error, or with a decoy where errors are
// not to be told. A question on behalf of another host never gets an error.
func (s *Server) refuse(ctx context.Context, cfg *Config, q stop.Question, word stop.ErrorWord, why string) (answer, error) {
	if q.OnBehalf() || cfg.Errors == ErrorsToken {
		return s.decoy(ctx, cfg, q, why)
	}
	if cfg.Errors == ErrorsUnknown {
		word = stop.UnknownError
	}
	if q.SentTo.IsValid() && word == stop.NoUser {
		word = stop.UnknownError // it is the other host that may have none: this one has not seen it
	}
	s.Counters.Errors.Add(1)
	s.wait(cfg, q)
	return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, Error: word}}, nil
}

// decoy answers with a token that stands for nothing but the reason why.
func (s *Server) decoy(ctx context.Context, cfg *Config, q stop.Question, why string) (answer, error) {
	s.Counters.Decoys.Add(1)
	return s.decline(ctx, cfg, q, why, stop.Token{})
}

// decline answers with a token that stands for why there was no examination.
func (s *Server) decline(ctx context.Context, cfg *Config, q stop.Question, why string, sameAs stop.Token) (answer, error) {
	s.wait(cfg, q)
	t, err := s.answerer.Decline(ctx, q, why, sameAs)
	return s.saved(cfg, q, t, err)
}

// over answers at a bound, without any work.
func (s *Server) over(cfg *Config, q stop.Question) answer {
	s.wait(cfg, q)
	return s.turnAway(cfg, q)
}

// turnAway answers with 32 random bytes that no record stands for, or UNKNOWN-ERROR.
func (s *Server) turnAway(cfg *Config, q stop.Question) answer {
	s.Counters.OverBound.Add(1)
	if cfg.Limits.Over == OverError && cfg.Errors != ErrorsToken && !q.OnBehalf() {
		return answer{reply: stop.Reply{Local: q.Request.Local, Remote: q.Request.Remote, Error: stop.UnknownError}}
	}
	var t stop.Token
	rand.Read(t[:]) // never fails
	return token(cfg, q, t)
}
