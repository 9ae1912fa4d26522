package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

// Session is a command that stays, its input held open: a user at a terminal.
type Session struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{} // closed when the command has ended; err is valid then
	err   error

	mu     sync.Mutex
	output bytes.Buffer // not yet expected
}

// Open starts a command, of [Host.Command] or [Host.CommandAs], and holds it open. Its input, output
// and error must not be set. ctx of the command bounds the session.
//
//	s, err := netlab.Open(a.CommandAs(ctx, "alice", "ssh", "-tt", "b"))
func Open(cmd *exec.Cmd) (*Session, error) {
	s := &Session{cmd: cmd, done: make(chan struct{})}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	cmd.Stdout, cmd.Stderr = (*sessionOutput)(s), (*sessionOutput)(s)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("open session: %w", err)
	}
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// sessionOutput keeps Write out of the Session's own methods.
type sessionOutput Session

func (o *sessionOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.output.Write(p)
}

// Send writes a line to the command's input.
func (s *Session) Send(line string) error {
	if _, err := io.WriteString(s.stdin, line+"\n"); err != nil {
		return fmt.Errorf("send to session: %w", err)
	}
	return nil
}

// Expect waits until the output, both standard output and error, has text after what the last Expect
// returned, and returns the output through text. A terminal echoes what was sent: after Send("echo ab")
// "ab" is found in the echo, before the command has run, but after Send("echo a”b") it is not.
func (s *Session) Expect(ctx context.Context, text string) (string, error) {
	var found string
	err := WaitFor(ctx, func() (bool, error) {
		// Looked at first: after the end no more output comes.
		ended := false
		select {
		case <-s.done:
			ended = true
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := bytes.Index(s.output.Bytes(), []byte(text)); i >= 0 {
			found = string(s.output.Next(i + len(text)))
			return true, nil
		}
		if ended {
			return false, fmt.Errorf("session has ended: %s", s.cmd.ProcessState)
		}
		return false, nil
	})
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return "", fmt.Errorf("expect %q: %w; output is %q", text, err, s.output.String())
	}
	return found, nil
}

// Wait returns when the command has ended by itself, after Send("exit") for example, with the error of
// [exec.Cmd.Wait].
func (s *Session) Wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("wait for end of session: %w", context.Cause(ctx))
	}
}

// Close hangs up: the command is killed if it still runs. It may be called again.
func (s *Session) Close() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	err := killEntered(s.cmd.Process)
	<-s.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
