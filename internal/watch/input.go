package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/stopd/stopd/internal/flows"
)

// EVE follows a log of Suricata. "unix:PATH" is a stream socket and "unixgram:PATH" a datagram one, at which it listens and Suricata
// connects (filetype: unix_stream, unix_dgram).
func EVE(path string) Input {
	read := func() reader { return reader{InputEVE, flows.EVE, nil} }
	if network, at, ok := strings.Cut(path, ":"); ok && (network == "unix" || network == "unixgram") {
		return func(ctx context.Context, w *Watcher) error { return listen(ctx, w, network, at, read) }
	}
	return logFile(path, read)
}

// Zeek follows a log of Zeek, as JSON or in columns.
func Zeek(path string) Input {
	return logFile(path, func() reader {
		z := new(flows.Zeek)
		return reader{InputZeek, z.Line, func(header []byte) { z.Line(header) }}
	})
}

// Lines reads lines in any form that a person may paste.
func Lines(r io.Reader) Input {
	return func(ctx context.Context, w *Watcher) error {
		ended := make(chan error, 1)
		go func() {
			ended <- w.lines(r, reader{InputStdin, func(line []byte) (flows.Flow, error) { return flows.Parse(string(line)) }, nil})
		}()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done(): // whoever holds the other end of a pipe may never write again
			return nil
		}
	}
}

// A reader knows the records of one input.
type reader struct {
	input  string
	record func(line []byte) (flows.Flow, error)
	header func(line []byte) // is handed the header of a file that is not read from its beginning; may be nil
}

// take reads one line.
func (w *Watcher) take(r reader, line []byte, p *progress, before place) {
	if len(line) == 0 {
		return
	}
	f, err := r.record(line)
	switch {
	case err == nil:
		w.see(r.input, f, p, before)
	case errors.Is(err, flows.ErrNoFlow):
		w.Counts.NoFlow.Add(1)
	default:
		w.Counts.Unreadable.Add(1)
		w.log.Debug("unreadable", "error", err)
	}
}

func logFile(path string, read func() reader) Input {
	return func(ctx context.Context, w *Watcher) error {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		p := &progress{}
		from, known, err := w.follows(path, p)
		if err != nil {
			return fmt.Errorf("follow %s: %w", path, err)
		}
		r := read()
		f := &follower{path: path, progress: p, count: &w.Counts, begin: r.header,
			line: func(line []byte, before place) { w.take(r, line, p, before) },
			say:  func(what string) { w.log.Warn(what, "file", path) }}
		return f.run(ctx, from, known)
	}
}

// lines reads a stream to its end.
func (w *Watcher) lines(from io.Reader, r reader) error {
	b := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 && (err == nil || err == io.EOF) {
			w.Counts.Lines.Add(1)
			w.take(r, []byte(strings.TrimRight(string(line), "\r\n")), nil, place{})
		}
		for long := err == bufio.ErrBufferFull; long; {
			_, err = b.ReadSlice('\n')
			if long = err == bufio.ErrBufferFull; !long {
				w.Counts.Lines.Add(1)
				w.Counts.Unreadable.Add(1)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read lines: %w", err)
		}
	}
}

// maxStreams bounds how many programs write to a socket at once.
const maxStreams = 64

// listen reads what other programs write to a socket. One that lies there from an earlier time is replaced.
func listen(ctx context.Context, w *Watcher, network, at string, read func() reader) error {
	if info, err := os.Lstat(at); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	if network == "unixgram" {
		c, err := net.ListenUnixgram(network, &net.UnixAddr{Name: at, Net: network})
		if err != nil {
			return err
		}
		defer os.Remove(at)
		defer context.AfterFunc(ctx, func() { c.Close() })()
		r, b := read(), make([]byte, maxLine)
		for {
			n, err := c.Read(b)
			if err != nil {
				return ignoreClosed(ctx, err)
			}
			w.Counts.Lines.Add(1)
			w.take(r, []byte(strings.TrimRight(string(b[:n]), "\r\n")), nil, place{})
		}
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var streams sync.WaitGroup
	defer streams.Wait()
	room := make(chan struct{}, maxStreams)
	for {
		c, err := l.Accept()
		if err != nil {
			return ignoreClosed(ctx, err)
		}
		room <- struct{}{}
		streams.Go(func() {
			defer func() { <-room }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if err := w.lines(c, read()); err != nil && ctx.Err() == nil {
				w.log.Warn("a stream ended", "error", err)
			}
		})
	}
}

// ignoreClosed leaves out that something was closed because the end has come.
func ignoreClosed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
