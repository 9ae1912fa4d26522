package chain

import (
	"fmt"
	"slices"
	"strings"
)

// A textLine is one line of a card.
type textLine struct {
	text  string
	class string // "chip ..." draws a label
}

func (l textLine) chip() bool { return strings.HasPrefix(l.class, "chip ") }

// card is what is told of a host below its name and connections.
func (p *picture) card(h *Host, compact bool) []textLine {
	var lines []textLine
	add := func(class, format string, args ...any) {
		lines = append(lines, textLine{fmt.Sprintf(format, args...), class})
	}
	lines = append(lines, p.chips(h)...)
	if by := p.knownTo(h); by != 0 {
		add("m", "a private address, as %d knows it", by)
	}
	users := map[string]bool{}
	for _, a := range h.Reports {
		if a.UID == nil {
			continue
		}
		if u := userText(a.User, *a.UID); !users[u] && len(users) < 3 {
			users[u] = true
			add("", "%s", u)
		}
	}
	if len(h.Reports) > 0 && !compact {
		for i, process := range h.Reports[0].Processes {
			if i == 3 {
				add("m mono", "and %d more", len(h.Reports[0].Processes)-i)
				break
			}
			add("m mono", "%d %s", process.PID, process.Command)
		}
	}
	return lines
}

// knownTo is the host that knows a host without a report by an address that means others elsewhere; 0 where there is
// none such.
func (p *picture) knownTo(h *Host) int {
	if len(h.Reports) > 0 || len(h.Addresses) == 0 || public(h.Addresses[0]) {
		return 0
	}
	if at := p.at[h.ID]; len(at) > 0 {
		return at[0].From + at[0].To - h.ID // the other end
	}
	return 0
}

// chips are what is to be seen of a host at once.
func (c *Chain) chips(h *Host) []textLine {
	var chips []textLine
	add := func(class, format string, args ...any) {
		if c := (textLine{fmt.Sprintf(format, args...), "chip " + class}); len(chips) < 4 {
			chips = append(chips, c)
		}
	}
	switch h.Status {
	case Sealed:
		add("blue", "token not redeemed yet")
	case Legacy:
		add("amber", "old ident: %s", c.detail(h, Legacy))
	case Refused:
		add("amber", "answered %s", c.detail(h, Refused))
	case Awaited:
		add("amber", "had not answered yet")
	case Missing:
		add("amber", "did not answer")
	case NotAsked:
		add("grey", "not asked: %s", c.detail(h, NotAsked))
	case Unknown:
		add("amber", "recorded nothing of it")
	case Repeated:
		add("blue", "a duplicate: redeem the first")
	}
	if h.NAT {
		add("blue", "NAT: for another host")
	}
	if h.reached() {
		add("ink", "reached")
	}
	switch {
	case h.Begins != "" && h.Breaks:
		add("amber", "breaks off here")
	case h.Begins != "":
		add("green", "begins here, as far as seen")
	}
	if h.Unjoined {
		add("amber", "nobody's word joins these")
	}
	if short := h.worst().short(); short != "" && len(c.standingCounts()) > 1 {
		add("grey", "%s", short)
	}
	if slices.ContainsFunc(h.Reports, func(a Account) bool { return a.foreignLog }) {
		add("amber", "in another's log")
	}
	for _, x := range c.about[0] {
		if slices.Contains(x.Hosts, h.ID) {
			add("red", "contradiction %d", x.ID)
		}
	}
	if slices.ContainsFunc(c.at[h.ID], func(k *Connection) bool { return k.From == h.ID && k.To == h.ID }) {
		add("grey", "connected with itself")
	}
	return chips
}

// detail is what a host answered.
func (c *Chain) detail(h *Host, s Status) string {
	for _, k := range c.at[h.ID] {
		if k.From == h.ID {
			for _, q := range k.Questions {
				if q.Status == s && s == Legacy {
					return lastField(q.Detail)
				}
				if q.Status == s {
					return q.Detail
				}
			}
		}
	}
	return ""
}

// lastField is the user of an answer of ident, or all of what is none.
func lastField(reply string) string {
	return strings.TrimSpace(reply[strings.LastIndexByte(reply, ':')+1:])
}

// drawCard draws a host at its place.
func (d *drawing) drawCard(c *cell) {
	h := c.host
	class := "card " + string(h.Status)
	if h.reached() && len(h.Reports) == 0 {
		class = "card reached"
	}
	d.open(class)
	d.title(d.p.spokenHost(h))
	d.rect(c.x, c.y, cardWidth, c.h, 7, "box")
	d.circle(c.x+20, c.y+23, 12, "number")
	d.text(c.x+20, c.y+27.5, fmt.Sprint(h.ID), "num", "middle", 24)
	room := cardWidth - 50.0
	if h.Name == "" {
		d.text(c.x+40, c.y+28, h.address(), "name", "start", room)
	} else {
		d.text(c.x+40, c.y+20, h.Name, "name", "start", room)
		address := h.address()
		if n := len(h.Addresses); n > 1 {
			address += fmt.Sprintf(" +%d", n-1)
		}
		d.text(c.x+40, c.y+37, address, "m mono", "start", room)
	}
	y := c.y + headHeight + portHeight*float64(max(len(c.left), len(c.right)))
	for _, l := range c.card {
		y += lineHeight
		if chip, ok := strings.CutPrefix(l.class, "chip "); ok {
			text, w := fit(l.text, "chip", cardWidth-36)
			d.rect(c.x+12, y-11, w+12, 16, 8, "c-"+chip)
			d.textAt(c.x+18, y+1, text, "chip t-"+chip, "start")
			y += chipGap
			continue
		}
		d.text(c.x+14, y, l.text, l.class, "start", cardWidth-28)
	}
	d.drawJoins(c)
	d.close()
}

// drawJoins draws the ends of connections and which of them belong together by the host's word.
func (d *drawing) drawJoins(c *cell) {
	at := map[int][]port{}
	for i, s := range c.left {
		at[s.link.ID] = append(at[s.link.ID], port{c.x, c.y + c.port(i), 1})
	}
	for i, s := range c.right {
		at[s.link.ID] = append(at[s.link.ID], port{c.x + cardWidth, c.y + c.port(i), -1})
	}
	for _, j := range d.p.joinsOf[c.host.ID] {
		if len(at[j.In]) == 0 || len(at[j.Out]) == 0 || !d.p.connection(j.In).asked() {
			continue
		}
		d.join(at[j.In][0], at[j.Out][0])
	}
	for _, ends := range [][]*segment{c.left, c.right} {
		for _, s := range ends {
			p := at[s.link.ID][0]
			label := s.link.Destination
			if s.link.From == c.host.ID {
				label = s.link.Source
			}
			d.circle(p.x, p.y, 3.5, "dot")
			anchor := "start"
			if p.side < 0 {
				anchor = "end"
			}
			d.text(p.x+8*p.side, p.y+4, portText(label), "m port mono", anchor, 60)
		}
	}
}

// A port is where a connection meets a card; side is 1 at its left and -1 at its right.
type port struct{ x, y, side float64 }

// portText is the port of an end.
func portText(end string) string {
	if i := strings.LastIndexByte(end, ':'); i >= 0 && (strings.Contains(end, "]:") || strings.Count(end, ":") == 1) {
		return end[i:]
	}
	return "no port"
}

// join draws that two connections belong together: a dashed line, as nobody but the host says so.
func (d *drawing) join(a, b port) {
	reach := 60.0
	if a.side == b.side {
		d.path(fmt.Sprintf("M%s C%s %s %s", xy(a.x+50*a.side, a.y), xy(a.x+(reach+50)*a.side, a.y), xy(b.x+(reach+50)*b.side, b.y), xy(b.x+50*b.side, b.y)), "join")
		return
	}
	d.path(fmt.Sprintf("M%s C%s %s %s", xy(a.x+56*a.side, a.y), xy(a.x+(reach+56)*a.side, a.y), xy(b.x+(reach+56)*b.side, b.y), xy(b.x+56*b.side, b.y)), "join")
}

// spoken is a host in words, for who cannot see the picture or points at it.
func (c *Chain) spokenHost(h *Host) string {
	s := fmt.Sprintf("%d. %s: %s", h.ID, h.Label(), h.Status)
	if h.Begins != "" {
		s += "; the path begins " + h.Begins
		if strings.HasPrefix(h.Begins, "off ") {
			s = strings.Replace(s, "begins off", "breaks off", 1)
		}
	}
	for _, a := range h.Reports {
		s += fmt.Sprintf("; %s, asked %s by %s, token %s", a.Type, whenText(a.Asked), clean(a.Requester.String()), a.Token)
	}
	return s
}
