package chain

import (
	"fmt"
	"strings"
	"time"
)

// maxListed is how many contradictions, and how many steps, are below the picture.
const maxListed = 12

// heading writes the title, and returns where the picture begins.
func (d *drawing) heading() float64 {
	d.text(margin, 40, d.p.headline(), "h1", "start", d.p.width-2*margin)
	d.text(margin, 62, d.p.summary(), "m", "start", d.p.width-2*margin)
	return 92
}

// headline says from where to where.
func (c *Chain) headline() string {
	var from, to []string
	begins, ends := map[int]bool{}, map[int]bool{}
	for _, p := range c.Paths {
		if a := p.Hosts[0]; !begins[a] && !p.Loop {
			begins[a] = true
			from = append(from, c.host(a).Label())
		}
		if z := p.Hosts[len(p.Hosts)-1]; !ends[z] {
			ends[z] = true
			to = append(to, c.host(z).Label())
		}
	}
	switch {
	case len(c.Paths) == 0:
		return "No connection"
	case len(from) == 0:
		from = []string{"a loop"}
	}
	return "From " + several(from) + " to " + several(to)
}

// several writes a list shortly.
func several(names []string) string {
	if len(names) > 2 {
		return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
	}
	return strings.Join(names, " and ")
}

// summary counts what there is.
func (c *Chain) summary() string {
	count := map[Status]int{}
	for _, h := range c.Hosts {
		if h.Status != Claimed {
			count[h.Status]++
		}
	}
	hosts := len(c.Hosts) - claimed(c)
	parts := []string{number(hosts, "host")}
	for _, s := range []struct {
		status Status
		what   string
	}{{Reported, "with a report"}, {Sealed, "with a token not redeemed"}, {Legacy, "with an old ident daemon"}, {Refused, "that refused"},
		{Awaited, "not heard of yet"}, {Missing, "that did not answer"}, {NotAsked, "not asked"}, {Unknown, "that recorded nothing"}} {
		if n := count[s.status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.what))
		}
	}
	parts = append(parts, c.standingCounts()...)
	if n := len(c.Contradictions); n > 0 {
		parts = append(parts, number(n, "contradiction"))
	}
	if first, last := c.span(); first != nil {
		parts = append(parts, "asked "+spanText(first.UTC(), last.UTC()))
	}
	return strings.Join(parts, " · ")
}

func spanText(first, last time.Time) string {
	s := first.Format(time.DateTime)
	switch {
	case last.Format(time.DateTime) == s:
	case last.Format(time.DateOnly) == first.Format(time.DateOnly):
		s += " to " + last.Format(time.TimeOnly)
	default:
		s += " to " + last.Format(time.DateTime)
	}
	return s + " UTC"
}

// span is when hosts were asked first and last, by their own clocks.
func (c *Chain) span() (first, last *time.Time) {
	for _, h := range c.Hosts {
		for _, a := range h.Reports {
			if a.Asked == nil {
				continue
			}
			if first == nil || a.Asked.Before(*first) {
				first = a.Asked
			}
			if last == nil || a.Asked.After(*last) {
				last = a.Asked
			}
		}
	}
	return first, last
}

func claimed(c *Chain) (n int) {
	for _, h := range c.Hosts {
		if h.Status == Claimed {
			n++
		}
	}
	return n
}

func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// list writes a list of n items, if there are any, and returns where it ends. Of very many it says how many more there are.
func (d *drawing) list(y float64, title string, n int, item func(y float64, i int) float64) float64 {
	if n == 0 {
		return y
	}
	y = d.listTitle(y, title)
	for i := range min(n, maxListed) {
		y = item(y, i)
	}
	if n > maxListed {
		y = d.item(y, "", fmt.Sprintf("and %d more", n-maxListed), false)
	}
	return y + 10
}

// lists writes what belongs below the picture, and returns where it ends.
func (d *drawing) lists(y float64) float64 {
	c := d.p.Chain
	y = d.list(y, "What contradicts what", len(c.Contradictions), func(y float64, i int) float64 {
		return d.item(y, fmt.Sprint(c.Contradictions[i].ID), c.Contradictions[i].Text, true)
	})
	y = d.list(y, "What to ask next", len(c.Next), func(y float64, i int) float64 {
		return d.item(y, fmt.Sprintf("%d.", i+1), c.Next[i].Text, false)
	})
	for _, o := range c.Omitted {
		y = d.item(y, "", fmt.Sprintf("left out: %d %s", o.Count, o.What), false)
	}
	if d.p.hidden > 0 {
		y = d.item(y, "", fmt.Sprintf("not drawn: %d hosts and connections; the form json has all", d.p.hidden), false)
	}
	return d.legend(y)
}

func (d *drawing) listTitle(y float64, s string) float64 {
	d.text(margin, y+14, s, "h2", "start", d.p.width)
	return y + 24
}

// item writes one point of a list, in as many lines as it takes, and returns where the next begins.
func (d *drawing) item(y float64, mark, s string, bad bool) float64 {
	if bad {
		d.path(fmt.Sprintf("M%s l9 16 h-18 z", xy(margin+10, y)), "badge")
		d.textAt(margin+10, y+14, mark, "badge-t", "middle")
	} else {
		d.textAt(margin+16, y+13, mark, "m", "end")
	}
	for _, line := range wrap(s, d.p.width-2*margin-30) {
		d.textAt(margin+28, y+13, line, "", "start")
		y += 18
	}
	return y + 2
}

// wrap breaks a text into lines of a width. A word that is wider is cut.
func wrap(s string, room float64) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch longer := strings.TrimPrefix(line+" "+word, " "); {
		case measure(longer, "") <= room:
			line = longer
		default:
			if line != "" {
				lines = append(lines, line)
			}
			line, _ = fit(word, "", room)
		}
	}
	return append(lines, line)
}

// legend says what the signs of this picture mean.
func (d *drawing) legend(y float64) float64 {
	y += 16
	x := margin
	entry := func(text string, draw func(x, y float64)) {
		w := measure(text, "small") + 68
		if x+w > d.p.width-margin/2 && x > margin {
			x, y = margin, y+20
		}
		draw(x, y)
		d.textAt(x+46, y+4, text, "m small", "start")
		x += w
	}
	stroke := func(class string) func(x, y float64) {
		return func(x, y float64) { d.path(fmt.Sprintf("M%s h36", xy(x, y)), class) }
	}
	for _, l := range []struct{ class, text string }{
		{"l-both", "a connection: both hosts' reports tell of it"},
		{"l-one", "one host's report tells of it"},
		{"l-bad", "their reports contradict each other"},
		{"l-faint", "a candidate that was not asked"},
	} {
		if d.signs[l.class] {
			entry(l.text, stroke(l.class))
		}
	}
	if len(d.p.Joins) > 0 {
		entry("that the two belong together is this host's word alone", stroke("join"))
	}
	if d.signs["clock"] {
		entry("how far its clock is ahead of the next host's", func(x, y float64) { d.textAt(x+18, y+4, "clock +", "m small", "middle") })
	}
	return y + 14
}

// spoken is the chain in words.
func (c *Chain) spoken() string {
	var s []string
	for i, p := range c.Paths {
		if i == maxListed {
			s = append(s, fmt.Sprintf("and %d more paths", len(c.Paths)-i))
			break
		}
		s = append(s, c.pathText(p))
	}
	for i, x := range c.Contradictions {
		if i == maxListed {
			break
		}
		s = append(s, "Contradiction: "+x.Text)
	}
	return strings.Join(s, ".\n") + "."
}

func (d *drawing) document(height float64) string {
	w, h := num(d.p.width), num(height)
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<svg xmlns="http://www.w3.org/2000/svg" width="` + w + `" height="` + h + `" viewBox="0 0 ` + w + ` ` + h + `" role="img" aria-labelledby="title desc">` + "\n" +
		`<title id="title">` + escaped(d.p.headline()) + "</title>\n" +
		`<desc id="desc">` + escaped(d.p.Chain.spoken()) + "</desc>\n" +
		"<style>" + style + "</style>\n" +
		`<rect class="page" width="` + w + `" height="` + h + `"/>` + "\n" +
		d.b.String() + "</svg>\n"
}

// style is for white paper and screens, with what changes on dark ones. What a colour says is told by words or
// strokes as well.
const style = `
text{font:12px "Helvetica Neue",Arial,"Liberation Sans","DejaVu Sans",sans-serif;fill:#1b1f24}
.mono{font-family:Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
.m{fill:#57606a}
.link .m{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
.small,.port{font-size:11px}
.h1{font-size:21px;font-weight:600}
.h2{font-size:14px;font-weight:600}
.name{font-size:14.5px;font-weight:600}
.page{fill:#fff}
.box{fill:#fff;stroke:#1b1f24;stroke-width:1.5}
.number{fill:#1b1f24}
.num{fill:#fff;font-weight:600}
.reached .box{fill:#e7ecf2;stroke-width:3}
.sealed .box,.repeated .box{fill:#eaf3ff;stroke:#0969da}
.legacy .box,.refused .box,.awaited .box,.missing .box,.unknown .box{fill:#fff8e5;stroke:#9a6700;stroke-width:2;stroke-dasharray:1 4;stroke-linecap:round}
.not-asked .box{fill:#f6f8fa;stroke:#8c959f;stroke-dasharray:1 4;stroke-linecap:round}
.not-asked .number{fill:#8c959f}
.chip{font-size:11px;font-weight:600}
.c-blue{fill:#0969da}.c-amber{fill:#9a6700}.c-green{fill:#1a7f37}.c-grey{fill:#6e7781}.c-red{fill:#cf222e}.c-ink{fill:#1b1f24}
.t-red,.t-blue,.t-amber,.t-green,.t-grey,.t-ink{fill:#fff}
.dot{fill:#1b1f24}
.join{fill:none;stroke:#1b1f24;stroke-width:1.6;stroke-dasharray:5 4}
.l-both,.l-one,.l-bad,.l-faint{fill:none;stroke:#1b1f24;stroke-linejoin:round}
.l-both{stroke-width:2.6}
.l-one{stroke-width:1.2}
.l-bad{stroke:#cf222e;stroke-width:3.4}
.l-faint{stroke:#8c959f;stroke-width:1.2;stroke-dasharray:1 4;stroke-linecap:round}
.h{fill:#1b1f24}.h-bad{fill:#cf222e}.h-faint{fill:#8c959f}
.badge{fill:#cf222e;stroke:#fff;stroke-width:1.5;stroke-linejoin:round}
.badge-t{fill:#fff;font-size:10px;font-weight:700}
@media screen and (prefers-color-scheme:dark){
text{fill:#e6edf3}.m{fill:#9aa4af}.link .m{stroke:#0d1117}
.page{fill:#0d1117}.box{fill:#161b22;stroke:#c9d1d9}
.number,.dot,.h{fill:#c9d1d9}.num{fill:#0d1117}
.reached .box{fill:#2a323c}
.sealed .box,.repeated .box{fill:#10233d;stroke:#58a6ff}
.legacy .box,.refused .box,.awaited .box,.missing .box,.unknown .box{fill:#2b2111;stroke:#d29922}
.not-asked .box{fill:#161b22;stroke:#6e7681}
.join,.l-both,.l-one{stroke:#c9d1d9}
.l-bad{stroke:#ff7b72}.h-bad{fill:#ff7b72}
.c-ink{fill:#c9d1d9}.t-ink{fill:#0d1117}
.t-red,.t-blue,.t-amber,.t-green,.t-grey,.badge-t{fill:#fff}
.badge{stroke:#0d1117}
}
`
