package chain

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// SVG draws a chain: hosts as cards from where paths begin to where they end, in rows like text where there are
// many, connections as arrows in the direction of the path, and below it what contradicts what, what to ask next and
// what the signs mean. It is one file without scripts or references to others, has words for who cannot see it, and
// heeds dark screens and printers.
func SVG(c *Chain) string {
	p := place(c)
	d := &drawing{p: p}
	y := d.heading()
	for i := range p.rows {
		r := &p.rows[i]
		if i > 0 && slices.Contains(p.parts, i) {
			y += partGap
		}
		for _, column := range r.columns {
			for _, c := range column {
				c.y += y
			}
		}
		y += r.height + gutter + laneSpacing*math.Min(float64(len(r.turning)), 14)
	}
	for i := range p.rows {
		d.drawRow(i)
	}
	for _, draw := range d.notes {
		draw()
	}
	y = d.lists(y)
	return d.document(y + 20)
}

// A drawing is the text of the picture. Connections lie below the cards.
type drawing struct {
	p     *picture
	b     strings.Builder
	signs map[string]bool // that the picture has, for the legend
	notes []func()        // beside connections, above all else
}

// drawRow draws the connections of a row, and then its hosts.
func (d *drawing) drawRow(i int) {
	r := &d.p.rows[i]
	turn := 0
	for _, column := range r.columns {
		for _, c := range column {
			if c.host == nil {
				s := c.left[0]
				d.path(fmt.Sprintf("M%s L%s", xy(c.x, c.y+passHeight/2), xy(c.x+cardWidth, c.y+passHeight/2)), d.lineClass(s.link))
			}
			for _, s := range c.right {
				if s.b.x > s.a.x {
					d.segment(s)
				} else {
					d.turn(s, r, turn)
					turn++
				}
			}
		}
	}
	for _, column := range r.columns {
		for _, c := range column {
			if c.host != nil {
				d.drawCard(c)
			}
		}
	}
}

// segment draws a connection between two columns of a row.
func (d *drawing) segment(s *segment) {
	x1, y1, x2, y2 := s.a.x+cardWidth, s.a.y+s.ya, s.b.x, s.b.y+s.yb
	bend := (x2 - x1) / 2
	d.path(fmt.Sprintf("M%s C%s %s %s", xy(x1, y1), xy(x1+bend, y1), xy(x2-bend, y2), xy(x2, y2)), d.lineClass(s.link))
	d.ends(s, x1, y1, x2, y2)
	if s.first && !s.back || s.last && s.back {
		d.notes = append(d.notes, func() { d.note(s.link, (x1+x2)/2, (y1+y2)/2) })
	}
}

// turn draws a connection to the next row: round the end of this one, between the two, to the beginning of the next.
func (d *drawing) turn(s *segment, r *row, n int) {
	spacing := laneSpacing * math.Min(1, 14/float64(len(r.turning)))
	lane := float64(n) * spacing
	bottom := 0.0
	for _, column := range r.columns {
		for _, c := range column {
			bottom = math.Max(bottom, c.y+c.h)
		}
	}
	x1, y1, x2, y2 := s.a.x+cardWidth, s.a.y+s.ya, s.b.x, s.b.y+s.yb
	out, across, back := x1+18+lane/3, bottom+gutter/2+lane, x2-18-lane/3
	d.path(fmt.Sprintf("M%s H%s V%s H%s V%s H%s", xy(x1, y1), num(out), num(across), num(back), num(y2), num(x2)), d.lineClass(s.link))
	d.ends(s, x1, y1, x2, y2)
	if s.first && !s.back || s.last && s.back {
		d.notes = append(d.notes, func() { d.note(s.link, (x1+x2)/2, across) })
	}
}

// ends draws the arrowhead of a connection.
func (d *drawing) ends(s *segment, x1, y1, x2, y2 float64) {
	class := d.headClass(s.link)
	switch {
	case s.back && s.first:
		d.path(fmt.Sprintf("M%s l10 -5 v10 z", xy(x1+3, y1)), class)
	case !s.back && s.last:
		d.path(fmt.Sprintf("M%s l-10 -5 v10 z", xy(x2-3, y2)), class)
	}
}

func (d *drawing) sign(s string) string {
	if d.signs == nil {
		d.signs = map[string]bool{}
	}
	d.signs[s] = true
	return s
}

func (d *drawing) lineClass(k *Connection) string {
	switch {
	case len(d.p.about[k.ID]) > 0:
		return d.sign("l-bad")
	case !k.asked():
		return d.sign("l-faint")
	case len(k.ToldBy) == 2:
		return d.sign("l-both")
	}
	return d.sign("l-one")
}

func (d *drawing) headClass(k *Connection) string {
	switch d.lineClass(k) {
	case "l-bad":
		return "h-bad"
	case "l-faint":
		return "h-faint"
	}
	return "h"
}

// note draws what is to be said of a connection beside it.
func (d *drawing) note(k *Connection, x, y float64) {
	d.open("link")
	d.title(d.p.spokenLink(k))
	var notes []string
	if o := k.Clock; o != nil && math.Abs(o.Seconds) > o.Error && math.Abs(o.Seconds) >= 1 {
		sign := "+"
		if o.Seconds < 0 {
			sign = "−"
		}
		d.sign("clock")
		notes = append(notes, "clock "+sign+secondsText(math.Abs(o.Seconds)))
	}
	if k.Translated {
		notes = append(notes, "addresses differ")
	}
	for _, q := range k.Questions {
		// What a host without a report answered is on its card.
		if d.p.host(k.From).Status == Reported && (q.Status == Refused || q.Status == Legacy || q.Status == Missing) {
			notes = append(notes, outcomes[q.Status])
			break
		}
	}
	if k.OpenedBy == "to" {
		d.sign("opened")
		notes = append(notes, "opened by next")
	}
	bad := d.p.about[k.ID]
	below := y + 15
	if len(bad) > 0 {
		below += 4
	}
	for i, n := range notes {
		d.text(x, below+13*float64(i), n, "m small", "middle", columnGap+10)
	}
	for i, b := range bad {
		if i == 3 {
			break
		}
		at := x + (float64(i)-float64(min(len(bad), 3)-1)/2)*24
		d.path(fmt.Sprintf("M%s l11 19 h-22 z", xy(at, y-13)), "badge")
		d.textAt(at, y+4, strconv.Itoa(b.ID), "badge-t", "middle")
	}
	d.close()
}

// outcomes of questions about one of several connections of a host.
var outcomes = map[Status]string{Refused: "refused", Legacy: "old ident", Missing: "no answer"}

// spokenLink is a connection in words.
func (c *Chain) spokenLink(k *Connection) string {
	s := fmt.Sprintf("%s -> %s, from %s to %s", k.Source, k.Destination, c.host(k.From).Label(), c.host(k.To).Label())
	if k.OwnSource != "" {
		s += fmt.Sprintf("; %s -> %s by the first one's word", k.OwnSource, k.OwnDestination)
	}
	if k.Clock != nil {
		s += "; clock " + c.clockText(k)
	}
	for _, x := range c.about[k.ID] {
		s += "; contradiction: " + x.Text
	}
	return s
}

// num writes a number with one decimal at most.
func num(f float64) string {
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64)
}

func xy(x, y float64) string { return num(x) + " " + num(y) }

func escaped(s string) string {
	var b strings.Builder
	// What is not allowed in XML has been made printable.
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}

func (d *drawing) open(class string) { fmt.Fprintf(&d.b, "<g class=\"%s\">\n", class) }
func (d *drawing) close()            { d.b.WriteString("</g>\n") }
func (d *drawing) title(s string)    { fmt.Fprintf(&d.b, "<title>%s</title>\n", escaped(s)) }
func (d *drawing) path(p, class string) {
	fmt.Fprintf(&d.b, "<path class=\"%s\" d=\"%s\"/>\n", class, p)
}

func (d *drawing) rect(x, y, w, h, round float64, class string) {
	fmt.Fprintf(&d.b, "<rect class=\"%s\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" rx=\"%s\"/>\n", class, num(x), num(y), num(w), num(h), num(round))
}

func (d *drawing) circle(x, y, r float64, class string) {
	fmt.Fprintf(&d.b, "<circle class=\"%s\" cx=\"%s\" cy=\"%s\" r=\"%s\"/>\n", class, num(x), num(y), num(r))
}

// text writes what fits.
func (d *drawing) text(x, y float64, s, class, anchor string, room float64) {
	s, _ = fit(s, class, room)
	d.textAt(x, y, s, class, anchor)
}

func (d *drawing) textAt(x, y float64, s, class, anchor string) {
	fmt.Fprintf(&d.b, "<text x=\"%s\" y=\"%s\"", num(x), num(y))
	if class != "" {
		fmt.Fprintf(&d.b, " class=\"%s\"", class)
	}
	if anchor != "start" {
		fmt.Fprintf(&d.b, " text-anchor=\"%s\"", anchor)
	}
	fmt.Fprintf(&d.b, ">%s</text>\n", escaped(s))
}

// sizes are those of the letters of each class, in pixels; 12 of all others.
var sizes = map[string]float64{"name": 14.5, "chip": 11, "small": 11, "port": 11, "num": 12, "h1": 21, "h2": 14}

// bolder are the classes of letters that are wider.
var bolder = []string{"name", "chip", "num", "h1", "h2"}

// measure estimates how wide a text is, rather too wide: nobody knows the reader's fonts.
func measure(s, class string) float64 {
	size, mono := 12.0, false
	bold := 1.0
	for c := range strings.FieldsSeq(class) {
		if n, ok := sizes[c]; ok {
			size = n
		}
		mono = mono || c == "mono"
		if slices.Contains(bolder, c) {
			bold = 1.16
		}
	}
	w := 0.0
	for _, r := range s {
		switch {
		case r >= 0x1100:
			w += 1.05
		case mono:
			w += 0.61
		case strings.ContainsRune("iljtfrI.,:;'|!()[] ", r):
			w += 0.38
		case strings.ContainsRune("mwMW@%", r):
			w += 0.95
		case r >= 'A' && r <= 'Z':
			w += 0.72
		default:
			w += 0.6
		}
	}
	return w * size * bold
}

// fit cuts a text to a width, and says how wide it is then.
func fit(s, class string, room float64) (string, float64) {
	w := measure(s, class)
	for n := utf8.RuneCountInString(s); w > room && n > 1; {
		n = max(1, min(n-1, int(float64(n)*room/w)))
		s = shorten(s, n)
		w = measure(s, class)
	}
	return s, w
}
