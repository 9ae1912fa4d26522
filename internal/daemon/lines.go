package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Lines bound what the processes write into the log: who asks must not fill it, nor have its writer drop what else there is
// to say, be it that every request fails. So many lines with one message are written in a time, the rest are counted. What the keeper
// informs of is what administrators do, and all of it is written.
type lines struct {
	mu   sync.Mutex
	said map[lineKey]*said
}

// A lineKey is a message of a process. Beyond maxMessages all others of a process are one, the empty one.
type lineKey struct {
	role    role
	message string
}

type said struct {
	lines int
	over  *time.Timer
}

const (
	linesPerMessage = 20 // in a lineWindow
	lineWindow      = time.Minute
	maxMessages     = 64
)

// write writes a line of a process, unless there are too many with its message.
func (ls *lines) write(ctx context.Context, log *slog.Logger, r role, l logged) {
	if (r != keeper || l.Level >= slog.LevelWarn) && !ls.admit(log, lineKey{r, l.Message}) {
		return
	}
	var attrs []slog.Attr
	for _, a := range l.Attrs {
		attrs = append(attrs, slog.String(a[0], a[1]))
	}
	log.LogAttrs(ctx, l.Level, l.Message, attrs...)
}

func (ls *lines) admit(log *slog.Logger, k lineKey) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.said[k]
	if s == nil && len(ls.said) >= maxMessages {
		k.message = ""
		s = ls.said[k]
	}
	if s == nil {
		if ls.said == nil {
			ls.said = map[lineKey]*said{}
		}
		s = &said{over: time.AfterFunc(lineWindow, func() { ls.end(log, k) })}
		ls.said[k] = s
	}
	s.lines++
	return s.lines <= linesPerMessage
}

// end says how many lines with a message were not written.
func (ls *lines) end(log *slog.Logger, k lineKey) {
	ls.mu.Lock()
	s := ls.said[k]
	delete(ls.said, k)
	ls.mu.Unlock()
	if s != nil && s.lines > linesPerMessage {
		log.Warn("lines were left out of the log", "process", string(k.role), "message", k.message, "lines", s.lines-linesPerMessage)
	}
}

// flush ends all, before the daemon does.
func (ls *lines) flush(log *slog.Logger) {
	ls.mu.Lock()
	var keys []lineKey
	for k, s := range ls.said {
		s.over.Stop()
		keys = append(keys, k)
	}
	ls.mu.Unlock()
	for _, k := range keys {
		ls.end(log, k)
	}
}
