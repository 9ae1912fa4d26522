package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
)

// An openedHost is this machine.
type openedHost interface {
	host.Host
	UserName(ctx context.Context, uid uint32) string
	Close() error
}

// serveNames is the daemon as it was: it tells whoever asks which user a connection belongs to.
func serveNames(ctx context.Context, l net.Listener, h openedHost) error {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			line, err := bufio.NewReaderSize(c, 1024).ReadSlice('\n')
			if err == nil {
				from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				to := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				fmt.Fprintf(c, "%s\r\n", name(ctx, h, strings.TrimSpace(string(line)), from, to))
			}
		}()
	}
}

// name answers one line: "968 , 23" asks who has the connection from port 968 here to port 23 there.
func name(ctx context.Context, h openedHost, line string, from, to netip.Addr) string {
	ours, theirs, _ := strings.Cut(line, ",")
	local, err := strconv.ParseUint(strings.TrimSpace(ours), 10, 16)
	remote, err2 := strconv.ParseUint(strings.TrimSpace(theirs), 10, 16)
	if err != nil || err2 != nil {
		return "0 , 0 : ERROR : INVALID-PORT"
	}
	s, err := h.Find(ctx, host.Flow{Protocol: host.TCP, Local: netip.AddrPortFrom(to, uint16(local)), Remote: netip.AddrPortFrom(from, uint16(remote))})
	if err != nil || s.Object == "" {
		return fmt.Sprintf("%d , %d : ERROR : NO-USER", local, remote)
	}
	return fmt.Sprintf("%d , %d : USERID : UNIX : %s", local, remote, h.UserName(ctx, s.UID))
}
