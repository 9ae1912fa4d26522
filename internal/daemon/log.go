package daemon

import (
	"context"
	"log/slog"
	"time"
)

// A farLog is a log that the supervisor writes.
type farLog struct {
	link  *link
	attrs []slog.Attr
}

// A logged is one line of it, its values as text.
type logged struct {
	Level   slog.Level
	Message string
	Attrs   [][2]string
}

func (*farLog) Enabled(context.Context, slog.Level) bool { return true }

func (f *farLog) Handle(_ context.Context, r slog.Record) error {
	l := logged{Level: r.Level, Message: r.Message}
	add := func(a slog.Attr) bool {
		l.Attrs = append(l.Attrs, [2]string{a.Key, a.Value.Resolve().String()})
		return true
	}
	for _, a := range f.attrs {
		add(a)
	}
	r.Attrs(add)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := ask[none](ctx, f.link, callLog, l)
	return err
}

func (f *farLog) WithAttrs(as []slog.Attr) slog.Handler {
	return &farLog{f.link, append(f.attrs[:len(f.attrs):len(f.attrs)], as...)}
}

func (f *farLog) WithGroup(string) slog.Handler { return f }
