package report

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
)

// descriptors writes those of which show has something to say.
func (t *texter) descriptors(title string, ds []host.Descriptor, show func(host.Descriptor) string) {
	for _, d := range ds {
		s := show(d)
		if s == "" {
			continue
		}
		if title != "" {
			t.line("   %s:", title)
			title = ""
		}
		t.line("     %s", s)
	}
}

func socketText(d host.Descriptor) string {
	switch {
	case d.Kind == host.Unix:
		return "UNIX: " + endText(d.Object, d.Path) + " -> " + endText(d.Peer, d.PeerPath)
	case !d.Kind.Inet():
		return ""
	}
	arrow := arrowOf(d.Direction)
	if d.Listening() && d.Direction == "" {
		arrow = "<-"
	}
	remote := "any"
	if d.Remote.IsValid() && d.Remote.Port() != 0 {
		remote = addrPortText(d.Remote)
	}
	s := fmt.Sprintf("INET_%s: %s %s %s", strings.ToUpper(string(d.Kind)), localText(d.Local), arrow, remote)
	if o := d.Outer; o != nil && (o.Local != d.Local || o.Remote != d.Remote) {
		s += fmt.Sprintf(" (outside of this host: %s %s %s)", addrPortText(o.Local), arrow, addrPortText(o.Remote))
	}
	return s
}

// localText writes the local end of a socket; the thesis calls all of a host's addresses localhost.
func localText(ap netip.AddrPort) string {
	if ap.Addr().IsUnspecified() {
		return "localhost:" + strconv.Itoa(int(ap.Port()))
	}
	return addrPortText(ap)
}

func endText(o host.Object, path string) string {
	switch {
	case path != "":
		return path
	case o == "":
		return "0"
	}
	return string(o)
}

// pipeText shows the ends of a pipe; where the system has one object for both, this end is 0, as in
// thesis table 4.3.
func pipeText(d host.Descriptor) string {
	if d.Kind != host.Pipe && d.Kind != host.FIFO {
		return ""
	}
	object := d.Object
	if object == d.Peer {
		object = ""
	}
	s := endText(object, "") + " -> " + endText(d.Peer, "")
	if d.Path != "" {
		s += " " + d.Path
	}
	if d.Mode == host.ReadWrite {
		return s // the thesis's pipes pass data both ways, and have no mode
	}
	return s + modeText(d.Mode)
}

func terminalText(d host.Descriptor) string {
	switch {
	case d.Kind == host.TTY:
		return d.Path
	case d.Kind == host.PTY && d.Number != nil:
		return fmt.Sprintf("%s %s of pts/%d", d.Path, d.Side, *d.Number)
	case d.Kind == host.PTY:
		return words(d.Path, d.Side)
	}
	return ""
}

// otherText shows what the thesis has no words for: sockets of other families, shared memory, message queues,
// and what has no name in the file system.
func otherText(d host.Descriptor) string {
	switch d.Kind {
	case host.Unix, host.Pipe, host.FIFO, host.TTY, host.PTY, host.File:
		return ""
	}
	if d.Kind.Inet() {
		return ""
	}
	name := d.Name
	if name == "" {
		name = d.Path
	}
	return words(string(d.Kind), name) + modeText(d.Mode)
}

func fileText(d host.Descriptor) string {
	if d.Kind != host.File {
		return ""
	}
	return d.Path + modeText(d.Mode)
}

// modeText is empty where the mode is unknown.
func modeText(m host.Mode) string {
	if m == "" {
		return ""
	}
	return " (" + string(m) + ")"
}
