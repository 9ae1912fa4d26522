package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
)

// Whatever one process calls, and whatever another answers, a process goes on: it serves, refuses, or gets an error. What
// the front may say to the collector is FuzzCollector's.
func FuzzMessages(f *testing.F) {
	end := netip.MustParseAddrPort("192.0.2.1:9")
	for c, v := range map[call]any{
		callFind:          stop.Question{Request: stop.Request{Local: 1, Remote: 2, Type: stop.SV}, Requester: end.Addr(), Local: end},
		callExamine:       stop.Question{Request: stop.Request{Local: 70000, Remote: 0, Type: stop.SVRec, SID: 1 << 63}, Local: end},
		callDecline:       declined{Why: "\x00\xff", SameAs: stop.Token{1}},
		callFound:         stop.Finding{Token: stop.Token{2}, Type: stop.SVRec, Previous: []stop.Previous{{Ends: stop.Ends{Remote: end}}}},
		callBegin:         stop.Token{2},
		callResolve:       "host.example",
		callFlow:          watchOrder{stop.Token{2}, time.Second},
		callForward:       forwardedLine{[]byte("l"), 1},
		callKeepTraceback: keptTraceback{stop.Token{3}, []byte("{}")},
		callRecordConfig:  [32]byte{1},
		callPost:          posted{URL: "https://witness.example/add-checkpoint", Body: []byte("b")},
		callLog:           logged{slog.LevelError, "m", [][2]string{{"k", "v"}}},
		callReload:        started{Config: Defaults(), Server: serverConfig(Defaults())},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(c), b)
	}
	for c := range calls { // some are asked without content
		f.Add(byte(c), []byte{})
	}
	f.Add(byte(callKeep), []byte("{}\nreport"))
	f.Add(byte(callKeepPast), []byte("\x00octets"))
	f.Add(byte(callPast), make([]byte, 8))
	f.Add(byte(callFind), []byte(`{"Local":"fe80::1%x","UID":4294967296}`))
	dir := f.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	key := newLogKey(f)
	// The keeper has no store without a log.
	store, err := evidence.Open(dir+"/store", evidence.Config{Recipients: []age.Recipient{id.Recipient()}, AllowVolatile: true, LogKey: &key, Logger: quiet})
	if err != nil {
		f.Fatal(err)
	}
	store.Close() // what comes to it is refused, once it was understood
	ended, cancel := context.WithCancel(context.Background())
	cancel() // nobody is connected to
	watching := &collectorPart{watching: make(chan struct{}, 1)}
	watching.now.Store(&examine.Examiner{})
	serves := map[role]func(context.Context, call, []byte) ([]byte, error){
		keeper: (&keeperPart{process: &process{log: quiet}, store: store, past: pastFile{dir: dir, most: 1000}}).serves,
		tracer: (&tracerPart{tracebacks: asksNobody(10), witnesses: []Witness{{URL: "https://witness.example", Key: "k"}}, client: http.DefaultClient}).serves,
		collector: func(ctx context.Context, c call, b []byte) ([]byte, error) {
			if c != callFlow { // the tracer's
				return nil, errCall(c)
			}
			return watching.serves(ctx, c, b)
		},
		"supervisor": (&supervisor{log: quiet}).said(front),
	}
	f.Fuzz(func(t *testing.T, n byte, body []byte) {
		c := call(n)
		if c >= calls || len(body) > largest[c].asked {
			return // the link does not let it through
		}
		for r, serve := range serves {
			answer, err := serve(ended, c, body)
			if err == nil && len(answer) > largest[c].answered {
				t.Errorf("the %s answers call %d with %d octets", r, c, len(answer))
			}
			if err != nil && answer != nil {
				t.Errorf("the %s answers call %d with %q and %v", r, c, answer, err)
			}
			if err != nil && parseFailure(formatFailure(err)).Error() == "" && err.Error() != "" {
				t.Errorf("%v is lost on its way", err)
			}
		}
		for _, err := range []error{understand[stop.Connection](body), understand[stop.Finding](body), understand[stop.Token](body), understand[stop.Examined](body),
			understand[answered](body), understand[[]string](body), understand[server.Counted](body), understand[[]netip.Addr](body), understand[[]stop.Fed](body)} {
			if err != nil && errors.Is(err, errLink) {
				t.Error(err)
			}
		}
	})
}

// understand has an answer read, and what was read written and read again.
func understand[T any](body []byte) error {
	var v, again T
	if err := json.Unmarshal(body, &v); err != nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return errors.Join(errLink, err)
	}
	if err := json.Unmarshal(b, &again); err != nil {
		return errors.Join(errLink, err)
	}
	return nil
}
