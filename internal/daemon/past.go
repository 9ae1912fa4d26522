package daemon

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
)

// A keptPast is what the collector remembers, kept over a restart: sealed here, so that the keeper, which has the file, cannot read it.
type keptPast struct {
	keeper  *link
	seal    recorder.Seal
	log     *slog.Logger
	keep    func(keep func(h *recorder.History, at uint64) error) error
	keeping chan struct{} // closed once the keeper has started
	begun   func()        // closes it

	restored atomic.Bool // what was kept before is remembered, or cannot be: it may be replaced
	failed   bool        // to save it, the last time
	saved    time.Time   // when it was, or was restored
	events   uint64      // that were in it then
}

// How often what is remembered is kept, and how long that may take at the end; where another process has ended, endTime is less. With
// 100,000 connections and as many processes it costs a tenth of a second and 5 MB (BenchmarkKeep).
const (
	keepEvery    = 5 * time.Minute
	lastKeepTime = 10 * time.Second
)

// All of it is written each time. So it is not where little has happened since, which is fewer than one event for keepShare of what is remembered, for up to keepAge;
// where nothing has, never.
const (
	keepShare = 16
	keepAge   = time.Hour
)

// due reports whether what is remembered differs enough from what was saved last.
func (k *keptPast) due(f recorder.Fill, now time.Time) bool {
	if k.failed {
		return true
	}
	since := f.Events - k.events
	return since > 0 && (since >= uint64(f.Connections+f.Processes)/keepShare || now.Sub(k.saved) >= keepAge)
}

func newKeptPast(keeper *link, seal recorder.Seal, log *slog.Logger, sys system) *keptPast {
	k := &keptPast{keeper: keeper, seal: seal, log: log, keep: sys.keep, keeping: make(chan struct{})}
	k.begun = sync.OnceFunc(func() { close(k.keeping) })
	return k
}

// restore fills a history with what was kept before. What cannot be opened is removed.
func (k *keptPast) restore(ctx context.Context, h *recorder.History, since uint64) {
	select {
	case <-k.keeping:
	case <-ctx.Done():
		return
	}
	r := &pastReader{ctx: ctx, keeper: k.keeper}
	err := h.Restore(bufio.NewReader(r), k.seal, since)
	if err != nil && (ctx.Err() != nil || errors.Is(err, errLink)) {
		return
	}
	k.saved = time.Now()
	k.restored.Store(true)
	if err == nil {
		f := h.Fill()
		k.log.Info("what was remembered before is remembered again", "connections", f.Connections, "processes", f.Processes)
		return
	}
	if r.at == 0 && r.err == io.EOF {
		return // there is none
	}
	k.log.Warn("what was remembered before is lost", "error", err)
	if errors.Is(err, recorder.ErrAltered) || errors.Is(err, recorder.ErrVersion) || errors.Is(err, recorder.ErrScope) {
		if _, err := k.keeper.call(ctx, callKeepPast, []byte{pastRemoved}); err != nil {
			k.log.Warn("remove what was remembered before", "error", err)
		}
	}
}

// run keeps what is remembered once in a while.
func (k *keptPast) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepEvery):
		}
		k.save(ctx, false)
	}
}

// save keeps what is remembered, in the place of what was kept before; all of it at the last time, else where that is due. That it cannot is said once.
func (k *keptPast) save(ctx context.Context, last bool) {
	if !k.restored.Load() {
		return
	}
	err := k.keep(func(h *recorder.History, at uint64) error {
		f, now := h.Fill(), time.Now()
		if !last && !k.due(f, now) {
			return nil
		}
		w := &pastWriter{ctx: ctx, keeper: k.keeper, how: pastBegins}
		b := bufio.NewWriterSize(w, pastChunk)
		if err := errors.Join(h.Keep(b, k.seal, at), b.Flush()); err != nil {
			return err
		}
		if err := w.end(); err != nil {
			return err
		}
		k.saved, k.events = now, f.Events
		return nil
	})
	switch failed := err != nil; {
	case errors.Is(err, host.ErrNotFound): // nothing is remembered yet
	case failed && !k.failed:
		k.log.Warn("what is remembered is not kept over a restart", "error", err)
		k.failed = true
	case !failed && k.failed:
		k.log.Info("what is remembered is kept over a restart again")
		k.failed = false
	}
}

// pastChunk is how many octets of what is kept cross at once.
const pastChunk = 1 << 20

// What the collector says of the octets that follow, by the first octet of callKeepPast.
const (
	pastBegins  = iota // they are the first
	pastGoesOn         // they follow
	pastEnds           // they were the last; none follow
	pastRemoved        // what was kept is to be removed; none follow
)

// A pastWriter hands octets to the keeper.
type pastWriter struct {
	ctx    context.Context
	keeper *link
	how    byte
}

func (w *pastWriter) Write(b []byte) (n int, err error) {
	for c := range slices.Chunk(b, pastChunk) {
		if _, err := w.keeper.call(w.ctx, callKeepPast, append([]byte{w.how}, c...)); err != nil {
			return n, err
		}
		w.how = pastGoesOn
		n += len(c)
	}
	return n, nil
}

// end has the keeper put what was written in the place of what there was.
func (w *pastWriter) end() error {
	_, err := w.keeper.call(w.ctx, callKeepPast, []byte{pastEnds})
	return err
}

// A pastReader asks the keeper for what was kept.
type pastReader struct {
	ctx    context.Context
	keeper *link
	chunk  []byte
	at     uint64 // how much was asked for
	err    error
}

func (r *pastReader) Read(b []byte) (int, error) {
	if len(r.chunk) == 0 && r.err == nil {
		r.chunk, r.err = r.keeper.call(r.ctx, callPast, binary.BigEndian.AppendUint64(nil, r.at))
		r.at += uint64(len(r.chunk))
		if r.err == nil && len(r.chunk) == 0 {
			r.err = io.EOF
		}
	}
	if len(r.chunk) == 0 {
		return 0, r.err
	}
	n := copy(b, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}
