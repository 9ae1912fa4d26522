package daemon

import (
	"log/slog"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
)

// A process that does not even read what it is asked is killed, like one that does not answer.
func TestWatchOfOneThatDoesNotRead(t *testing.T) {
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe() // it holds nothing: a write waits until it is read
		l := newLink(ours, nil)
		s := &supervisor{log: slog.New(slog.DiscardHandler)}
		s.watch(&child{role: front, process: sleep.Process, control: l, ended: make(chan struct{})})
		theirs.Close()
		<-l.ended
	})
	err := sleep.Wait()
	if s, ok := sleep.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
}
