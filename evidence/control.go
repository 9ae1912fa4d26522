package evidence

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/stopd/stopd"
)

// The control socket DIR.sock carries one request and one answer a connection: a line of JSON each
// way, the answer's followed by size bytes of export.
const (
	maxControlLine   = 192 << 10 // a redemption at its bounds, escaped
	maxControlConns  = 16
	controlReadTime  = 10 * time.Second
	controlWriteTime = time.Minute
	maxExport        = 256 << 20
)

// A controlRequest asks for one thing.
type controlRequest struct {
	Export  *controlActor `json:"export,omitempty"`
	Hold    *controlActor `json:"hold,omitempty"`
	Release *controlActor `json:"release,omitempty"`
}

type controlActor struct {
	Token  string `json:"token"`
	By     string `json:"by"`
	Reason string `json:"reason"`
	// A request that was signed, with its signature.
	Request   string `json:"request,omitempty"`
	Signature string `json:"signature,omitempty"`
}

func controlAct(r Redemption) *controlActor {
	return &controlActor{r.Token.String(), r.By, r.Reason, r.Request, r.Signature}
}

type controlAnswer struct {
	Error   string `json:"error,omitempty"` // a code of controlErrors, or "failed"
	Message string `json:"message,omitempty"`
	Size    int    `json:"size"` // of the export that follows, bytes
}

// controlErrors names on the socket the errors that a caller tells apart, the first that fits.
var controlErrors = []struct {
	code     string
	sentinel error
}{
	{"store", ErrStore},
	{"altered", ErrAltered},
	{"not-found", ErrNotFound},
	{"as-before", ErrAsBefore},
	{"refused", os.ErrPermission},
}

func controlCode(err error) string {
	for _, e := range controlErrors {
		if errors.Is(err, e.sentinel) {
			return e.code
		}
	}
	return "failed"
}

func controlSentinel(code string) error {
	for _, e := range controlErrors {
		if e.code == code {
			return e.sentinel
		}
	}
	return nil
}

// ListenControl listens on DIR.sock, which its owner alone may use. The caller has the store open:
// a socket that is there and answers is [ErrLocked], one that a dead daemon left is replaced.
func ListenControl(dir string) (net.Listener, error) {
	path, err := controlPath(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	if conn, err := dialUnix(context.Background(), path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on control socket: %q: %w", path, ErrLocked)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("listen on control socket: %q is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on control socket: %w", err)
		}
	}
	address, done, err := socketAddress(path)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	defer done()
	config := net.ListenConfig{Control: restrictSocket}
	l, err := config.Listen(context.Background(), "unix", address)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its address may be gone by then, path is not
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return &controlListener{Listener: l, path: path}, nil
}

type controlListener struct {
	net.Listener
	path string
	once sync.Once
}

// File is a copy of its descriptor, for another process to listen on.
func (l *controlListener) File() (*os.File, error) { return l.Listener.(*net.UnixListener).File() }

// Close removes the socket once, and before it ends Accept: after that the next daemon may have the
// lock, and a socket of that name be its.
func (l *controlListener) Close() (err error) {
	l.once.Do(func() { err = os.Remove(l.path) })
	return errors.Join(err, l.Listener.Close())
}

// ServeControl answers on l until ctx ends or l is closed, which are no errors, and closes l. Only
// root and the user that this process runs as are answered, where the system tells who asks.
// Nothing that a client does ends it.
func (s *Store) ServeControl(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { l.Close() })
	slots := make(chan struct{}, maxControlConns)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.logger.Error("cannot accept on the control socket", "error", err)
			select { // out of descriptors, most likely: it passes
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return nil
		}
		conns.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
			if err := s.answerControl(ctx, conn); err != nil {
				s.logger.Warn("control request failed", "error", err)
			}
		})
	}
}

func (s *Store) answerControl(ctx context.Context, conn net.Conn) error {
	export, asked := s.act(ctx, conn)
	answer := controlAnswer{Size: len(export)}
	if asked != nil {
		answer.Error, answer.Message = controlCode(asked), asked.Error()
	}
	line, err := json.Marshal(answer)
	if err != nil {
		return errors.Join(asked, err)
	}
	conn.SetWriteDeadline(time.Now().Add(controlWriteTime))
	_, err = conn.Write(append(append(line, '\n'), export...))
	return errors.Join(asked, err)
}

// act does what the peer asks for.
func (s *Store) act(ctx context.Context, conn net.Conn) ([]byte, error) {
	if err := checkPeer(conn); err != nil {
		return nil, fmt.Errorf("check control peer: %w", err)
	}
	conn.SetReadDeadline(time.Now().Add(controlReadTime))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	line, err := readLine(bufio.NewReaderSize(conn, maxControlLine))
	if err != nil {
		return nil, fmt.Errorf("read control request: %w", err)
	}
	q, r, err := parseControlRequest(line)
	switch {
	case err != nil:
		return nil, err
	case q.Hold != nil:
		return nil, s.Hold(ctx, r)
	case q.Release != nil:
		return nil, s.Release(ctx, r)
	}
	return s.Export(ctx, r)
}

// checkPeer refuses who is neither root nor the user of this process.
func checkPeer(conn net.Conn) error {
	uid, known, err := peerUID(conn)
	if err != nil {
		return err
	}
	if known && uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("uid %d: %w", uid, os.ErrPermission)
	}
	return nil
}

// readLine reads a line of at most r's buffer, and gives it without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// parseControlRequest parses one line of the control socket, and gives what is asked for with who asks. On
// failure both are zero.
func parseControlRequest(line []byte) (controlRequest, Redemption, error) {
	q, r, err := decodeControlRequest(line)
	if err != nil {
		return controlRequest{}, Redemption{}, fmt.Errorf("parse control request: %w", err)
	}
	return q, r, nil
}

func decodeControlRequest(line []byte) (q controlRequest, r Redemption, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, r, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, r, errors.New("more than one value")
	}
	var actor *controlActor
	for _, a := range []*controlActor{q.Export, q.Hold, q.Release} {
		switch {
		case a != nil && actor != nil:
			return q, r, errors.New("it asks for two things")
		case a != nil:
			actor = a
		}
	}
	if actor == nil {
		return q, r, errors.New("it asks for nothing")
	}
	t, err := stop.ParseToken(actor.Token)
	if err != nil {
		return q, r, err
	}
	r = Redemption{Token: t, By: actor.By, Reason: actor.Reason, Request: actor.Request, Signature: actor.Signature}
	return q, r, r.check()
}

func controlPath(dir string) (string, error) {
	dir, err := RealPath(dir)
	return dir + ".sock", err
}

func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	path, err := controlPath(dir)
	if err != nil {
		return nil, err
	}
	return dialUnix(ctx, path)
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	address, done, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return new(net.Dialer).DialContext(ctx, "unix", address)
}

// ask asks the stopd at the other end of conn.
func ask(ctx context.Context, conn net.Conn, q controlRequest) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("ask stopd: %w", err)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("ask stopd: %w", cmp.Or(ctx.Err(), err))
	}
	b := bufio.NewReaderSize(conn, maxControlLine)
	if line, err = readLine(b); err != nil {
		return nil, fmt.Errorf("read stopd's answer: %w", cmp.Or(ctx.Err(), err))
	}
	var a controlAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("parse stopd's answer: %w", err)
	}
	if a.Size < 0 || a.Size > maxExport {
		return nil, fmt.Errorf("parse stopd's answer: export of %d bytes", a.Size)
	}
	export := make([]byte, a.Size)
	if _, err := io.ReadFull(b, export); err != nil {
		return nil, fmt.Errorf("read stopd's answer: %w", cmp.Or(ctx.Err(), err))
	}
	if a.Size == 0 {
		export = nil
	}
	if a.Error == "" {
		return export, nil
	}
	// The message holds the words of the sentinel, so it stands for the whole text.
	return export, &controlError{a.Message, controlSentinel(a.Error)}
}

// controlError is an error of the store as it came through the socket.
type controlError struct {
	message string
	cause   error // a sentinel, or nil
}

func (e *controlError) Error() string { return e.message }
func (e *controlError) Unwrap() error { return e.cause }
