package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// A held is what a process holds at a time.
type held struct{ kilobytes, descriptors, threads, goroutines int }

// slack is by how much the last third of a steady load may differ from the one before in any case.
var slack = held{kilobytes: 2048, descriptors: 16, threads: 4, goroutines: 16}

// slackAtFirst is the same for the first minutes, in which heaps and the open segment's index still find their size. A
// leak of 4 KB a request is more.
var slackAtFirst = held{kilobytes: 6144, descriptors: 16, threads: 4, goroutines: 16}

// grown says what of a process grows under a steady load: the middle of the last third of the samples is more than that of the second, by
// more than a twentieth and what is always allowed. The first third is for tables and heaps to fill.
func grown(samples []held, slack held) (what []string) {
	n := len(samples) / 3
	for name, of := range map[string]func(held) int{"kilobytes": func(h held) int { return h.kilobytes }, "descriptors": func(h held) int { return h.descriptors },
		"threads": func(h held) int { return h.threads }, "goroutines": func(h held) int { return h.goroutines }} {
		middle := func(part []held) int {
			var all []int
			for _, h := range part {
				all = append(all, of(h))
			}
			slices.Sort(all)
			return all[len(all)/2]
		}
		was, is := middle(samples[n:2*n]), middle(samples[2*n:])
		if is > was+was/20+of(slack) {
			what = append(what, fmt.Sprintf("%s from %d to %d", name, was, is))
		}
	}
	return what
}

func TestGrown(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		var flat, leaks, grows []held
		for i := range 60 {
			h := held{20000 + r.IntN(3000), 30 + r.IntN(20), 12, 20}
			flat = append(flat, h)
			h.goroutines += i
			leaks = append(leaks, h)
			h.goroutines = 20
			h.kilobytes += 300 * i
			grows = append(grows, h)
		}
		flat[55].kilobytes *= 3 // one that is not like the others says nothing
		if got := grown(flat, slack); len(got) > 0 {
			t.Errorf("seed %d: flat: %v", seed, got)
		}
		if got := grown(leaks, slack); len(got) != 1 || !strings.HasPrefix(got[0], "goroutines ") {
			t.Errorf("seed %d: a leak of goroutines: %v", seed, got)
		}
		if got := grown(grows, slack); len(got) != 1 || !strings.HasPrefix(got[0], "kilobytes ") {
			t.Errorf("seed %d: growing: %v", seed, got)
		}
	}
}

// Under a steady load of everything that there is to ask, none of the daemon's processes holds more and more.
func TestSteady(t *testing.T) {
	about := os.Getenv(failAbout)
	if about == "" {
		t.Skip("it needs a connection that has a previous host: integration's TestSteady runs it")
	}
	long, allowed := 2*time.Minute, slackAtFirst
	if os.Getenv("STOPD_SOAK") != "" {
		long, allowed = 30*time.Minute, slack
	}
	a, b, _ := strings.Cut(about, " ")
	r := newRound(t, netip.MustParseAddrPort(a), netip.MustParseAddrPort(b))
	r.cfg.Metrics.Listen = freePort(t, netip.AddrFrom4([4]byte{127, 0, 0, 1})).String()
	r.cfg.Traceback.Window, r.cfg.Limits.Idle = Duration{10 * time.Second}, Duration{5 * time.Second}
	r.cfg.Reply.Slots = Defaults().Reply.Slots
	r.write(t)
	r.start()
	r.wait(backWithin, "the daemon answers", r.answers)
	before := r.processes()

	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var load sync.WaitGroup
	var answered, failed atomic.Int64
	for range 4 {
		load.Go(func() { r.steady(ctx, &answered, &failed) })
	}
	load.Go(func() { r.silent(ctx) })
	samples := map[role][]held{}
	every := time.NewTicker(long / 60)
	defer every.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-every.C:
			for role, pid := range before {
				samples[role] = append(samples[role], r.held(role, pid))
			}
		}
	}
	load.Wait()
	for role, hs := range samples {
		t.Logf("%s: %+v, then %+v, at the end %+v", role, hs[0], hs[len(hs)/2], hs[len(hs)-1])
		for _, what := range grown(hs, allowed) {
			t.Errorf("the %s holds more and more: %s; all of it: %+v", role, what, hs)
		}
	}
	t.Logf("%d requests in %s, of %d no answer came", answered.Load(), long, failed.Load())
	// A machine that stands still for as long as a line or a commit may take makes the daemon hang up.
	if answered.Load() < int64(long.Seconds())*10 || failed.Load() > answered.Load()/1000 {
		t.Errorf("too few of them; the daemon said\n%s", r.said.String())
	}
	if now := r.processes(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the processes were %v and are %v:\n%s", before, now, r.said.String())
	}
	r.tokens = r.tokens[max(0, len(r.tokens)-2000):] // redeeming is shown elsewhere
	r.finish()
}

// steady asks for everything that there is, fifteen times a second.
func (r *round) steady(ctx context.Context, answered, failed *atomic.Int64) {
	tick := time.NewTicker(time.Second / 15)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var err error
		switch n % 6 {
		case 0:
			_, err = r.ask(stop.ID, 0, 10*time.Second)
		case 1:
			_, err = r.ask(stop.SV, 0, 10*time.Second)
		case 2:
			_, err = r.ask(stop.IDRec, rand.Uint64(), 10*time.Second)
		case 3:
			_, err = r.ask(stop.SVRec, rand.Uint64(), 10*time.Second)
		case 4: // a duplicate, most often
			_, err = r.ask(stop.SVRec, 7, 10*time.Second)
		case 5: // no such connection
			q := stop.Request{Local: 1, Remote: uint64(r.remote.Port()), Type: stop.SV}
			_, err = (&stop.Client{Source: r.local.Addr(), Timeout: 10 * time.Second}).Ask(ctx, r.to, q)
		}
		if ctx.Err() != nil {
			return
		}
		answered.Add(1)
		if err != nil {
			failed.Add(1)
			r.Logf("request %d: %v", n, err)
		}
	}
}

// silent connects and says half a line, until it is hung up on.
func (r *round) silent(ctx context.Context) {
	for ctx.Err() == nil {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", r.to.String())
		if err != nil {
			continue
		}
		fmt.Fprint(c, "12 , ")
		end := context.AfterFunc(ctx, func() { c.Close() })
		io.Copy(io.Discard, c)
		end()
		c.Close()
	}
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

// held reads what a process holds; goroutines are known of the front alone.
func (r *round) held(role role, pid int) (h held) {
	r.Helper()
	number := func(path, key string) int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, path))
		_, rest, _ := bytes.Cut(b, []byte("\n"+key+":"))
		f := strings.Fields(string(rest))
		if err != nil || len(f) == 0 {
			r.Fatalf("read %s of the %s: %v, %q", key, role, err, b)
		}
		n, err := strconv.Atoi(f[0])
		if err != nil {
			r.Fatal(err)
		}
		return n
	}
	h.kilobytes, h.threads = number("smaps_rollup", "Pss"), number("status", "Threads")
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		r.Fatal(err)
	}
	h.descriptors = len(files)
	if role != front {
		return h
	}
	a, err := http.Get("http://" + r.cfg.Metrics.Listen + "/metrics")
	if err != nil {
		r.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	a.Body.Close()
	m := goroutines.FindSubmatch(text)
	if err != nil || m == nil {
		r.Fatalf("read goroutines: %v", err)
	}
	h.goroutines, _ = strconv.Atoi(string(m[1]))
	return h
}
