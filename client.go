package stop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// defaultTimeout bounds a question where the Client does not.
const defaultTimeout = 10 * time.Second

// A Client asks hosts about their connections. The zero Client is ready to use, and a Client may ask many
// hosts at once.
type Client struct {
	// Source is the local address to ask from, any if not valid. A host takes the address that a request
	// comes from for the connection's remote end, so who asks without [Request.For] asks from there.
	Source netip.Addr
	// Timeout bounds a whole question, the second try included. 0 means 10 seconds.
	Timeout time.Duration
	// Pin is that of the host's key; see [PinOf]. Where it is set the host is asked by TLS 1.3 and by nothing else.
	Pin string
	// Certificate is what hosts that are asked by TLS are shown of who asks, nil for nothing. They want it of who asks
	// on behalf of others.
	Certificate *tls.Certificate
	// Dial connects from local, whose port is 0 and whose address is not valid where any will do. Nil
	// means a [net.Dialer]. An error that wraps [syscall.EADDRINUSE] or [syscall.EADDRNOTAVAIL] means that another port
	// may do where one was given.
	Dial func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error)
}

// Kind says what a host answered with. The zero Kind is no answer.
type Kind uint8

const (
	KindToken  Kind = iota + 1 // a token: the host speaks STOP, or acts as if
	KindLegacy                 // a name disclosed by an ident daemon that does not speak STOP
	KindError                  // an error word
)

// String returns "token", "legacy" or "error".
func (k Kind) String() string {
	switch k {
	case KindToken:
		return "token"
	case KindLegacy:
		return "legacy"
	case KindError:
		return "error"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// An Answer is what came of one question.
type Answer struct {
	Sent  string // the last line sent, without its line ending
	Reply Reply
	Line  string // the reply line as it came, without its line ending, escaped by [Printable]
	Kind  Kind
	Token Token // zero unless Kind is KindToken
}

// ErrNoReply stands for a connection that ends before the first octet of a reply.
var ErrNoReply = errors.New("closed without a reply")

// Ask asks host, whose port is mostly 113, and returns its answer; an error word is an answer, not an
// error. Daemons that know RFC 1413 alone answer INVALID-PORT to what stands after the ports, or close
// the connection: they are asked once more in the form of RFC 1413, unless the request has For, which
// that form cannot say; without it, it would be a question about another connection. Where an INVALID-PORT
// is all that came, because the second try failed, it is the answer. On failure the Answer is zero, and the
// error wraps that of the network, ctx's, [ErrPin], or a [*SyntaxError]; it wraps [syscall.EADDRNOTAVAIL] only where
// the host was not asked at all, since Source is no address of this host or has no port left.
//
// A request with For is asked in plain from a port below 1024, since hosts answer it with a decoy otherwise; without the
// privilege for that the error wraps [syscall.EACCES].
func (c *Client) Ask(ctx context.Context, host netip.AddrPort, r Request) (Answer, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	answer, err := c.ask(ctx, host, r)
	again := errors.Is(err, ErrNoReply) || answer.Reply.Error == InvalidPort
	if again && !r.For.IsValid() && r.Type != ID {
		second, failed := c.ask(ctx, host, Request{Local: r.Local, Remote: r.Remote})
		switch {
		case failed == nil:
			answer, err = second, nil
		case err != nil && !errors.Is(failed, syscall.EADDRNOTAVAIL):
			err = failed
		}
	}
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s: %w", host, err)
	}
	return answer, nil
}

// ask sends one line on a connection of its own and reads one.
func (c *Client) ask(ctx context.Context, host netip.AddrPort, r Request) (Answer, error) {
	sent := r.String()
	// A zone, a mapped address or a long port would make a line that the host refuses.
	if _, err := ParseRequest([]byte(sent)); err != nil {
		return Answer{}, err
	}
	line, err := c.exchange(ctx, host, sent+"\r\n", r.For.IsValid() && c.Pin == "")
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Answer{}, err
	}
	reply, err := ParseReply(line, r)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Sent: sent, Reply: reply, Line: Printable(line)}
	answer.Kind, answer.Token = reply.kind()
	return answer, nil
}

func (r Reply) kind() (Kind, Token) {
	if r.Error != "" {
		return KindError, Token{}
	}
	token, err := ParseToken(r.UserID)
	if err != nil || r.System != "OTHER" {
		return KindLegacy, Token{}
	}
	return KindToken, token
}

// exchange sends a line and reads one, from a port below 1024 where low is set.
func (c *Client) exchange(ctx context.Context, host netip.AddrPort, request string, low bool) ([]byte, error) {
	conn, err := c.connect(ctx, host, low)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The context ends the reads and writes too, whether by its deadline or because it was cancelled.
	release := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer release()

	if c.Pin != "" {
		secure := tls.Client(conn, c.clientTLS())
		if err := secure.Handshake(); err != nil {
			return nil, fmt.Errorf("begin TLS: %w", err)
		}
		conn = secure
	}
	if _, err := io.WriteString(conn, request); err != nil {
		if gone(err) {
			err = ErrNoReply
		}
		return nil, err
	}
	return readLine(conn, c.Pin != "")
}

// readLine reads one reply line of at most MaxReply octets and cuts off its line ending: CR LF, LF or,
// after some text, the end of the stream. Not so where it is to be whole, as by TLS: anybody on the way can end a stream.
func readLine(r io.Reader, whole bool) ([]byte, error) {
	line, err := bufio.NewReaderSize(r, MaxReply+len("\r\n")).ReadSlice('\n')
	switch {
	case len(line) == 0 && gone(err):
		return nil, ErrNoReply
	case err == bufio.ErrBufferFull:
		return nil, fmt.Errorf("read reply: longer than %d octets", MaxReply)
	case err == io.EOF && whole:
		return nil, fmt.Errorf("read reply: %w", io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF:
		return nil, fmt.Errorf("read reply: %w", err)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}

// gone reports whether the other end has closed. A daemon that closes with part of our line unread
// resets the connection.
func gone(err error) bool {
	return err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// The ports from which questions on behalf of others are asked, as bindresvport(3) has them: below 1024, and not those
// of most services.
const (
	firstLowPort = 600
	lowPorts     = 1024 - firstLowPort
)

// connect connects to a host, from a port below 1024 where low is set.
func (c *Client) connect(ctx context.Context, host netip.AddrPort, low bool) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = dialTCP
	}
	if !low {
		return dial(ctx, "tcp", netip.AddrPortFrom(c.Source, 0), host)
	}
	var conn net.Conn
	var err error
	first := rand.IntN(lowPorts)
	for i := range lowPorts {
		conn, err = dial(ctx, "tcp", netip.AddrPortFrom(c.Source, uint16(firstLowPort+(first+i)%lowPorts)), host)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	// There are few of these ports, and each would be of no use for a minute (TIME-WAIT) after each question. When the
	// connection is closed, all that was to be said has been.
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0)
	}
	return conn, err
}

func dialTCP(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if local.Addr().IsValid() || local.Port() != 0 {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	return d.DialContext(ctx, network, remote.String())
}
