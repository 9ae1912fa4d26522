package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/server"
	"github.com/stopd/stopd/trace"
)

// A shelf stands for the keeper and the tracer.
type shelf struct {
	token    stop.Token
	found    []stop.Finding
	err      error // of keeping
	foundErr error
}

func (k *shelf) Keep(_ context.Context, report []byte, _ stop.Payer) (stop.Token, error) {
	k.token = stop.TokenOf(report)
	return k.token, k.err
}

func (k *shelf) Found(_ context.Context, f stop.Finding) error {
	k.found = append(k.found, f)
	return k.foundErr
}

// A brokenHost cannot be looked at.
type brokenHost struct {
	host.Host
	find, look error
}

func (b brokenHost) Find(ctx context.Context, f host.Flow) (host.Socket, error) {
	if b.find != nil {
		return host.Socket{}, b.find
	}
	return b.Host.Find(ctx, f)
}

func (b brokenHost) Snapshot(ctx context.Context) (host.Snapshot, error) {
	if b.look != nil {
		return nil, b.look
	}
	return b.Host.Snapshot(ctx)
}

// numbers are what a recorder has to say of itself.
var numbers = recorded{true, time.Unix(1e9, 0).UTC(), 1, 2, 3, 4}

// tracked is what that collector says of translated connections.
var tracked = server.Bound{Name: "translated_connections", Used: 1, Limit: 2, Reached: 3}

// replayed is a collector of the host of thesis Appendix B.1: telnet to 3.3.3.3:23, in a session from 1.1.1.1:616.
func replayed(t testing.TB, log *slog.Logger) (*process, *examine.Examiner, *shelf) {
	t.Helper()
	b, err := os.ReadFile("../../testdata/thesis/b1.json")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	rec.Sockets = append(rec.Sockets, host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:22"), Remote: netip.MustParseAddrPort("1.1.1.1:616"),
		State: "ESTABLISHED", Direction: host.Inbound, DirectionSource: host.FromKernel, Object: "22 from 1.1.1.1:616"},
		host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:4000"), Remote: netip.MustParseAddrPort("3.3.3.3:24"), State: "TIME-WAIT"})
	k := &shelf{}
	x := &examine.Examiner{Host: &host.Replay{Recording: rec}, Keeper: k, Tracer: k, Name: "stopd", Sources: func() []string { return nil },
		Deadline: time.Minute, Trace: trace.Defaults, Save: examine.AllGroups, Secret: []byte("secret"),
		UserName: func(context.Context, uint32) string { return "user1" }}
	o := &collectorPart{log: log, sys: system{recorded: func() *recorded { return &numbers }, tracked: func() server.Bound { return tracked }}}
	o.now.Store(x)
	p := &process{role: collector}
	var made part = o
	p.part.Store(&made)
	return p, x, k
}

// What the front may call is answered with a token of what was kept, some numbers, or one of few words: nothing of users,
// processes, addresses or of who a connection leads back to. Everything else it calls is refused, and does nothing.
func TestWhatTheFrontGets(t *testing.T) {
	var log bytes.Buffer
	p, x, k := replayed(t, slog.New(slog.NewTextHandler(&log, nil)))
	asks := p.serveOther(front)
	whole, secrets := x.Host, errors.New("read /home/user1: of 1.1.1.1:616, 1000")
	words := map[string]bool{
		"no user: no such connection": true, "no user: no process holds the connection": true, "no user: this host did not open the connection": true,
		"no room for evidence": true, errFailed.Error(): true,
	}
	x.Tell = func(context.Context, stop.Question, host.Socket) (string, bool) { return "user1", true }
	said := map[string]bool{}
	for _, line := range []string{
		"968,23", "968,23:SV", "968,23:SV_REC:7", "968,23:ID_REC:7", "968,23:SV_REC:7:3.3.3.3", "22,616:SV_REC:7", "22,616:SV_REC:7:1.1.1.1",
		"4000,24:SV", "4000,24:ID_REC:1", "1,2", "1,2:SV_REC:7", "0,0:SV_REC:7", "70000,1",
	} {
		r, err := stop.ParseRequest([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddr("3.3.3.3")
		if strings.HasPrefix(line, "22") {
			from = netip.MustParseAddr("1.1.1.1")
		}
		q := r.About(from, netip.MustParseAddr("2.2.2.2"), time.Unix(1e9, 0).UTC())
		for name, broken := range map[string]func(){
			"well": func() {}, "full": func() { k.err = fmt.Errorf("store of user1: %w", stop.ErrNoRoom) }, "disk": func() { k.err = secrets },
			"tracer": func() { k.foundErr = secrets }, "find": func() { x.Host = brokenHost{whole, secrets, nil} }, "look": func() { x.Host = brokenHost{whole, nil, secrets} },
		} {
			x.Host, k.err, k.foundErr = whole, nil, nil
			broken()
			for c := callFailure + 1; c < calls; c++ {
				var asked any = q
				if c == callDecline {
					asked = declined{q, "why", stop.Token{1}}
				}
				b, err := json.Marshal(asked)
				if err != nil {
					t.Fatal(err)
				}
				k.token, k.found = stop.Token{}, nil
				answer, err := asks(t.Context(), c, b)
				what := fmt.Sprintf("call %d about %q, %s", c, line, name)
				if err != nil {
					if served := c == callFind || c == callExamine || c == callDecline || c == callRecorded; served != words[err.Error()] {
						t.Errorf("%s: told %q", what, err)
					}
					said[err.Error()] = true
					continue
				}
				var want any
				switch c {
				case callFind:
					found, err := x.Find(t.Context(), q)
					if err != nil {
						t.Fatal(err)
					}
					want = map[string]uint64{"ID": found.ID, "Owner": found.Owner}
				case callExamine:
					want = stop.Examined{Token: k.token} // no name, since none is to be told
				case callDecline:
					want = k.token
				case callRecorded:
					want = numbers
				case callCounted:
					want = server.Counted{Bounds: []server.Bound{tracked}}
				default:
					t.Errorf("%s: served", what)
				}
				if exact, err := json.Marshal(want); err != nil || !bytes.Equal(answer, exact) {
					t.Errorf("%s: told %s, want %s, %v", what, answer, exact, err)
				}
				if name == "well" && line == "968,23:SV_REC:7" && c == callExamine && (len(k.found) != 1 || len(k.found[0].Previous) == 0) {
					t.Error("the question of this test leads back to nobody")
				}
			}
		}
	}
	for word := range words {
		if !said[word] {
			t.Errorf("never said: %q", word)
		}
	}
	if !strings.Contains(log.String(), secrets.Error()) {
		t.Errorf("what went wrong is not in the log: %s", log.String())
	}
}

// Of the tracer the front gets numbers, by names that do not depend on anybody.
func TestWhatTheFrontGetsOfTheTracer(t *testing.T) {
	tb := asksNobody(10)
	end := netip.MustParseAddrPort("1.1.1.1:616")
	if err := tb.Found(t.Context(), stop.Finding{Token: stop.Token{1}, Type: stop.SVRec, Previous: []stop.Previous{{Ends: stop.Ends{Remote: end, Local: end}, Corroborated: true}}}); err != nil {
		t.Fatal(err)
	}
	ask := func(c call, asked any) ([]byte, error) {
		b, err := json.Marshal(asked)
		if err != nil {
			t.Fatal(err)
		}
		return (&tracerPart{tracebacks: tb}).serves(t.Context(), c, b)
	}
	for _, token := range []stop.Token{{1}, {1}, {2}} {
		if b, err := ask(callBegin, token); len(b) > 0 || err != nil && err.Error() != "begin trace-back: no trace-back is promised for that token, or it has begun" {
			t.Errorf("told %s, %v", b, err)
		}
	}
	b, err := ask(callCounted, none{})
	var counted server.Counted
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := errors.Join(err, d.Decode(&counted)); err != nil {
		t.Fatal(err)
	}
	idle, _ := asksNobody(10).Counted(t.Context())
	idle = idle.And(server.Counted{Counts: (*logServer)(nil).counts()})
	if !slices.EqualFunc(counted.Bounds, idle.Bounds, func(a, b server.Bound) bool { return a.Name == b.Name }) ||
		!slices.EqualFunc(counted.Counts, idle.Counts, func(a, b server.Count) bool { return a.Name == b.Name }) {
		t.Errorf("%+v", counted)
	}
	if err := tb.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whatever the front says to the collector, it gets a token that was kept, two numbers or an error.
func FuzzCollector(f *testing.F) {
	for _, line := range []string{"968,23:SV_REC:7", "1,2", "22,616:ID_REC:1:1.1.1.1"} {
		r, err := stop.ParseRequest([]byte(line))
		if err != nil {
			f.Fatal(err)
		}
		q := r.About(netip.MustParseAddr("3.3.3.3"), netip.MustParseAddr("2.2.2.2"), time.Unix(1e9, 0).UTC())
		asked, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(callFind), asked)
		f.Add(byte(callExamine), asked)
		not, err := json.Marshal(declined{q, "why", stop.Token{1}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(callDecline), not)
	}
	f.Add(byte(callDecline), []byte(`{"Question":{"Request":{"Type":200,"SID":-1,"For":"fe80::1%x"},"Local":"[::]:0"},"SameAs":[1]}`))
	f.Add(byte(callFound), []byte(`{"Type":3}`))
	p, _, k := replayed(f, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, c byte, asked []byte) {
		k.token = stop.Token{}
		answer, err := p.serveOther(front)(t.Context(), call(c), asked)
		if err != nil {
			return
		}
		if len(answer) > largest[c].answered {
			t.Errorf("%d octets", len(answer))
		}
		d := json.NewDecoder(bytes.NewReader(answer))
		d.DisallowUnknownFields()
		switch call(c) {
		case callFind:
			var found stop.Connection
			if err := d.Decode(&found); err != nil || found.ID == 0 {
				t.Errorf("%s: %v", answer, err)
			}
		case callExamine:
			var x stop.Examined
			if err := d.Decode(&x); err != nil || x.Token != k.token || x.Token == (stop.Token{}) || len(x.Name) > maxTold {
				t.Errorf("%s: %v", answer, err)
			}
		case callDecline:
			var token stop.Token
			if err := d.Decode(&token); err != nil || token != k.token || token == (stop.Token{}) {
				t.Errorf("%s: %v", answer, err)
			}
		case callRecorded:
			var r recorded
			if err := d.Decode(&r); err != nil || r != numbers {
				t.Errorf("%s: %v", answer, err)
			}
		case callCounted:
			var n server.Counted
			if err := d.Decode(&n); err != nil || len(n.Bounds) != 1 {
				t.Errorf("%s: %v", answer, err)
			}
		default:
			t.Errorf("call %d is served", c)
		}
	})
}

// A keeper that does not say in time that a report is durable costs its reply.
func TestKeeperThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, x, _ := replayed(t, slog.New(slog.DiscardHandler))
		far, _ := linked(t, func(ctx context.Context, _ call, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		x.Keeper = &farKeeper{link: far}
		asks := p.serveOther(front)
		r, err := stop.ParseRequest([]byte("968,23:SV"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(r.About(netip.MustParseAddr("3.3.3.3"), netip.MustParseAddr("2.2.2.2"), time.Now().UTC()))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := asks(t.Context(), callExamine, b); err == nil || err.Error() != errFailed.Error() {
			t.Errorf("the front is told %v", err)
		}
		if took := time.Since(began); took != commitTimeout {
			t.Errorf("after %s", took)
		}
	})
}

// TestReloadKeepsWatchables: what is to be watched for questions before a reload is watched after it.
func TestReloadKeepsWatchables(t *testing.T) {
	o := &collectorPart{}
	var before *examine.Watchables
	for range 2 {
		if err := o.reload(started{Config: Defaults()}); err != nil {
			t.Fatal(err)
		}
		now := o.now.Load().Watchables
		if now == nil || before != nil && now != before {
			t.Errorf("watchables are %p, and were %p", now, before)
		}
		before = now
	}
}

// TestCannotRemember: where nothing can be remembered that was to be, that is said and counted; where it is not to be, neither.
func TestCannotRemember(t *testing.T) {
	refused := errors.New("load programs: not permitted")
	for mode, want := range map[string]*recorded{recorderAuto: {}, recorderOff: nil} {
		var log lockedBuffer
		o := &collectorPart{log: slog.New(slog.NewTextHandler(&log, nil))}
		o.sys.remember = func(Recorder, func(*recorder.History, uint64), func(error)) error { return refused }
		o.sys.recorded = func() *recorded { return nil }
		if got := o.recorded(); got != nil {
			t.Errorf("%s: before it was tried it is %+v", mode, got)
		}
		o.rememberIfItCan(Recorder{Mode: mode})
		if d := cmp.Diff(want, o.recorded()); d != "" {
			t.Errorf("%s: recorded (-want +got):\n%s", mode, d)
		}
		if said := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), refused.Error()); said != (want != nil) {
			t.Errorf("%s: said is %q", mode, log.String())
		}
	}
}

// TestRemembersPart: what of the past the kernel does not tell is said, a line each.
func TestRemembersPart(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which remembering changes
	var log lockedBuffer
	o := &collectorPart{log: slog.New(slog.NewTextHandler(&log, nil))}
	o.sys.remember = func(Recorder, func(*recorder.History, uint64), func(error)) error { return nil }
	o.sys.unremembered = func() []error { return []error{errors.New("one"), errors.New("two")} }
	o.rememberIfItCan(Recorder{Mode: recorderAuto})
	if said := log.String(); strings.Count(said, "\n") != 2 || !strings.Contains(said, "error=one") || !strings.Contains(said, "error=two") || strings.Count(said, "level=WARN") != 2 {
		t.Errorf("said is %q", said)
	}
}

// Where the kernel lets no process be watched, nothing was seen to pass, and candidates are told by what there is beside.
func TestUnwatched(t *testing.T) {
	passed := []host.Transfer{{Socket: 1}}
	o := &collectorPart{sys: system{watch: func(context.Context, host.ID, time.Duration) ([]host.Transfer, error) { return passed, nil }}}
	for _, unwatched := range []bool{false, true} {
		o.unwatched.Store(unwatched)
		ts, err := o.watch(t.Context(), host.ID{PID: 1}, time.Second)
		if err != nil || (len(ts) == 0) != unwatched {
			t.Errorf("unwatched %t: %v, %v", unwatched, ts, err)
		}
	}
}
