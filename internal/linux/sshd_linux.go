package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// What journalctl may take, in time, in output and in processes that it is asked about at once.
var journalTimeout = 400 * time.Millisecond // not a constant for the tests alone

const (
	maxJournal     = 1 << 20
	maxJournalPIDs = 64
)

// authLogs are where syslog daemons put what sshd says, the present file and the one before it. Files that are not
// there are none of this system's.
var authLogs = []string{"/var/log/auth.log", "/var/log/auth.log.1", "/var/log/secure", "/var/log/secure.1"}

// maxAuthLog is how much is read of the end of each.
const maxAuthLog = 4 << 20

// journals are where journald keeps its files, in memory or on disk (systemd-journald.service(8)).
var journals = []string{"/run/log/journal", "/var/log/journal"}

// records keeps what was found of whom, so that a process that is asked about again costs nothing.
type records struct {
	mu    sync.Mutex
	known map[host.ID]record
}

type record struct {
	logins []host.Login
	until  time.Time
}

// How long records are kept: what a process that lives has logged stays; another may still be on its way to the log.
const (
	recordAge   = 5 * time.Minute
	noRecordAge = 5 * time.Second
	maxRecords  = 4096
)

func (r *records) of(id host.ID) ([]host.Login, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[id]
	return k.logins, ok && time.Now().Before(k.until)
}

func (r *records) keep(id host.ID, ls []host.Login) {
	age := recordAge
	if len(ls) == 0 || id.Start == 0 {
		age = noRecordAge
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxRecords {
		r.known = map[host.ID]record{}
	}
	r.known[id] = record{ls, time.Now().Add(age)}
}

// Accepted asks the journal, and of whom that knows nothing the files of syslog. Only of a process that lives can
// such a file say something: see parseAuthLog.
func (s *snapshot) Accepted(ctx context.Context, ids []host.ID) ([]host.Login, error) {
	var ls []host.Login
	found := map[int][]host.Login{}
	var ask []host.ID
	for _, id := range ids {
		if known, ok := s.h.records.of(id); ok {
			ls = append(ls, known...)
		} else {
			ask = append(ask, id)
		}
	}
	if len(ask) > maxJournalPIDs {
		s.note("sshd's records", fmt.Errorf("bound: %d of %d processes", maxJournalPIDs, len(ask)))
		ask = ask[:maxJournalPIDs]
	}
	if len(ask) == 0 {
		return ls, nil
	}
	journal, whole := s.journal(ctx, ask)
	for _, l := range journal {
		found[l.PID] = append(found[l.PID], l)
	}
	var rest []host.ID
	for _, id := range ask {
		if len(found[id.PID]) == 0 && id.Start != 0 {
			rest = append(rest, id)
		}
	}
	logged, wholeLogs := s.authLog(ctx, rest)
	for _, l := range logged {
		found[l.PID] = append(found[l.PID], l)
	}
	for _, id := range ask {
		ls = append(ls, found[id.PID]...)
		if len(found[id.PID]) > 0 || whole && wholeLogs {
			s.h.records.keep(id, found[id.PID])
		}
	}
	return ls, nil
}

// journal runs journalctl(1) once. Whole is false where it could not be asked, or not to the end.
func (s *snapshot) journal(ctx context.Context, ids []host.ID) (ls []host.Login, whole bool) {
	there := false
	for _, dir := range journals {
		_, err := os.Stat(dir)
		there = there || err == nil
	}
	if !there {
		return nil, true
	}
	timeout := journalTimeout
	if until := part(ctx, 4); !until.IsZero() {
		timeout = min(timeout, time.Until(until))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	args := []string{"--quiet", "--no-pager", "--boot", "--output=json", "--output-fields=MESSAGE,_PID,_UID,_SOURCE_REALTIME_TIMESTAMP", "_UID=0"}
	for _, id := range ids {
		args = append(args, "_PID="+strconv.Itoa(id.PID))
	}
	out, cut, err := output(ctx, "journalctl", args...)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("journalctl did not end within %s", timeout.Round(time.Millisecond))
	case cut:
		err = fmt.Errorf("bound: the first %d octets", maxJournal)
	case errors.Is(err, exec.ErrNotFound):
		err = errors.New("journalctl is not there to read it")
	}
	s.note("journal", err)
	return parseJournal(out), err == nil
}

// output runs a program and returns what it prints, up to maxJournal.
func output(ctx context.Context, name string, args ...string) (out []byte, cut bool, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = 100 * time.Millisecond
	var said bytes.Buffer
	cmd.Stderr = &limited{&said, 1024}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, false, err
	}
	if err := cmd.Start(); err != nil {
		return nil, false, err
	}
	defer context.AfterFunc(ctx, func() { pipe.Close() })() // whoever else may hold its other end
	out, err = io.ReadAll(io.LimitReader(pipe, maxJournal))
	if len(out) == maxJournal {
		cut = true
		cmd.Process.Kill()
	}
	if werr := cmd.Wait(); err == nil && werr != nil && !cut && said.Len() > 0 {
		// Without a word it only says that it found nothing.
		err = fmt.Errorf("%s: %w: %s", name, werr, strings.TrimSpace(text(said.Bytes())))
	}
	return out, cut, err
}

// limited drops what comes after so many octets.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.to.Write(b[:n])
	l.left -= n
	return len(b), nil
}

// authLog reads the files of syslog for the records of given processes, all of which live.
func (s *snapshot) authLog(ctx context.Context, ids []host.ID) (ls []host.Login, whole bool) {
	whole = true
	if len(ids) == 0 {
		return nil, true
	}
	oldest := ids[0]
	wanted := map[int]bool{}
	for _, id := range ids {
		wanted[id.PID] = true
		if id.Start < oldest.Start {
			oldest = id
		}
	}
	began := s.startTime(oldest.Start)
	for i, path := range authLogs {
		if ctx.Err() != nil {
			s.note("log of sshd", errors.New("bound: deadline"))
			return ls, false
		}
		b, cut, err := posix.Tail(path, maxAuthLog, 1)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if s.note("log of sshd", err); err != nil {
			whole = false
			continue
		}
		if cut { // begin with a whole line
			_, b, _ = bytes.Cut(b, []byte("\n"))
		}
		found, reaches := parseAuthLog(b, time.Now())
		for _, l := range found {
			if wanted[l.PID] {
				l.Log = path
				ls = append(ls, l)
			}
		}
		if cut && reaches.After(began) && i%2 == 0 {
			s.note("log of sshd", fmt.Errorf("bound: the last %d octets of %s", maxAuthLog, path))
			whole = false
		}
	}
	return ls, whole
}
