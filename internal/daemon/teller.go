package daemon

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/optin"
)

// maxTold is how many octets a name may have that the front is told: RFC 1413 has no longer ones.
const maxTold = 512

// An account is what the system knows of a user; without a name it knows none.
type account struct {
	name, home string
	gid        uint32
}

// A teller decides, in the collector, whether a question is answered with the user's name.
type teller struct {
	account func(ctx context.Context, uid uint32) account
	read    func(ctx context.Context, q optin.Question) (optin.Answer, error)
	names   *optin.Names
	took    durations
}

// tell is examine.Examiner's Tell.
func (t *teller) tell(ctx context.Context, q stop.Question, s host.Socket) (name string, unread bool) {
	began := time.Now()
	var a account
	if s != (host.Socket{}) {
		a = t.account(ctx, s.UID)
	}
	if a.name == "" {
		t.took.wait(began)
		return "", false
	}
	said, err := t.read(ctx, optin.Question{UID: s.UID, GID: a.gid, Home: a.home, Requester: q.Requester, Local: s.Local, Remote: s.Remote})
	if err != nil {
		t.took.wait(began)
		return "", true
	}
	t.took.add(time.Since(began))
	// All names are asked for, so that all are known the next time.
	is := func(names []string, unknown bool) (any bool) {
		for _, n := range names {
			has, known := t.names.Has(s.UID, n, q.Requester)
			any = any || has || !known && unknown
		}
		return any
	}
	if len(a.name) > maxTold {
		return "", false
	}
	hidden, listed := is(said.HiddenFrom, true), is(said.ListedNames, false)
	if said.Hidden || hidden || q.Naming == stop.NameIfListed && !said.Listed && !listed {
		return "", false
	}
	return a.name, false
}

// durations are how long the last readings of users' files took. What is answered without one takes as long as one of them, drawn at
// random, so that its time does not tell.
type durations struct {
	mu   sync.Mutex
	last [64]time.Duration
	seen int
}

func (d *durations) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last[d.seen%len(d.last)] = took
	d.seen++
}

// wait lets the time pass that a reading would have taken which began at a time.
func (d *durations) wait(began time.Time) {
	d.mu.Lock()
	var took time.Duration
	if d.seen > 0 {
		took = d.last[rand.IntN(min(d.seen, len(d.last)))]
	}
	d.mu.Unlock()
	time.Sleep(time.Until(began.Add(took)))
}

// readBySupervisor has users' files read.
func readBySupervisor(l *link) func(context.Context, optin.Question) (optin.Answer, error) {
	return func(ctx context.Context, q optin.Question) (optin.Answer, error) {
		b, err := ask[json.RawMessage](ctx, l, callRead, readerAsked{Question: q})
		if err != nil {
			return optin.Answer{}, err
		}
		said, err := parseSaid(b)
		return said.Answer, err
	}
}

// resolveByTracer has host names looked up.
func resolveByTracer(l *link) func(context.Context, string) ([]netip.Addr, error) {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		return ask[[]netip.Addr](ctx, l, callResolve, name)
	}
}
