package linux

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/stopd/stopd/host"
)

// A queue is a System V message queue (sysvipc(7), ipc/msg.c).
type queue struct {
	key              int64
	id               uint64
	sender, receiver int // the last ones; 0 for none
	// sent and received are when they did so; zero for never.
	sent, received time.Time
}

// sysvRows gives the fields of each line of a file in /proc/sysvipc but its heading.
func sysvRows(b []byte) iter.Seq[[][]byte] {
	return func(yield func([][]byte) bool) {
		first := true
		for line := range bytes.Lines(b) {
			f := bytes.Fields(line)
			if first || len(f) == 0 {
				first = false // the heading
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// parseQueues parses /proc/sysvipc/msg: key, msqid, perms, cbytes, qnum, lspid, lrpid, uid, gid, cuid, cgid,
// stime, rtime, ctime.
func parseQueues(b []byte) ([]queue, error) {
	var qs []queue
	for f := range sysvRows(b) {
		if len(f) < 14 {
			return nil, fmt.Errorf("parse message queues: %w", errSyntax)
		}
		key, err := strconv.ParseInt(string(f[0]), 10, 64)
		id, err2 := strconv.ParseUint(string(f[1]), 10, 32)
		sender, err3 := strconv.ParseUint(string(f[5]), 10, 31)
		receiver, err4 := strconv.ParseUint(string(f[6]), 10, 31)
		sent, err5 := strconv.ParseInt(string(f[11]), 10, 64)
		received, err6 := strconv.ParseInt(string(f[12]), 10, 64)
		if errors.Join(err, err2, err3, err4, err5, err6) != nil {
			return nil, fmt.Errorf("parse message queues: %w", errSyntax)
		}
		qs = append(qs, queue{key: key, id: id, sender: int(sender), receiver: int(receiver), sent: time.Unix(sent, 0), received: time.Unix(received, 0)})
	}
	return qs, nil
}

// coarse is how late a process may have started by its own time, and yet have done something at a time of System V IPC: that is in whole seconds, of a clock that
// is a tick behind (ktime_get_real_seconds), and more where the machine was held up.
const coarse = 2 * time.Second

// mode says what a process last did with the queue; empty for nothing. The kernel remembers the pid after its
// process has ended: who has started since has it again, and did nothing.
func (q queue) mode(pid int, start time.Time) host.Mode {
	was := func(who int, when time.Time) bool {
		return pid != 0 && who == pid && start.Before(when.Add(coarse))
	}
	switch s, r := was(q.sender, q.sent), was(q.receiver, q.received); {
	case s && r:
		return host.ReadWrite
	case s:
		return host.Write
	case r:
		return host.Read
	}
	return ""
}

// A semSet is a set of System V semaphores (ipc/sem.c).
type semSet struct {
	key    int64
	id     uint64
	number int
	// used is when one of them was last changed; zero is never.
	used time.Time
	pids []int // the last process of each semaphore; 0 for none
}

// parseSems parses /proc/sysvipc/sem: key, semid, perms, nsems, uid, gid, cuid, cgid, otime, ctime.
func parseSems(b []byte) ([]semSet, error) {
	var sets []semSet
	for f := range sysvRows(b) {
		if len(f) < 10 {
			return nil, fmt.Errorf("parse semaphores: %w", errSyntax)
		}
		key, err := strconv.ParseInt(string(f[0]), 10, 64)
		id, err2 := strconv.ParseUint(string(f[1]), 10, 32)
		number, err3 := strconv.ParseUint(string(f[3]), 10, 31)
		operated, err4 := strconv.ParseInt(string(f[8]), 10, 64)
		changed, err5 := strconv.ParseInt(string(f[9]), 10, 64)
		if errors.Join(err, err2, err3, err4, err5) != nil {
			return nil, fmt.Errorf("parse semaphores: %w", errSyntax)
		}
		sets = append(sets, semSet{key: key, id: id, number: int(number), used: time.Unix(max(operated, changed), 0)})
	}
	return sets, nil
}

// mode says what a process last did with the set; empty for nothing. Who has started since the set was last
// used has the pid of one that has ended.
func (s semSet) mode(pid int, start time.Time) host.Mode {
	if pid != 0 && slices.Contains(s.pids, pid) && start.Before(s.used.Add(coarse)) {
		return host.ReadWrite
	}
	return ""
}
