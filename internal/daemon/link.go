package daemon

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/stopd/stopd"
)

// A call is what one process asks of another. Each has a bound on what is asked and on what is answered.
type call uint8

const (
	callAnswer call = iota // the answer to an earlier call
	callFailure
	callStart
	callStop
	callReload
	callCounted
	callLog
	callProve
	callAbilities
	callFind
	callExamine
	callDecline
	callFound
	callBegin
	callKeep
	callKeepTraceback
	callRecordConfig
	callCheckpoint
	callPost
	callCertificate
	callSignServer
	callSignClient
	callRead
	callResolve
	callForward
	callFlow
	callKeeping
	callKeepPast
	callPast
	callRecorded
	calls
)

// largest is how many octets a call and its answer may have.
var largest = [calls]struct{ asked, answered int }{
	callAnswer: {0, 0}, callFailure: {0, 0},
	callStart: {1 << 20, 64 << 10}, callStop: {0, 0}, callReload: {1 << 20, 0}, callCounted: {0, 64 << 10},
	callLog: {64 << 10, 0}, callProve: {64 << 10, 64 << 10}, callAbilities: {0, 64 << 10},
	callFind: {8 << 10, 1 << 10}, callExamine: {8 << 10, 4 << 10}, callDecline: {64 << 10, 1 << 10},
	callFound: {16 << 20, 0}, callBegin: {1 << 10, 0},
	callKeep: {16 << 20, 8 << 10}, callKeepTraceback: {16 << 20, 0}, callRecordConfig: {8 << 10, 0},
	callCheckpoint: {0, 8 << 10}, callPost: {64 << 10, 64 << 10}, callCertificate: {0, 4 << 10},
	callSignServer: {256, 128}, callSignClient: {256, 128},
	callRead: {8 << 10, 32 << 10}, callResolve: {1 << 10, 8 << 10}, callForward: {8 << 10, 0},
	callFlow:    {1 << 10, 4 << 20},
	callKeeping: {0, 0}, callKeepPast: {1 + pastChunk, 0}, callPast: {8, pastChunk}, callRecorded: {0, 1 << 10},
}

const (
	linkHeader  = 16       // octets: length, call, three zero, number; the numbers big-endian
	maxFailure  = 16 << 10 // octets of an error
	maxUnderWay = 4096     // calls of the other end that are answered at once; more wait to be read
)

// errLink says that the process at the other end has ended, or spoke what is no message.
var errLink = errors.New("the other process has ended")

// A link joins two processes of the daemon. Both ends may call, and answers come in any order.
type link struct {
	conn   net.Conn
	reader *bufio.Reader // of conn: most messages come whole with one system call
	serves func(ctx context.Context, c call, asked []byte) ([]byte, error)
	ended  chan struct{}

	writing sync.Mutex
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]waiting // nil once it has ended
}

type waiting struct {
	call call
	got  chan result // has room
}

type result struct {
	answer []byte
	err    error
}

// newLink takes over a connection. What the other end calls is served by serves, many calls at once.
func newLink(conn net.Conn, serves func(ctx context.Context, c call, asked []byte) ([]byte, error)) *link {
	l := &link{conn: conn, reader: bufio.NewReader(conn), serves: serves, ended: make(chan struct{}), waiting: map[uint64]waiting{}}
	go l.read()
	return l
}

func (l *link) close() { l.conn.Close() }

// call asks the other end and waits for its answer, or until the context ends.
func (l *link) call(ctx context.Context, c call, asked []byte) ([]byte, error) {
	if len(asked) > largest[c].asked {
		return nil, fmt.Errorf("call the other process: %d octets, and there may be %d", len(asked), largest[c].asked)
	}
	w := waiting{c, make(chan result, 1)}
	l.mu.Lock()
	if l.waiting == nil {
		l.mu.Unlock()
		return nil, errLink
	}
	l.next++
	n := l.next
	l.waiting[n] = w
	l.mu.Unlock()
	if err := l.send(c, n, asked); err != nil {
		l.close()
	}
	select {
	case r := <-w.got:
		return r.answer, r.err
	case <-ctx.Done():
		// Its place stays until the answer comes, which nobody reads.
		return nil, ctx.Err()
	}
}

func (l *link) send(c call, n uint64, body []byte) error {
	head := make([]byte, linkHeader, linkHeader+len(body))
	binary.BigEndian.PutUint32(head, uint32(len(body)))
	head[4] = byte(c)
	binary.BigEndian.PutUint64(head[8:], n)
	l.writing.Lock()
	defer l.writing.Unlock()
	_, err := l.conn.Write(append(head, body...))
	return err
}

// read takes messages until the other end has ended or says what is none.
func (l *link) read() {
	ctx, cancel := context.WithCancel(context.Background())
	slots := make(chan struct{}, maxUnderWay)
	for l.message(ctx, slots) == nil {
	}
	cancel()
	l.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.waiting {
		w.got <- result{nil, errLink}
	}
	l.waiting = nil
	close(l.ended)
}

func (l *link) message(ctx context.Context, slots chan struct{}) error {
	c, n, size, err := readHeader(l.reader)
	if err != nil {
		return err
	}
	if c > callFailure {
		if size > largest[c].asked || l.serves == nil {
			return errors.New("a call that is not served")
		}
		asked := make([]byte, size)
		if _, err := io.ReadFull(l.reader, asked); err != nil {
			return err
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			l.answer(ctx, c, n, asked)
		}()
		return nil
	}
	l.mu.Lock()
	w, known := l.waiting[n]
	delete(l.waiting, n)
	l.mu.Unlock()
	if !known || c == callAnswer && size > largest[w.call].answered || c == callFailure && size > maxFailure {
		return errors.New("an answer to nothing")
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(l.reader, body); err != nil {
		w.got <- result{nil, errLink}
		return err
	}
	if c == callFailure {
		w.got <- result{nil, parseFailure(body)}
	} else {
		w.got <- result{body, nil}
	}
	return nil
}

func (l *link) answer(ctx context.Context, c call, n uint64, asked []byte) {
	answer, err := l.serves(ctx, c, asked)
	if err == nil && len(answer) > largest[c].answered {
		err = fmt.Errorf("bound: an answer of %d octets", len(answer))
	}
	kind := callAnswer
	if err != nil {
		kind, answer = callFailure, formatFailure(err)
	}
	if l.send(kind, n, answer) != nil {
		l.close()
	}
}

// readHeader reads what a message begins with.
func readHeader(r io.Reader) (c call, n uint64, size int, err error) {
	var head [linkHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, 0, err
	}
	if head[5]|head[6]|head[7] != 0 || head[4] >= byte(calls) {
		return 0, 0, 0, errors.New("no message")
	}
	return call(head[4]), binary.BigEndian.Uint64(head[8:]), int(binary.BigEndian.Uint32(head[:])), nil
}

// A failure is an error that crosses from one process to another: its text, and which of the known errors it is.
type failure struct {
	Is   string `json:"is"`
	Text string `json:"text"`
}

// failures are the errors that who calls has to tell apart.
var failures = map[string]error{"no user": stop.ErrNoUser, "no room": stop.ErrNoRoom}

func formatFailure(err error) []byte {
	f := failure{Text: err.Error()}
	if len(f.Text) > maxFailure/8 { // JSON escapes an octet with six at most
		f.Text = f.Text[:maxFailure/8]
	}
	for is, known := range failures {
		if errors.Is(err, known) {
			f.Is = is
		}
	}
	b, _ := json.Marshal(f) // strings alone: it cannot fail
	return b
}

func parseFailure(b []byte) error {
	var f failure
	if err := json.Unmarshal(b, &f); err != nil {
		return errLink
	}
	return &farError{f.Text, failures[f.Is]}
}

// A farError is an error of another process.
type farError struct {
	text string
	is   error // nil where it is none that is known
}

func (e *farError) Error() string { return e.text }
func (e *farError) Unwrap() error { return e.is }

// ask calls the other end with a value and fills in its answer.
func ask[Answer, Asked any](ctx context.Context, l *link, c call, asked Asked) (answer Answer, err error) {
	var b []byte
	if largest[c].asked > 0 {
		b, err = json.Marshal(asked)
	}
	if err == nil {
		b, err = l.call(ctx, c, b)
	}
	if err == nil && largest[c].answered > 0 {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		var none Answer
		return none, err
	}
	return answer, nil
}

// none is the answer to a call that has none, or what one without content asks.
type none struct{}

// serve makes the answer to a call by a function of values.
func serve[Answer, Asked any](ctx context.Context, c call, b []byte, f func(context.Context, Asked) (Answer, error)) ([]byte, error) {
	var asked Asked
	if largest[c].asked > 0 {
		if err := json.Unmarshal(b, &asked); err != nil {
			return nil, fmt.Errorf("parse call: %w", err)
		}
	}
	answer, err := f(ctx, asked)
	if err != nil || largest[c].answered == 0 {
		return nil, err
	}
	return json.Marshal(answer)
}
