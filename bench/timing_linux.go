package main

import (
	"bufio"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/server"
)

// timing measures what a requester can tell by the time of one reply of the whole daemon: whether it stands for a report. It may ask on
// behalf of others, and errors are decoys, so that all replies are tokens.
func (b *bench) timing() error {
	samples := 1000
	if b.quick {
		samples = 200
	}
	g, err := grow("login", 0)
	if err != nil {
		return err
	}
	defer g.end()
	t := table{head: []string{"told from a report", "type", "without a grid", "medians", "with it", "medians"}}
	type row struct{ typ, kind string }
	told := map[row][4]string{}
	var order []row
	most := 0.0
	for i, slots := range []daemon.Slots{noGrid, daemon.Defaults().Reply.Slots} {
		for j, typ := range []string{"ID", "ID_REC", "SV", "SV_REC"} {
			times, err := b.replyTimes(uint16(1191+4*i+j), slots, typ, samples)
			if err != nil {
				return err
			}
			for _, kind := range append(kindsOf(typ), anotherReport) {
				k := row{typ, kind}
				v := told[k]
				share := toldApart(times[aReport], times[kind])
				if i == 1 {
					most = max(most, share)
				}
				v[2*i], v[2*i+1] = fmt.Sprintf("%.0f%%", 100*share), format(middle(times[aReport]))+", "+format(middle(times[kind]))
				if told[k] = v; i == 0 {
					order = append(order, k)
				}
				fmt.Fprintf(b.out, "# timing/slots=%s/type=%s/kind=%s: told %.1f%%, medians %s\n", slots.SV, typ, strings.ReplaceAll(kind, " ", "-"), 100*share, v[2*i+1])
			}
		}
	}
	for _, k := range order {
		v := told[k]
		t.add(k.kind, k.typ, v[0], v[1], v[2], v[3])
	}
	b.section("What the time of a reply tells", t, fmt.Sprintf("How often one reply is told apart by the best threshold, found on one half of %s replies of each kind and tried on the other; "+
		"50%% is chance, and the rows of another report say how far chance goes. Medians are those of reports and of the kind. The whole daemon answers. To reach: at most 55%% with the grid (here %.0f%%).", count(samples), 100*most))
	return nil
}

// The kinds of replies.
const (
	aReport       = "a report"
	anotherReport = "another report"
	absent        = "no such connection"
	inbound       = "an inbound connection"
	stranger      = "a stranger's decoy"
	duplicate     = "a duplicate"
)

// kindsOf are what there is beside reports for a type.
func kindsOf(typ string) []string {
	if strings.HasSuffix(typ, "_REC") {
		return []string{absent, inbound, stranger, duplicate}
	}
	return []string{absent, inbound, stranger}
}

// replyTimes asks for each kind of reply so often, all kinds mixed, one after the other, and returns how long each took.
func (b *bench) replyTimes(port uint16, slots daemon.Slots, typ string, samples int) (map[string][]time.Duration, error) {
	c := unbounded()
	c.Reply.Slots, c.Reply.Errors = slots, server.ErrorsToken
	c.Limits.Table = 1 << 20
	c.Traceback.Timeout, c.Traceback.Window = daemon.Duration{Duration: time.Second}, daemon.Duration{Duration: time.Hour}
	d, err := b.startStopd(port, c, -1)
	if err != nil {
		return nil, err
	}
	defer d.end()
	local, remote, end, err := loopbackConnection() // its other end is inbound
	if err != nil {
		return nil, err
	}
	defer end()
	dial := func(from netip.Addr) (*bufio.ReadWriter, error) {
		c, err := d.dial(b.ctx, from)
		if err != nil {
			return nil, err
		}
		return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
	}
	trusted, err := dial(loopback)
	if err != nil {
		return nil, err
	}
	others, err := dial(netip.MustParseAddr("127.0.0.2"))
	if err != nil {
		return nil, err
	}
	var turns []string
	for _, k := range append(kindsOf(typ), aReport, anotherReport) {
		turns = append(turns, slices.Repeat([]string{k}, samples)...)
	}
	rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	if slices.Contains(turns, duplicate) {
		turns = append([]string{duplicate}, turns...) // the first with its number is none
	}
	times := map[string][]time.Duration{}
	for i, kind := range turns {
		on, sid, ports, behalf := trusted, fmt.Sprintf(" : %d", 1000+i), fmt.Sprintf("%d , %d", asked[0].Port(), asked[1].Port()), " : "+asked[1].Addr().String()
		switch kind {
		case absent:
			ports = fmt.Sprintf("1 , %d", asked[1].Port())
		case inbound:
			ports, behalf = fmt.Sprintf("%d , %d", remote.Port(), local.Port()), "" // on behalf of others there is a report
		case stranger:
			on = others
		case duplicate:
			sid = " : 7"
		}
		if !strings.HasSuffix(typ, "_REC") {
			sid = ""
		}
		began := time.Now()
		fmt.Fprintf(on, "%s : %s%s%s\r\n", ports, typ, sid, behalf)
		err := on.Flush()
		line, err2 := on.ReadString('\n')
		took := time.Since(began)
		if err := cmp.Or(err, err2); err != nil {
			return nil, fmt.Errorf("%w; it said %s", err, d.log)
		}
		if !strings.Contains(line, "USERID") {
			return nil, fmt.Errorf("%s is answered %q", kind, line)
		}
		if i > 0 || kind != duplicate {
			times[kind] = append(times[kind], took)
		}
	}
	return times, d.counted(samples, typ)
}

// counted ends the daemon, and checks by what it counted that replies were what they should be: decoys are those of three
// kinds.
func (d *identd) counted(samples int, typ string) error {
	d.end()
	want := fmt.Sprintf(" decoys=%d ", 3*samples+1) // and the one of the start
	if strings.HasSuffix(typ, "_REC") {
		want += fmt.Sprintf("duplicates=%d ", samples)
	} else {
		want += "duplicates=0 "
	}
	want += "over_bound=0 "
	if !strings.Contains(d.log.String(), want) {
		return fmt.Errorf("replies are not what they should be: no %q in %s", want, d.log)
	}
	return nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// toldApart finds the threshold that tells two samples best on every second value, and returns how often it does on
// the others.
func toldApart(a, b []time.Duration) float64 {
	half := func(ds []time.Duration, odd int) (out []time.Duration) {
		for i, d := range ds {
			if i%2 == odd {
				out = append(out, d)
			}
		}
		return out
	}
	right := func(a, b []time.Duration, at time.Duration) float64 {
		below := func(ds []time.Duration) float64 {
			n := 0
			for _, d := range ds {
				if d <= at {
					n++
				}
			}
			return float64(n) / float64(len(ds))
		}
		return (below(b) + 1 - below(a)) / 2
	}
	a0, b0 := half(a, 0), half(b, 0)
	all := slices.Concat(a0, b0)
	best, at, swap := 0.0, time.Duration(0), false
	for _, d := range all {
		v := right(a0, b0, d)
		if v > best {
			best, at, swap = v, d, false
		}
		if 1-v > best {
			best, at, swap = 1-v, d, true
		}
	}
	v := right(half(a, 1), half(b, 1), at)
	if swap {
		v = 1 - v
	}
	return v
}

func middle(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}
