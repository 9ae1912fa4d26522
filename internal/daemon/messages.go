package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
)

// What crosses between processes are the calls of the seams: server.Answerer from the front to the collector,
// server.Config's Ask from the front to the tracer, examine.Keeper from the collector to the keeper, and the
// requests to witnesses from the keeper to the tracer.

// An answerer is the collector, as the front sees it.
type answerer struct{ *link }

// A question is a stop.Question as it crosses: there the names of the request's fields are hidden by others.
type question struct {
	Request       stop.Request
	Time          time.Time
	Requester     netip.Addr
	Local, Remote netip.AddrPort
	Naming        stop.Naming
}

func questionOf(q stop.Question) question {
	return question{q.Request, q.Time, q.Requester, q.Local, q.Remote, q.Naming}
}

func (q question) question() stop.Question {
	return stop.Question{Request: q.Request, Time: q.Time, Requester: q.Requester, Local: q.Local, Remote: q.Remote, Naming: q.Naming}
}

type declined struct {
	Question question
	Why      string
	SameAs   stop.Token
}

type tracebacks struct {
	Token   stop.Token
	Records []stop.Traceback
}

func (a answerer) Find(ctx context.Context, q stop.Question) (stop.Connection, error) {
	return ask[stop.Connection](ctx, a.link, callFind, questionOf(q))
}

func (a answerer) Examine(ctx context.Context, q stop.Question) (stop.Finding, error) {
	return ask[stop.Finding](ctx, a.link, callExamine, questionOf(q))
}

func (a answerer) Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	return ask[stop.Token](ctx, a.link, callDecline, declined{questionOf(q), why, sameAs})
}

func (a answerer) KeepTraceback(ctx context.Context, t stop.Token, ts []stop.Traceback) error {
	_, err := ask[none](ctx, a.link, callTraceback, tracebacks{t, ts})
	return err
}

// serveAnswerer serves what the front calls.
func serveAnswerer(x func() *examine.Examiner) func(context.Context, call, []byte) ([]byte, error) {
	return func(ctx context.Context, c call, b []byte) ([]byte, error) {
		switch c {
		case callFind:
			return serve(ctx, c, b, func(ctx context.Context, q question) (stop.Connection, error) { return x().Find(ctx, q.question()) })
		case callExamine:
			return serve(ctx, c, b, func(ctx context.Context, q question) (stop.Finding, error) { return x().Examine(ctx, q.question()) })
		case callDecline:
			return serve(ctx, c, b, func(ctx context.Context, d declined) (stop.Token, error) {
				return x().Decline(ctx, d.Question.question(), d.Why, d.SameAs)
			})
		case callTraceback:
			return serve(ctx, c, b, func(ctx context.Context, t tracebacks) (none, error) {
				return none{}, x().KeepTraceback(ctx, t.Token, t.Records)
			})
		}
		return nil, errCall(c)
	}
}

func errCall(c call) error { return fmt.Errorf("this process does not serve call %d", c) }

// A hostAsked is one previous host to be asked, as server.Config's Ask has it.
type hostAsked struct {
	Source  netip.Addr
	Timeout time.Duration
	To      netip.AddrPort
	Request stop.Request
}

// askBy asks previous hosts by the tracer.
func askBy(l *link) server.Ask {
	return func(ctx context.Context, source netip.Addr, timeout time.Duration, to netip.AddrPort, r stop.Request) (stop.Answer, error) {
		return ask[stop.Answer](ctx, l, callAsk, hostAsked{source, timeout, to, r})
	}
}

// A keptReport is what the keeper is given. The report follows the JSON of the payer after a line feed.
func formatKept(report []byte, p stop.Payer) ([]byte, error) {
	b, err := json.Marshal(p) // on one line
	return append(append(b, '\n'), report...), err
}

func parseKept(b []byte) (report []byte, p stop.Payer, err error) {
	head, report, found := bytes.Cut(b, []byte("\n"))
	if !found {
		return nil, p, errors.New("parse report to keep: no payer")
	}
	if err := json.Unmarshal(head, &p); err != nil {
		return nil, stop.Payer{}, fmt.Errorf("parse report to keep: %w", err)
	}
	return report, p, nil
}

type keptTraceback struct {
	Token  stop.Token
	Record []byte
}

// A posted is a request to a witness, and an answered what came.
type posted struct {
	URL    string
	Header http.Header
	Body   []byte
}

type answered struct {
	Status int
	Body   []byte
}

// A poster sends requests to witnesses by the tracer.
type poster struct{ *link }

// maxPost is how many octets a request to a witness, and its answer, may have.
const maxPost = 32 << 10

// RoundTrip posts a request. Of the answer there are the status and the body.
func (p poster) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPost))
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	a, err := ask[answered](r.Context(), p.link, callPost, posted{r.URL.String(), r.Header, body})
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: a.Status, Status: http.StatusText(a.Status), Body: io.NopCloser(bytes.NewReader(a.Body)), Request: r}, nil
}

// post sends a request to one of the witnesses and nobody else.
func post(ctx context.Context, c *http.Client, witnesses []Witness, p posted) (answered, error) {
	known := slices.ContainsFunc(witnesses, func(w Witness) bool {
		return strings.HasPrefix(p.URL, strings.TrimSuffix(w.URL, "/")+"/")
	})
	if !known {
		return answered{}, fmt.Errorf("post to %q: no witness", p.URL)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(p.Body))
	if err != nil {
		return answered{}, err
	}
	r.Header = p.Header
	got, err := c.Do(r)
	if err != nil {
		return answered{}, err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, maxPost))
	return answered{got.StatusCode, body}, err
}
