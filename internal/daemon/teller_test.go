package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/optin"
)

// Who gets a name, by what a user's files say.
func TestTeller(t *testing.T) {
	irc := netip.MustParseAddr("192.0.2.9")
	resolve := func(_ context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "irc.example":
			return []netip.Addr{irc}, nil
		case "db.example":
			return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
		}
		return nil, errors.New("no such host")
	}
	alice := account{name: "alice", home: "/home/alice", gid: 100}
	for _, c := range []struct {
		name                 string
		account              account
		said                 optin.Answer
		err                  error
		listed, unlessHidden [2]string // what is told at once, and once names are known
		unread               bool
	}{
		{"nothing", alice, optin.Answer{}, nil, [2]string{}, [2]string{"alice", "alice"}, false},
		{"listed", alice, optin.Answer{Listed: true}, nil, [2]string{"alice", "alice"}, [2]string{"alice", "alice"}, false},
		{"hidden", alice, optin.Answer{Hidden: true, Listed: true}, nil, [2]string{}, [2]string{}, false},
		{"listed by name", alice, optin.Answer{ListedNames: []string{"db.example", "irc.example"}}, nil, [2]string{"", "alice"}, [2]string{"alice", "alice"}, false},
		{"another's name is listed", alice, optin.Answer{ListedNames: []string{"db.example", "no.example"}}, nil, [2]string{}, [2]string{"alice", "alice"}, false},
		{"hidden by name", alice, optin.Answer{Listed: true, HiddenFrom: []string{"irc.example"}}, nil, [2]string{}, [2]string{}, false},
		{"hidden from another", alice, optin.Answer{Listed: true, HiddenFrom: []string{"db.example"}}, nil, [2]string{"", "alice"}, [2]string{"", "alice"}, false},
		{"hidden from nobody knows whom", alice, optin.Answer{Listed: true, HiddenFrom: []string{"no.example"}}, nil, [2]string{}, [2]string{}, false},
		{"no account", account{}, optin.Answer{Listed: true}, nil, [2]string{}, [2]string{}, false},
		{"not read", alice, optin.Answer{Listed: true}, errReaders, [2]string{}, [2]string{}, true},
	} {
		for naming, want := range map[stop.Naming][2]string{stop.NameIfListed: c.listed, stop.NameUnlessHidden: c.unlessHidden} {
			synctest.Test(t, func(t *testing.T) {
				teller := &teller{
					account: func(context.Context, uint32) account { return c.account },
					read: func(_ context.Context, q optin.Question) (optin.Answer, error) {
						if q.UID != 1000 || q.GID != 100 || q.Home != "/home/alice" || q.Requester != irc {
							t.Errorf("asked was %+v", q)
						}
						return c.said, c.err
					},
					names: &optin.Names{Resolve: resolve},
				}
				q := stop.Question{Requester: irc, Naming: naming}
				for i := range 2 {
					name, unread := teller.tell(t.Context(), q, host.Socket{UID: 1000, Inode: 1})
					if name != want[i] || unread != c.unread {
						t.Errorf("%s, naming %d, question %d: %q, unread %t; want %q", c.name, naming, i, name, unread, want[i])
					}
					synctest.Wait()
				}
				if name, _ := teller.tell(t.Context(), q, host.Socket{}); name != "" {
					t.Errorf("of nobody's socket: %q", name)
				}
			})
		}
	}
}

// What is answered without a reading takes as long as one, however it came to that.
func TestTellerTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		var known account
		teller := &teller{
			account: func(context.Context, uint32) account { return known },
			read: func(context.Context, optin.Question) (optin.Answer, error) {
				if err == nil {
					time.Sleep(8 * time.Millisecond)
				}
				return optin.Answer{}, err
			},
			names: &optin.Names{},
		}
		for _, c := range []struct {
			name   string
			known  account
			err    error
			socket host.Socket
		}{
			{"read", account{name: "alice"}, nil, host.Socket{Inode: 1}},
			{"not read", account{name: "alice"}, errReaders, host.Socket{Inode: 1}},
			{"no account", account{}, nil, host.Socket{Inode: 1}},
			{"no socket", account{name: "alice"}, nil, host.Socket{}},
		} {
			known, err = c.known, c.err
			began := time.Now()
			teller.tell(t.Context(), stop.Question{Naming: stop.NameIfListed}, c.socket)
			if took := time.Since(began); took != 8*time.Millisecond {
				t.Errorf("%s: after %s", c.name, took)
			}
		}
	})
}

func TestReadersBounds(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b, c := netip.MustParsePrefix("192.0.2.9/32"), netip.MustParsePrefix("192.0.2.10/32"), netip.MustParsePrefix("192.0.2.11/32")
	started := func(r *readers, uid uint32, times int, end bool, sources ...netip.Prefix) (xs []*reading) {
		for range times {
			for _, source := range sources {
				if x := r.start(uid, source, now); x != nil {
					xs = append(xs, x)
					if end {
						r.ended(x)
					}
				}
			}
		}
		return xs
	}
	var r readers
	xs := started(&r, 1, 100, false, a)
	if len(xs) != userReaders.most/2 {
		t.Errorf("%d of one user at once, from one source", len(xs))
	}
	if xs = append(xs, started(&r, 1, 100, false, b, c)...); len(xs) != userReaders.most {
		t.Errorf("%d of one user at once", len(xs))
	}
	now = now.Add(time.Hour)
	// One that was late and has not ended is the last; one that has ended does not matter.
	for _, x := range xs[1:] {
		r.ended(x)
		r.late(x)
	}
	if len(started(&r, 1, 1, true, a)) != 1 {
		t.Error("none after one that was late and has ended")
	}
	r.late(xs[0])
	if len(started(&r, 1, 1, true, a)) != 0 || len(started(&r, 2, 1, true, a)) != 1 {
		t.Error("one that is late counts for nothing, or for another user")
	}
	r.ended(xs[0])
	// Who asks as often as he can about a user leaves as much to the others, in a burst and ever after.
	for _, c := range []struct {
		pass         time.Duration
		mine, others float64
	}{{time.Hour, userReaders.burst / 2, userReaders.burst / 2}, {time.Second, userReaders.rate / 2, userReaders.rate / 2}} {
		now = now.Add(c.pass)
		if n := len(started(&r, 1, 1000, true, a)); n != int(c.mine) {
			t.Errorf("%d of one user after %s, from one source", n, c.pass)
		}
		if n := len(started(&r, 1, 1000, true, b)); n != int(c.others) {
			t.Errorf("%d of one user after %s, from another", n, c.pass)
		}
	}
	if n := len(started(&r, 1, 1000, true, c)); n != 0 {
		t.Errorf("%d of one user beyond the bound", n)
	}
	now = now.Add(time.Hour)
	for _, source := range []netip.Prefix{a, b, c} {
		n, want := 0, int(allReaders.burst/2)
		for uid := range uint32(1000) {
			n += len(started(&r, uid, 1, true, source))
		}
		if source == c {
			want = 0
		}
		if n != want {
			t.Errorf("%d of all in a burst, from %s", n, source)
		}
	}
	now = now.Add(time.Hour)
	xs = nil
	for uid := range uint32(1000) {
		xs = append(xs, started(&r, uid, 1, false, a, b)...)
	}
	if len(xs) != allReaders.most {
		t.Errorf("%d of all at once", len(xs))
	}
	for _, x := range xs {
		r.ended(x)
	}
	for uid := range uint32(2 * maxRememberedReaders) {
		now = now.Add(time.Second / 10)
		if len(started(&r, 10000+uid, 1, true, a)) != 1 || len(r.counts) > maxRememberedReaders {
			t.Fatalf("user %d is refused, %d are remembered", uid, len(r.counts))
		}
	}
	for k, c := range r.counts {
		if c.running != 0 {
			t.Errorf("%d of %v are counted and have ended", c.running, k)
		}
	}
}

// What a reader says was written by a process that read a user's files.
func FuzzParseSaid(f *testing.F) {
	b, err := json.Marshal(readerSaid{Answer: optin.Answer{Listed: true, HiddenFrom: []string{"a.example"}, ListedNames: []string{"b"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(` {"Answer":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		said, err := parseSaid(b)
		names := append(said.Answer.HiddenFrom, said.Answer.ListedNames...)
		for _, n := range names {
			if len(n) > maxName {
				t.Errorf("a name of %d octets", len(n))
			}
		}
		if len(names) > 2*optin.MaxNames || err != nil && len(names) > 0 {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
}
