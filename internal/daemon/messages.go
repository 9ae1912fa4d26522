package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
)

// What crosses between processes are the calls of the seams: server.Answerer from the front to the collector,
// server.Tracer from the front to the tracer, examine.Tracer from the collector to it, examine.Keeper from the collector
// to the keeper, server.KeepTraceback from the tracer to it, and the requests to witnesses from the keeper to the tracer.

// An answerer is the collector, as the front sees it.
type answerer struct{ *link }

type declined struct {
	Question stop.Question
	Why      string
	SameAs   stop.Token
}

func (a answerer) Find(ctx context.Context, q stop.Question) (stop.Connection, error) {
	return ask[stop.Connection](ctx, a.link, callFind, q)
}

func (a answerer) Examine(ctx context.Context, q stop.Question) (stop.Examined, error) {
	return ask[stop.Examined](ctx, a.link, callExamine, q)
}

func (a answerer) Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	return ask[stop.Token](ctx, a.link, callDecline, declined{q, why, sameAs})
}

// recorded returns how the recorder goes; nil where there is none.
func (a answerer) recorded(ctx context.Context) (*recorded, error) {
	return ask[*recorded](ctx, a.link, callRecorded, none{})
}

// Counted gives what the collector counted.
func (a answerer) Counted(ctx context.Context) (server.Counted, error) {
	return ask[server.Counted](ctx, a.link, callCounted, none{})
}

// serveAnswerer serves what the front calls. What it is told are tokens, names that may be sent, a connection's numbers, and words.
func serveAnswerer(ctx context.Context, x *examine.Examiner, log *slog.Logger, c call, b []byte) ([]byte, error) {
	switch c {
	case callFind:
		return serve(ctx, c, b, func(ctx context.Context, q stop.Question) (stop.Connection, error) {
			found, err := x.Find(ctx, q)
			return found, worded(err, log)
		})
	case callExamine:
		return serve(ctx, c, b, func(ctx context.Context, q stop.Question) (stop.Examined, error) {
			e, err := x.Examine(ctx, q)
			return e, worded(err, log)
		})
	case callDecline:
		return serve(ctx, c, b, func(ctx context.Context, d declined) (stop.Token, error) {
			t, err := x.Decline(ctx, d.Question, d.Why, d.SameAs)
			return t, worded(err, log)
		})
	}
	return nil, errCall(c)
}

// errFailed stands for every error that only an administrator is to know more of.
var errFailed = errors.New("the collector failed; its own line says why")

// worded leaves of an error what the front may know. Who answers to nobody has one of a few reasons (package examine).
func worded(err error, log *slog.Logger) error {
	switch {
	case err == nil, errors.Is(err, stop.ErrNoUser):
		return err
	case errors.Is(err, stop.ErrNoRoom):
		return stop.ErrNoRoom
	}
	log.Error("examine", "error", err)
	return errFailed
}

func errCall(c call) error { return fmt.Errorf("this process does not serve call %d", c) }

// A tracing is the tracer, as the front and the collector see it. They do not wait for it for ever.
type tracing struct{ *link }

// Found implements examine.Tracer.
func (t tracing) Found(ctx context.Context, f stop.Finding) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := ask[none](ctx, t.link, callFound, f)
	return err
}

// Begin implements server.Tracer.
func (t tracing) Begin(ctx context.Context, of stop.Token) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := ask[none](ctx, t.link, callBegin, of)
	return err
}

// Counted implements server.Tracer.
func (t tracing) Counted(ctx context.Context) (server.Counted, error) {
	return ask[server.Counted](ctx, t.link, callCounted, none{})
}

// A watchOrder has a token's process watched, in so long.
type watchOrder struct {
	Token  stop.Token
	Within time.Duration
}

// until is for how long a context goes on; where it has no end, not at all.
func until(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return time.Until(end)
}

// A recorded is what the front is told of the recorder, for metrics: since when it remembers, how many events it lost, and how many connections
// and processes it has, of so many of each.
type recorded struct {
	Running                      bool
	Since                        time.Time
	Lost                         uint64
	Connections, Processes, Room int
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
