package examine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// proxy is an examiner of a host with one process, a proxy with a connection to 3.3.3.3:23 and clients, of whom the one in the middle has
// the octets of that, and what it takes and sends while it is watched.
func proxy(t *testing.T, clients int, change func(*host.Recording), transfers func() []host.Transfer) (*Examiner, *shelf) {
	t.Helper()
	x, k := examiner(t)
	connection := func(i uint64, d host.Direction, local, remote string) host.Descriptor {
		b := host.Bytes{Sent: 700, Acknowledged: 700, Received: 900}
		if d == host.Inbound {
			b.Sent, b.Received = b.Received, b.Sent
		}
		return host.Descriptor{FDs: []int{int(i)}, Kind: host.TCP, Mode: host.ReadWrite, Inode: i, Object: host.Object(fmt.Sprint(i)), State: "ESTABLISHED",
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Direction: d, DirectionSource: host.FromCounters, Bytes: b}
	}
	p := host.Process{PID: 100, PPID: new(1), StartTicks: 5, RUID: new(uint32(33)), EUID: new(uint32(33)), Name: "proxy",
		Descriptors: []host.Descriptor{connection(10, host.Outbound, "2.2.2.2:968", "3.3.3.3:23")}}
	for i := range clients {
		c := connection(uint64(20+i), host.Inbound, "2.2.2.2:80", fmt.Sprintf("198.51.100.%d:5000", i+1))
		if i != clients/2 {
			c.Bytes.Received += 1000
		}
		p.Descriptors = append(p.Descriptors, c)
	}
	rec := host.Recording{Processes: []host.Process{{PID: 1, PPID: new(0), RUID: new(uint32(0)), Name: "init"}, p}}
	a := p.Descriptors[0]
	rec.Sockets = []host.Socket{{Protocol: host.TCP, Local: a.Local, Remote: a.Remote, State: a.State, Direction: a.Direction, DirectionSource: a.DirectionSource,
		UID: 33, Inode: a.Inode, Object: a.Object, Bytes: a.Bytes}}
	if change != nil {
		change(&rec)
	}
	x.Host, x.Watchables = &host.Replay{Recording: rec}, &Watchables{}
	x.Watch = func(_ context.Context, id host.ID, window time.Duration) ([]host.Transfer, error) {
		if id != (host.ID{PID: 100, Start: 5}) || window != watchWindow {
			t.Errorf("watched %v for %s", id, window)
		}
		return transfers(), nil
	}
	return x, k
}

// passed are transfers by which something passes from one socket to another, some times.
func passed(from, to uint64, times int) (ts []host.Transfer) {
	for range times {
		ts = append(ts, host.Transfer{Socket: from, Octets: 1}, host.Transfer{Socket: to, Octets: 1, Sent: true})
	}
	return ts
}

func TestFlow(t *testing.T) {
	second := func() []host.Transfer { return passed(21, 10, 4) }
	for _, tt := range []struct {
		name      string
		change    func(*host.Recording)
		transfers func() []host.Transfer
		want      [3]string // grades
	}{
		{"certain", nil, second, [3]string{"unknown", "certain", "unknown"}},
		{"nothing passes", nil, func() []host.Transfer { return nil }, [3]string{"unknown", "supported", "unknown"}},
		{"somebody's own program", func(r *host.Recording) { r.Processes[1].LoginUID = new(uint32(1000)) }, second, [3]string{"unknown", "supported", "unknown"}},
		{"hears by a pipe", func(r *host.Recording) {
			d := host.Descriptor{FDs: []int{0}, Kind: host.Pipe, Mode: host.Read, Object: "pipe", Peer: "pipe"}
			r.Processes[1].Descriptors = append(r.Processes[1].Descriptors, d)
			d.Mode = host.Write
			r.Processes = append(r.Processes, host.Process{PID: 101, PPID: new(1), RUID: new(uint32(33)), Descriptors: []host.Descriptor{d}})
		}, second, [3]string{"unknown", "supported", "unknown"}},
		{"a pipe of its own", func(r *host.Recording) {
			d := host.Descriptor{FDs: []int{0, 1}, Kind: host.Pipe, Mode: host.ReadWrite, Object: "pipe", Peer: "pipe"}
			r.Processes[1].Descriptors = append(r.Processes[1].Descriptors, d)
		}, second, [3]string{"unknown", "certain", "unknown"}},
		{"other octets", func(r *host.Recording) { r.Processes[1].Descriptors[2].Bytes.Received += 100 }, second, [3]string{"unknown", "supported", "unknown"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, k := proxy(t, 3, tt.change, tt.transfers)
			e, err := x.Examine(t.Context(), question(t, "968 , 23 : SV_REC : 7"))
			if err != nil {
				t.Fatal(err)
			}
			if f := k.found(t); !f.Watchable || len(f.Previous) != 3 {
				t.Fatalf("found %+v", f)
			}
			fed, err := x.Flow(t.Context(), e.Token)
			if err != nil {
				t.Fatal(err)
			}
			var got [3]string
			for i, f := range fed {
				got[i] = f.Grade
				if want := k.found(t).Previous[i].Ends; f.Previous.Ends != want {
					t.Errorf("candidate %d is %v, and was %v", i, f.Previous, want)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("grades (-want +got):\n%s", d)
			}
			if _, err := x.Flow(t.Context(), e.Token); !errors.Is(err, errUnwatched) {
				t.Errorf("asked again: %v", err)
			}
		})
	}
}

// TestFlowOfSuccessor: what one examiner was asked the next can have watched.
func TestFlowOfSuccessor(t *testing.T) {
	x, _ := proxy(t, 3, nil, func() []host.Transfer { return passed(21, 10, 4) })
	e, err := x.Examine(t.Context(), question(t, "968 , 23 : SV_REC : 7"))
	if err != nil {
		t.Fatal(err)
	}
	next := &Examiner{Host: x.Host, Watch: x.Watch, Watchables: x.Watchables}
	if fed, err := next.Flow(t.Context(), e.Token); err != nil || len(fed) != 3 || fed[1].Grade != stop.FlowCertain {
		t.Errorf("told %+v, %v", fed, err)
	}
	if _, err := (&Examiner{}).Flow(t.Context(), e.Token); !errors.Is(err, errUnwatched) {
		t.Errorf("where nothing is watched: %v", err)
	}
}

// A countedHost counts how often it is looked at, and changes then.
type countedHost struct {
	host.Host
	looks  int
	change func(look int)
}

func (c *countedHost) Snapshot(ctx context.Context) (host.Snapshot, error) {
	c.looks++
	c.change(c.looks)
	return c.Host.Snapshot(ctx)
}

// TestLooks: a process is looked at again where octets alone are in the way of certainty.
func TestLooks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*host.Recording)
		passed  int
		settled int // the look at which the octets are as many
		looks   int
		grade   string
	}{
		{"settled", nil, 4, 1, 1, "certain"},
		{"under way", nil, 4, 3, 3, "certain"},
		{"for ever", nil, 4, 100, maxSettling, "supported"},
		{"too little passes", nil, 2, 100, 1, "supported"},
		{"nothing passes", nil, 0, 1, 1, "supported"},
		{"somebody's own program", func(r *host.Recording) { r.Processes[1].LoginUID = new(uint32(1000)) }, 4, 100, 1, "supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, _ := proxy(t, 3, tt.change, func() []host.Transfer { return passed(21, 10, tt.passed) })
			e, err := x.Examine(t.Context(), question(t, "968 , 23 : SV_REC : 7"))
			if err != nil {
				t.Fatal(err)
			}
			his := &x.Host.(*host.Replay).Recording.Processes[1].Descriptors[2]
			his.Bytes.Received += 100
			c := &countedHost{Host: x.Host, change: func(look int) {
				if look == tt.settled {
					his.Bytes.Received -= 100
				}
			}}
			x.Host = c
			fed, err := x.Flow(t.Context(), e.Token)
			if err != nil {
				t.Fatal(err)
			}
			if c.looks != tt.looks || fed[1].Grade != tt.grade {
				t.Errorf("%d looks, %+v", c.looks, fed)
			}
		})
	}
}

// TestNotWatchable: where watching tells nothing, nobody is watched.
func TestNotWatchable(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		gateway    bool
		clients    int
		change     func(*host.Recording)
	}{
		{"one candidate", "968 , 23 : SV_REC : 7", false, 1, nil},
		{"none asks previous hosts", "968 , 23 : SV", false, 3, nil},
		{"none does on a gateway, where all tokens have a trace-back", "968 , 23 : SV", true, 3, nil},
		{"two processes hold it", "968 , 23 : SV_REC : 7", false, 3, func(r *host.Recording) {
			r.Processes = append(r.Processes, host.Process{PID: 101, PPID: new(100), RUID: new(uint32(33)), Descriptors: r.Processes[1].Descriptors[:1]})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, k := proxy(t, tt.clients, tt.change, func() []host.Transfer { t.Error("watched"); return nil })
			x.Forwards = tt.gateway
			e, err := x.Examine(t.Context(), question(t, tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if f := k.found(t); f.Watchable {
				t.Errorf("found %+v", f)
			}
			if _, err := x.Flow(t.Context(), e.Token); !errors.Is(err, errUnwatched) {
				t.Errorf("watch: %v", err)
			}
		})
	}
}

// Of more questions than there is room for the oldest are not known any more.
func TestWatchables(t *testing.T) {
	var w Watchables
	token := func(i int) stop.Token { return stop.TokenOf([]byte{byte(i), byte(i >> 8)}) }
	for i := range maxWatchable + 1 {
		w.add(token(i), trace.Watchable{Asked: uint64(i)})
	}
	if _, ok := w.take(token(0)); ok {
		t.Error("the oldest is known")
	}
	if _, ok := w.take(stop.Token{}); ok {
		t.Error("no token is known")
	}
	for i := 1; i <= maxWatchable; i++ {
		if got, ok := w.take(token(i)); !ok || got.Asked != uint64(i) {
			t.Fatalf("take %d: %v, %t", i, got.Asked, ok)
		}
	}
}

// Of too many hosts to be candidates the one is told of that is certain, and no other.
func TestFlowOfCrowd(t *testing.T) {
	const clients = 40
	listens := func(r *host.Recording) {
		l := host.Descriptor{FDs: []int{3}, Kind: host.TCP, Mode: host.ReadWrite, Inode: 3, Object: "3", State: "LISTEN", Local: netip.MustParseAddrPort("0.0.0.0:80")}
		r.Processes[1].Descriptors = append(r.Processes[1].Descriptors, l)
	}
	for name, tt := range map[string]struct {
		times int
		want  []string // the remote ends
	}{
		"certain":   {4, []string{"198.51.100.21:5000"}},
		"supported": {2, nil},
		"unknown":   {0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			x, k := proxy(t, clients, listens, func() []host.Transfer { return passed(20+clients/2, 10, tt.times) })
			e, err := x.Examine(t.Context(), question(t, "968 , 23 : SV_REC : 7"))
			if err != nil {
				t.Fatal(err)
			}
			if f := k.found(t); !f.Watchable || len(f.Previous) > 0 {
				t.Fatalf("found %+v", f)
			}
			fed, err := x.Flow(t.Context(), e.Token)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range fed {
				got = append(got, f.Previous.Remote.String())
				if f.Grade != stop.FlowCertain || !f.Previous.Corroborated || f.Previous.Outbound || f.Previous.Elsewhere || f.Previous.Local.Port() != 80 {
					t.Errorf("told %+v", f)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("told (-want +got):\n%s", d)
			}
		})
	}
}
