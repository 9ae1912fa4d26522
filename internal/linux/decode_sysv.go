package linux

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/stopd/stopd/host"
)

// A queue is a System V message queue (proc_sysvipc(5), ipc/msg.c).
type queue struct {
	key              int64
	id               uint64
	sender, receiver int // the last ones; 0 for none
}

// parseQueues parses /proc/sysvipc/msg: key, msqid, perms, cbytes, qnum, lspid, lrpid and more.
func parseQueues(b []byte) ([]queue, error) {
	var qs []queue
	first := true
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if first || len(f) == 0 {
			first = false // the heading
			continue
		}
		if len(f) < 7 {
			return nil, fmt.Errorf("parse message queues: %w", errSyntax)
		}
		key, err := strconv.ParseInt(string(f[0]), 10, 64)
		id, err2 := strconv.ParseUint(string(f[1]), 10, 32)
		sender, err3 := strconv.ParseUint(string(f[5]), 10, 31)
		receiver, err4 := strconv.ParseUint(string(f[6]), 10, 31)
		if err != nil || err2 != nil || err3 != nil || err4 != nil {
			return nil, fmt.Errorf("parse message queues: %w", errSyntax)
		}
		qs = append(qs, queue{key: key, id: id, sender: int(sender), receiver: int(receiver)})
	}
	return qs, nil
}

// mode says what a process last did with the queue; empty for nothing.
func (q queue) mode(pid int) host.Mode {
	switch {
	case pid == 0:
		return ""
	case q.sender == pid && q.receiver == pid:
		return host.ReadWrite
	case q.sender == pid:
		return host.Write
	case q.receiver == pid:
		return host.Read
	}
	return ""
}
