package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An rtnetlink asks for routes and links of one network namespace (rtnetlink(7)).
type rtnetlink struct{ netlinks }

func newRTNetlink(nsfd int) *rtnetlink {
	return &rtnetlink{netlinks{protocol: unix.NETLINK_ROUTE, nsfd: nsfd}}
}

// route asks where packets for an address go. Rules by mark, source or link are not applied.
func (r *rtnetlink) route(ctx context.Context, to netip.Addr) (route, error) {
	b, err := r.one(ctx, rtmGetRoute, routeRequest(to))
	if errors.Is(err, unix.ENETUNREACH) || noWay(err) {
		return route{}, nil
	}
	if err != nil {
		return route{}, fmt.Errorf("ask for the route to %s: %w", to, err)
	}
	return parseRoute(to, b)
}

// noWay reports whether an answer stands for a route that leads nowhere: unreachable, prohibit or blackhole
// (fib_props, net/ipv4/fib_semantics.c; ip6_rt_type_to_error, net/ipv6/route.c).
func noWay(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

func (r *rtnetlink) link(ctx context.Context, index uint32) (link, error) {
	b, err := r.one(ctx, rtmGetLink, linkRequest(index))
	if err != nil {
		return link{}, fmt.Errorf("ask for link %d: %w", index, err)
	}
	return parseLink(b)
}

func (r *rtnetlink) links(ctx context.Context) ([]link, error) {
	ms, err := r.exchange(ctx, rtmGetLink, netlink.Dump, linkRequest(0))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var all []link
	for _, m := range ms {
		l, err := parseLink(m.Data)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// nsid asks which number the namespace gives to another.
func (r *rtnetlink) nsid(ctx context.Context, fd int) (int32, error) {
	b, err := r.one(ctx, rtmGetNSID, nsidRequest(fd))
	if err != nil {
		return 0, fmt.Errorf("ask for the id of a network namespace: %w", err)
	}
	return parseNSID(b)
}
