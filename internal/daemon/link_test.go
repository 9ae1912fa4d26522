package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/server"
)

// linked joins two links. What the second serves is given.
func linked(t *testing.T, serves func(context.Context, call, []byte) ([]byte, error)) (*link, *link) {
	t.Helper()
	a, b := net.Pipe()
	x, y := newLink(a, nil), newLink(b, serves)
	t.Cleanup(func() { x.close(); y.close(); <-x.ended; <-y.ended })
	return x, y
}

// What comes back is what was sent, whatever it is; errors are what they were.
func TestLink(t *testing.T) {
	q := stop.Question{Request: stop.Request{Type: stop.SVRec, Local: 70000, Remote: 23, SID: 1<<64 - 1}, Time: time.Unix(1e9, 5).UTC(),
		Requester: netip.MustParseAddr("192.0.2.1"), Local: netip.MustParseAddrPort("[2001:db8::1%7]:0"), Remote: netip.AddrPort{}}
	x, _ := linked(t, func(ctx context.Context, c call, b []byte) ([]byte, error) {
		switch c {
		case callFind:
			return serve(ctx, c, b, func(_ context.Context, asked stop.Question) (stop.Connection, error) {
				if d := cmp.Diff(q, asked, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
					return stop.Connection{}, errors.New(d)
				}
				return stop.Connection{ID: 1<<64 - 1, Owner: 7}, nil
			})
		case callKeep:
			report, p, err := parseKept(b)
			if err != nil || p.UID != 7 {
				return nil, fmt.Errorf("%v, %w", p, err)
			}
			return serve(ctx, callDecline, []byte("{}"), func(context.Context, none) (stop.Token, error) { return stop.TokenOf(report), nil })
		case callCheckpoint:
			return serve(ctx, c, b, func(context.Context, none) (string, error) { return "digest", nil })
		case callExamine:
			return nil, fmt.Errorf("because: %w", stop.ErrNoUser)
		case callDecline:
			return nil, fmt.Errorf("because: %w", stop.ErrNoRoom)
		}
		return nil, errors.New(strings.Repeat("\x01", 1<<20))
	})
	got, err := answerer{x}.Find(t.Context(), q)
	if err != nil || got != (stop.Connection{ID: 1<<64 - 1, Owner: 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	report := bytes.Repeat([]byte("\x00\n\xff"), 1000)
	if k, err := (&farKeeper{link: x}).Keep(t.Context(), report, stop.Payer{UID: 7}); err != nil || k != stop.TokenOf(report) {
		t.Errorf("keep: %v, %v", k, err)
	}
	if d := (&farKeeper{link: x}).checkpoint(); d != "digest" {
		t.Errorf("checkpoint: %q", d)
	}
	for c, want := range map[call]error{callExamine: stop.ErrNoUser, callDecline: stop.ErrNoRoom} {
		_, err := x.call(t.Context(), c, []byte("{}"))
		if !errors.Is(err, want) || err.Error() != "because: "+want.Error() {
			t.Errorf("call %d: %v", c, err)
		}
	}
	if _, err := x.call(t.Context(), callFound, []byte("{}")); err == nil || len(err.Error()) > maxFailure || len(err.Error()) < 1000 {
		t.Errorf("a long error: %v", err)
	}
	if _, err := x.call(t.Context(), callFind, make([]byte, largest[callFind].asked+1)); err == nil || errors.Is(err, errLink) {
		t.Errorf("what is too large: %v", err)
	}
	// It all still works.
	if _, err := (answerer{x}).Find(t.Context(), q); err != nil {
		t.Error(err)
	}
}

// Every value that crosses arrives as it was.
func TestMessages(t *testing.T) {
	end := netip.MustParseAddrPort("[fe80::1%eth0]:9")
	for _, v := range []any{
		&stop.Finding{Token: stop.Token{1, 255}, Type: stop.IDRec, SID: 1<<64 - 1, Requester: end.Addr(), Connection: stop.Connection{ID: 1<<64 - 1, Owner: 1 << 63}, Previous: []stop.Previous{{Ends: stop.Ends{Remote: end, Local: end}, Outbound: true, Reasons: []string{"a"}, Corroborated: true, Elsewhere: true}}},
		&keptTraceback{stop.Token{2}, []byte("[\x00\xff]")},
		&server.Counted{Counts: []server.Count{{Name: "asked", N: 1<<64 - 1}}, Bounds: []server.Bound{{Name: "b", Used: 1, Limit: 2, Reached: 3}}},
		&declined{stop.Question{Request: stop.Request{Local: 1, Remote: 2, Type: stop.ID, SID: 3, For: end.Addr()}, Requester: end.Addr(), Local: end}, "why", stop.Token{3}},
		&stop.Payer{Source: end.Addr(), UID: 9, Owned: true, Traceback: true},
		&started{UID: 1, Root: true, Listeners: 2, Metrics: true, Config: full(), Server: serverConfig(full()), PIDs: []int{3}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(b, got); err != nil || !reflect.DeepEqual(v, got) {
			t.Errorf("%v\n%+v\n%+v", err, v, got)
		}
	}
}

// full is a configuration without a list that is empty or nil.
func full() Config {
	c := Defaults()
	p := []Network{{netip.MustParsePrefix("192.0.2.0/24")}}
	c.OnBehalf, c.Traceback.OutboundTo, c.Recipients, c.Witnesses = p, p, []string{"r"}, []Witness{{"u", "k"}}
	return c
}

// A call that is not answered ends with its context, and with the process that was to answer.
func TestLinkEnds(t *testing.T) {
	called := make(chan bool, 2)
	x, y := linked(t, func(ctx context.Context, _ call, _ []byte) ([]byte, error) {
		called <- true
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-called; cancel() }()
	if _, err := x.call(ctx, callFind, []byte("{}")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go func() { <-called; y.close() }()
	if _, err := x.call(t.Context(), callFind, []byte("{}")); !errors.Is(err, errLink) {
		t.Errorf("ended: %v", err)
	}
	if _, err := x.call(t.Context(), callFind, []byte("{}")); !errors.Is(err, errLink) {
		t.Errorf("after the end: %v", err)
	}
}

// frame is a message as it crosses.
func frame(c byte, n uint64, size uint32, body string) string {
	head := make([]byte, linkHeader)
	binary.BigEndian.PutUint32(head, size)
	head[4] = c
	binary.BigEndian.PutUint64(head[8:], n)
	return string(head) + body
}

// Who says what is no message is not listened to any more, and no more of it is read than its bound.
func TestLinkRefuses(t *testing.T) {
	for name, said := range map[string]string{
		"an unknown call":          frame(byte(calls), 1, 0, ""),
		"a large call":             frame(byte(callFind), 1, uint32(largest[callFind].asked)+1, ""),
		"the largest length":       frame(byte(callKeep), 1, 1<<32-1, ""),
		"an answer to nothing":     frame(byte(callAnswer), 1, 0, ""),
		"a failure of nothing":     frame(byte(callFailure), 9, 2, "{}"),
		"octets that must be zero": "\x00\x00\x00\x00\x09\x01\x00\x00" + strings.Repeat("\x00", 8),
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			l := newLink(b, func(context.Context, call, []byte) ([]byte, error) { t.Error("it was served"); return nil, nil })
			go io.Copy(io.Discard, a)
			io.WriteString(a, said)
			<-l.ended
		})
	}
}

// Whatever one process says, the other neither fails nor serves a call that is none.
func FuzzLink(f *testing.F) {
	f.Add([]byte(frame(byte(callFind), 1, 2, "{}")))
	f.Add([]byte(frame(byte(callKeep), 2, 5, "{}\nhi")))
	f.Add([]byte(frame(byte(callDecline), 3, 2, "[]") + frame(byte(callAnswer), 1, 0, "")))
	f.Add([]byte(frame(byte(callFailure), 1, 20, `{"is":"no user"}1234`)))
	f.Fuzz(func(t *testing.T, said []byte) {
		a, b := net.Pipe()
		l := newLink(b, func(ctx context.Context, c call, asked []byte) ([]byte, error) {
			if c <= callFailure || c >= calls || len(asked) > largest[c].asked {
				t.Errorf("call %d with %d octets", c, len(asked))
			}
			if c == callKeep {
				_, _, err := parseKept(asked)
				return nil, err
			}
			return serve(ctx, c, asked, func(_ context.Context, q stop.Question) (stop.Connection, error) {
				return stop.Connection{ID: q.Request.Local}, nil
			})
		})
		go io.Copy(io.Discard, a)
		a.Write(said)
		a.Close()
		<-l.ended
		var far *farError
		if err := parseFailure(said); !errors.Is(err, errLink) && !errors.As(err, &far) {
			t.Errorf("a failure is %v", err)
		}
	})
}

func TestPostGoesToWitnessesAlone(t *testing.T) {
	ws := []Witness{{URL: "https://witness.example/a/"}, {URL: "https://other.example"}}
	for _, url := range []string{"https://witness.example/", "https://witness.example/ab", "https://other.example.net/add-checkpoint", "file:///etc/passwd", ""} {
		if _, err := post(t.Context(), nil, ws, posted{URL: url}); err == nil || !strings.Contains(err.Error(), "no witness") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
