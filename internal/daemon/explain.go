package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// Explain says what a daemon with this configuration would see of a connection, what it would answer, and
// why. Of each end the address may be left out.
func Explain(ctx context.Context, cfg Config, l, r netip.AddrPort) (string, error) {
	unhidden := keepProcesses()
	sys, err := openSystem()
	if err != nil {
		return "", err
	}
	defer sys.close()
	x := examiner(cfg, sys, []int{os.Getpid()})
	flows, err := sys.connections(ctx, l, r.Port())
	if err != nil {
		return "", err
	}
	insides, hidden := sys.inside(ctx, l, r)
	if asked := (host.Flow{Protocol: host.TCP, Local: l, Remote: r}); r.Addr().IsValid() {
		// One that a container alone has nobody asks about by these ends.
		contained := slices.ContainsFunc(insides, func(in inside) bool { return in.Flow == asked }) && !slices.Contains(flows, asked)
		if flows = []host.Flow{asked}; contained {
			flows = nil
		}
	}
	var b strings.Builder
	if os.Geteuid() != 0 {
		b.WriteString("Without root other users' processes cannot be read: the daemon, run as root, would see more.\n")
	}
	if unhidden != nil && os.Geteuid() == 0 {
		fmt.Fprintf(&b, "Processes over whose directory in /proc something is mounted are not seen: %v.\n", unhidden)
	}
	if len(flows) == 0 {
		fmt.Fprintf(&b, "No connection from local port %d to remote port %d in this network namespace.\n", l.Port(), r.Port())
		if cfg.Recorder.Mode != recorderOff {
			b.WriteString("Where one is closed, only the daemon that runs can remember it, and answers for it as if it were open.\n")
		}
		fmt.Fprintf(&b, "A request about any other is answered %s, or with a decoy where it is on behalf of another host.\n", noUser(cfg))
	}
	e := explanation{&b, cfg, x.Look}
	for _, f := range flows {
		e.one(ctx, f)
	}
	if hidden != nil {
		fmt.Fprintf(&b, "Whether a container has one is not known: %v.\n", hidden)
	}
	for _, in := range insides {
		if !slices.Contains(flows, in.outer) { // else it is said
			e.inside(ctx, in)
		}
	}
	return b.String(), nil
}

// An inside is a connection of another network namespace, as a container's: see linux.Inside.
type inside struct {
	host.Flow
	of     string
	outer  host.Flow
	within bool
	blind  error
}

// An explanation is what is being said.
type explanation struct {
	*strings.Builder
	cfg  Config
	look func(context.Context, stop.Question) (report.Report, error)
}

// inside says why a connection that is there is not the one that is asked about, and of which others ask.
func (e explanation) inside(ctx context.Context, in inside) {
	fmt.Fprintf(e, "There is one in another network namespace, that of %s: %s with %s.\n", in.of, in.Local, in.Remote)
	switch {
	case in.within:
		fmt.Fprint(e, "  It does not leave this host: no other host has it, or can ask about it.\n")
	case in.blind != nil:
		fmt.Fprintf(e, "  With which ends it leaves this host, and others ask about it, cannot be told: %v.\n", in.blind)
	case in.outer == host.Flow{}:
		fmt.Fprintf(e, "  It leaves by a link of that namespace. Where its ends are the same elsewhere, as with macvlan, %s is asked, and a daemon in there answers.\n"+
			"  Where a program translates it, as pasta, slirp4netns or a VPN do, others have a connection of that program's, and ask about that.\n", in.Local.Addr())
	default:
		fmt.Fprintf(e, "  Other hosts have it as %s with %s, and ask about that:\n", in.outer.Local, in.outer.Remote)
		e.one(ctx, in.outer)
	}
}

// ParseEnd parses PORT or ADDRESS:PORT; of a port alone the address is not valid.
func ParseEnd(s string) (netip.AddrPort, error) {
	if p, err := strconv.ParseUint(s, 10, 16); err == nil && p > 0 {
		return netip.AddrPortFrom(netip.Addr{}, uint16(p)), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is neither a port nor an address and port", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// one says what is answered about a connection.
func (e explanation) one(ctx context.Context, f host.Flow) {
	b, cfg, look := e.Builder, e.cfg, e.look
	local := f.Local
	if !local.Addr().IsValid() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
	}
	q := stop.Question{Request: stop.Request{Type: stop.SV, Local: uint64(local.Port()), Remote: uint64(f.Remote.Port())},
		Time: time.Now().UTC(), Requester: f.Remote.Addr(), Local: local, Remote: f.Remote}
	_, err := look(ctx, q)
	fmt.Fprintf(b, "%d , %d asked by %s:\n", local.Port(), f.Remote.Port(), f.Remote.Addr())
	switch {
	case err == nil:
		b.WriteString("  answered with a token.\n")
		if cfg.names(f.Remote.Addr()) {
			b.WriteString("  ID is answered with the user's name where the user's files say so (stopd.toml(5), OPT-IN).\n")
		}
	case errors.Is(err, stop.ErrNoUser):
		fmt.Fprintf(b, "  answered %s: %v.\n", noUser(cfg), err)
	default:
		fmt.Fprintf(b, "  not answered: %v.\n", err)
	}
	if len(cfg.OnBehalf) > 0 {
		fmt.Fprintf(b, "asked on behalf of %s, by one of %s: always answered with a token.\n", f.Remote.Addr(), list(cfg.OnBehalf))
	}
	q.For = f.Remote.Addr()
	r, err := look(ctx, q)
	if err != nil {
		b.WriteString("\n")
		return
	}
	b.WriteString("What a report would hold:\n\n" + report.Text(r) + "\n")
}

// noUser is what is answered where nobody answers for a connection.
func noUser(cfg Config) string {
	switch cfg.Reply.Errors {
	case "unknown":
		return "UNKNOWN-ERROR"
	case "token":
		return "with a decoy"
	}
	return "NO-USER"
}
