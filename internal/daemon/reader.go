package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/stopd/stopd/internal/optin"
	"github.com/stopd/stopd/server"
)

// reader is the role of a process that lives for one question: it becomes a user and reads his files. The supervisor starts
// it, since only that may become anybody, and hands on what it says without a look at it.
const reader role = "reader"

// A readerAsked is what a reader is to do, and a readerSaid what it says.
type readerAsked struct {
	Question optin.Question
	Trial    *trial `json:",omitempty"` // to be tried once it has read
}

type readerSaid struct {
	Answer optin.Answer
	Can    []string `json:",omitempty"`
}

// Bounds of readers. A user can have his reader wait for ever, where he serves his own home (FUSE): while one does, he has no other.
const (
	readerTime           = 100 * time.Millisecond // from its start to its answer
	maxRememberedReaders = 4096                   // counts
	maxName              = 253                    // octets of a host's name (RFC 1035 section 2.3.4)
)

// A readerBound is how many readers there may be at once, a second and in a burst.
type readerBound struct {
	most        int
	rate, burst float64
}

var (
	allReaders  = readerBound{32, 100, 200}
	userReaders = readerBound{4, 20, 40}
)

// half is what one source may have: no requester is to keep a user's name from others, nor all users'.
func (b readerBound) half() readerBound { return readerBound{b.most / 2, b.rate / 2, b.burst / 2} }

var (
	errReaders = errors.New("bound: too many users' files are being read")
	errLate    = fmt.Errorf("bound: the user's files were not read within %s", readerTime)
)

// readers bound how many there are. The zero readers has none.
type readers struct {
	mu     sync.Mutex
	counts map[readerKey]*readerCount
}

// A readerKey says which readers are counted together: a user's, a source's, those of both, or all.
type readerKey struct {
	ofUser, ofSource bool
	uid              uint32
	source           netip.Prefix
}

type readerCount struct {
	readerBound
	running, late int
	spent         float64   // of the burst
	at            time.Time // when that was so
}

// A reading is one reader, until it has ended.
type reading struct {
	counts      []*readerCount
	user        *readerCount // one of them
	late, ended bool
}

// room reports whether there may be one more.
func (c *readerCount) room(now time.Time) bool {
	c.spent = max(0, c.spent-c.rate*now.Sub(c.at).Seconds())
	c.at = now
	return c.running < c.most && c.spent+1 <= c.burst
}

// start counts a reader that is about to be started for a user, because a source asks; nil where it may not be.
func (r *readers) start(uid uint32, source netip.Prefix, now time.Time) *reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.counts)+4 > maxRememberedReaders {
		r.forget(now)
	}
	if len(r.counts)+4 > maxRememberedReaders {
		return nil
	}
	user := r.count(readerKey{ofUser: true, uid: uid}, userReaders)
	x := &reading{user: user, counts: []*readerCount{user, r.count(readerKey{true, true, uid, source}, userReaders.half()),
		r.count(readerKey{ofSource: true, source: source}, allReaders.half()), r.count(readerKey{}, allReaders)}}
	if user.late > 0 || slices.ContainsFunc(x.counts, func(c *readerCount) bool { return !c.room(now) }) {
		return nil
	}
	for _, c := range x.counts {
		c.running++
		c.spent++
	}
	return x
}

// count is the count of a key, which begins at nothing.
func (r *readers) count(k readerKey, b readerBound) *readerCount {
	if r.counts == nil {
		r.counts = map[readerKey]*readerCount{}
	}
	if r.counts[k] == nil {
		r.counts[k] = &readerCount{readerBound: b}
	}
	return r.counts[k]
}

// forget forgets counts of which there is nothing to remember.
func (r *readers) forget(now time.Time) {
	for k, c := range r.counts {
		if c.room(now) && c.running == 0 && c.spent == 0 {
			delete(r.counts, k)
		}
	}
}

// late notes that a reader has had its time.
func (r *readers) late(x *reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !x.ended {
		x.late = true
		x.user.late++
	}
}

func (r *readers) ended(x *reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.ended = true
	for _, c := range x.counts {
		c.running--
	}
	if x.late {
		x.user.late--
	}
}

// read has a reader read a user's files. What it says is as it came.
func (s *supervisor) read(_ context.Context, asked readerAsked) (json.RawMessage, error) {
	began := time.Now()
	x := s.readers.start(asked.Question.UID, server.Source(asked.Question.Requester), began)
	if x == nil {
		return nil, errReaders
	}
	said, err := readBy(asked, s.cfg, began.Add(readerTime), func() { s.readers.ended(x) })
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.readers.late(x)
		return nil, errLate
	}
	if err != nil {
		return nil, fmt.Errorf("read a user's files: %w", err)
	}
	return said, nil
}

// readBy starts a reader and returns what it says by a time. It calls ended when the reader has ended, which may be much later.
func readBy(asked readerAsked, cfg Config, by time.Time, ended func()) (_ json.RawMessage, err error) {
	running := false
	defer func() {
		if !running {
			ended()
		}
	}()
	b, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	if len(b) > largest[callRead].asked { // and so fits into the pipe
		return nil, errors.New("too much is asked")
	}
	in, question, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = question.Write(b)
	if err = errors.Join(err, question.Close()); err != nil {
		in.Close()
		return nil, err
	}
	answer, out, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer answer.Close()
	cmd := &exec.Cmd{Path: self, Args: []string{"stopd", string(reader)}, Dir: "/", Stdin: in, Stdout: out,
		Env: []string{roleVariable + "=" + string(reader), "GOMAXPROCS=1"}}
	err = startRestricted(cmd, reader, cfg)
	in.Close()
	out.Close()
	if err != nil {
		return nil, err
	}
	running = true
	go func() {
		defer ended()
		cmd.Wait() // what it says tells whether it went well
	}()
	defer cmd.Process.Kill()
	answer.SetReadDeadline(by)
	said, err := io.ReadAll(io.LimitReader(answer, int64(largest[callRead].answered)+1))
	if err == nil && !json.Valid(said) { // it was killed, or could not become the user
		err = errors.New("the reader said nothing")
	}
	return said, err
}

// parseSaid parses what a reader said. It read what a user wrote, so it is not believed to keep its bounds.
func parseSaid(b []byte) (readerSaid, error) {
	var said readerSaid
	if err := json.Unmarshal(b, &said); err != nil {
		return readerSaid{}, fmt.Errorf("parse what a reader said: %w", err)
	}
	names := append(slices.Clip(said.Answer.HiddenFrom), said.Answer.ListedNames...)
	if len(names) > 2*optin.MaxNames || slices.ContainsFunc(names, func(n string) bool { return len(n) > maxName }) {
		return readerSaid{}, errors.New("parse what a reader said: too many or too long names")
	}
	return said, nil
}

// readHome does what a reader is asked on its standard input, and says it on its standard output. On failure it says nothing.
func readHome(in io.Reader, out io.Writer) error {
	var asked readerAsked
	if err := json.NewDecoder(io.LimitReader(in, int64(largest[callRead].asked))).Decode(&asked); err != nil {
		return err
	}
	files, err := filesOf(asked.Question)
	if err != nil {
		return err
	}
	said := readerSaid{Answer: files.Answer(asked.Question)}
	if asked.Trial != nil {
		said.Can = prove(*asked.Trial)
	}
	return json.NewEncoder(out).Encode(said)
}
