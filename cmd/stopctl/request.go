package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/daemon"
)

const identPort = 113

func setupRequest(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	typ := fs.String("type", "ID", "the request `type`: ID, SV, ID_REC or SV_REC")
	sid := fs.String("sid", "", "the session `number` of a _REC request (default random)")
	behalf := fs.String("for", "", "ask on behalf of the host with this `address`, the connection's remote end")
	from := fs.String("from", "", "the local `address` to ask from, the asked connection's own (default any)")
	pin := fs.String("pin", "", "ask by TLS, and only the host whose key has this `pin`")
	key := fs.String("key", "", "the `file` of this host's TLS key, to show to a host that is asked with -pin")
	return func(ctx context.Context, std stdio, args []string) error {
		var to netip.AddrPort
		local, remote := args[1], args[len(args)-1]
		if len(args) == 2 {
			var err error
			if to, err = resolve(ctx, args[0], netip.Addr{}); err != nil {
				return err
			}
			if local, remote, err = pastedRequest(args[1], to.Addr(), behalf, from); err != nil {
				return &exitError{exitUsage, err}
			}
		}
		r, err := requestOf(*typ, *sid, *behalf, local, remote)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		c := stop.Client{Pin: *pin}
		switch {
		case *pin == "" && *key != "":
			return usageError("-key goes with -pin")
		case *pin != "" && *key == "" && *behalf != "":
			return usageError("-for with -pin takes -key: without it the answer is a decoy")
		case *pin != "":
			if err := stop.CheckPin(*pin); err != nil {
				return usageError("-pin: %w", err)
			}
		}
		if *key != "" {
			if c.Certificate, err = daemon.ReadTLSKey(*key); err != nil {
				return err
			}
		}
		if *from != "" {
			if c.Source, err = netip.ParseAddr(*from); err != nil {
				return usageError("-from: %w", err)
			}
		}
		if !to.IsValid() {
			if to, err = resolve(ctx, args[0], c.Source); err != nil {
				return err
			}
		}
		a, err := c.Ask(ctx, to, r)
		if errors.Is(err, syscall.EACCES) && r.For.IsValid() && *pin == "" {
			return fmt.Errorf("%w: on behalf of others is asked from a port below 1024, which takes root, or by TLS with -pin and -key", err)
		}
		if errors.Is(err, stop.ErrNoReply) && *pin == "" {
			return fmt.Errorf("%w: where it has a pin of this host it is asked with -pin; else its log says why", err)
		}
		if err != nil {
			return err
		}
		switch a.Kind {
		case stop.KindError:
			return &exitError{exitRefused, fmt.Errorf("%s answered %s", to, a.Reply.Error)}
		case stop.KindLegacy:
			if r.For.IsValid() {
				return fmt.Errorf("%s speaks ident only, and answered for a connection of its asker: %s", to, stop.Printable(a.Reply.UserID))
			}
			fmt.Fprintf(std.err, "stopctl request: %s speaks ident only: this is a name, not a token\n", to)
		}
		_, err = fmt.Fprintln(std.out, stop.Printable(a.Reply.UserID))
		return err
	}
}

func requestOf(typ, sid, behalf, local, remote string) (stop.Request, error) {
	var r stop.Request
	var err error
	if r.Type, err = stop.ParseType(typ); err != nil {
		return stop.Request{}, fmt.Errorf("-type: %w", err)
	}
	switch {
	case sid != "" && !r.Type.Recursive():
		return stop.Request{}, fmt.Errorf("-sid goes with ID_REC and SV_REC")
	case sid != "":
		if r.SID, err = strconv.ParseUint(sid, 10, 64); err != nil {
			return stop.Request{}, fmt.Errorf("-sid: %q is not a number below 2^64", sid)
		}
	case r.Type.Recursive():
		var b [4]byte
		rand.Read(b[:]) // never fails
		r.SID = uint64(binary.NativeEndian.Uint32(b[:]))
	}
	if behalf != "" {
		if r.For, err = netip.ParseAddr(behalf); err != nil {
			return stop.Request{}, fmt.Errorf("-for: %w", err)
		}
	}
	if r.Local, err = port(local); err != nil {
		return stop.Request{}, err
	}
	if r.Remote, err = port(remote); err != nil {
		return stop.Request{}, err
	}
	// A zone or a mapped address would make a line that no host takes.
	if _, err = stop.ParseRequest([]byte(r.String())); err != nil {
		return stop.Request{}, err
	}
	return r, nil
}

func port(s string) (uint64, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil || p == 0 {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return p, nil
}

// resolve finds the address of HOST[:PORT], of the family of the source address where one is given.
func resolve(ctx context.Context, s string, source netip.Addr) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, identPort), nil
	}
	name, p := s, uint64(identPort)
	if h, ps, err := net.SplitHostPort(s); err == nil {
		if p, err = port(ps); err != nil {
			return netip.AddrPort{}, usageError("%w", err)
		}
		name = h
	}
	as, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find host %q: %w", name, err)
	}
	for _, a := range as {
		if a = a.Unmap(); !source.IsValid() || a.Is4() == source.Unmap().Is4() {
			return netip.AddrPortFrom(a, uint16(p)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("find host %q: no address of the family of -from", name)
}
