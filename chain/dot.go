package chain

import (
	"fmt"
	"strings"
)

// DOT writes a chain for Graphviz: each host is a box with the ends of its connections, solid lines are connections, and
// dashed ones what belongs together by the host's word alone.
func DOT(c *Chain) string {
	var b strings.Builder
	// Other splines than these make Graphviz 2.42 lose connections of hosts with loops.
	b.WriteString("digraph chain {\nrankdir=LR;\nnewrank=true;\nsplines=curved;\nfontname=\"Helvetica\";\nnode [shape=plaintext, fontname=\"Helvetica\", fontsize=10, height=0.2];\n" +
		"edge [fontname=\"Helvetica\", fontsize=10];\n")
	for i := range c.Hosts {
		if h := &c.Hosts[i]; h.Status != Claimed {
			c.dotHost(&b, h)
		}
	}
	for i := range c.Connections {
		if k := &c.Connections[i]; c.host(k.From).Status != Claimed && c.host(k.To).Status != Claimed {
			c.dotConnection(&b, k)
		}
	}
	for _, j := range c.Joins {
		if c.connection(j.In).asked() {
			fmt.Fprintf(&b, "k%d_to -> k%d_from [style=dashed, tooltip=%s];\n", j.In, j.Out, quoted("by the word of "+c.host(j.Host).Label()+" alone"))
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func (c *Chain) dotHost(b *strings.Builder, h *Host) {
	lines := []string{fmt.Sprintf("%d. %s", h.ID, h.short())}
	if h.Name != "" {
		lines = append(lines, h.address())
	}
	for _, chip := range c.chips(h) {
		lines = append(lines, chip.text)
	}
	if a := c.account(h, 0, 0); a != nil && a.UID != nil {
		lines = append(lines, userText(a.User, *a.UID))
	}
	style := "solid"
	if h.Status != Reported && h.Status != Reached {
		style = "dotted"
	}
	if h.reached() {
		style = "bold"
	}
	fmt.Fprintf(b, "subgraph cluster_%d {\nlabel=%s;\ntooltip=%s;\nstyle=%s;\n", h.ID, quoted(lines...), quoted(c.spokenHost(h)), style)
	for _, k := range c.at[h.ID] {
		if k.From == h.ID && c.host(k.To).Status != Claimed {
			fmt.Fprintf(b, "k%d_from [label=%s];\n", k.ID, quoted(portText(k.Source)))
		}
		if k.To == h.ID && c.host(k.From).Status != Claimed {
			fmt.Fprintf(b, "k%d_to [label=%s];\n", k.ID, quoted(portText(k.Destination)))
		}
	}
	b.WriteString("}\n")
}

func (c *Chain) dotConnection(b *strings.Builder, k *Connection) {
	attributes := "tooltip=" + quoted(c.spokenLink(k))
	switch bad := c.about[k.ID]; {
	case len(bad) > 0:
		var about []string
		for _, x := range bad {
			about = append(about, fmt.Sprint(x.ID))
		}
		attributes += ", color=red, fontcolor=red, penwidth=3, xlabel=" + quoted("contradiction "+strings.Join(about, ", "))
	case !k.asked():
		attributes += ", style=dotted"
	case len(k.ToldBy) == 2:
		attributes += ", penwidth=2"
	}
	fmt.Fprintf(b, "k%d_from -> k%d_to [%s];\n", k.ID, k.ID, attributes)
}

// quoted writes lines as one string of DOT, in which backslashes and the names of characters mean something.
func quoted(lines ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;", "<", "&lt;", ">", "&gt;")
	for i, l := range lines {
		lines[i] = escape.Replace(l)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
