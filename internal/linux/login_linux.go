package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Where the system keeps who is logged in. A system without one of them has none of it to tell.
const (
	utmpFile    = "/var/run/utmp"
	wtmpFile    = "/var/log/wtmp"
	sessionsDir = "/run/systemd/sessions"
)

// Bounds on what is read of them. A user can open many sessions, and wtmp keeps all there ever were.
const (
	maxLoginRecords = 4096
	maxSessions     = 1024
	maxSessionFile  = 64 << 10
)

// Logins reads utmp, wtmp and logind's sessions. What of it could not be read is a gap.
func (s *snapshot) Logins(context.Context) ([]host.Login, error) {
	var ls []host.Login
	layout := utmpLayoutOf(runtime.GOARCH)
	utmp, cut, err := posix.Tail(utmpFile, maxLoginRecords*layout.size, layout.size)
	s.note("utmp", err)
	if cut {
		s.note("utmp", fmt.Errorf("bound: the last %d records", maxLoginRecords))
	}
	ls = append(ls, parseUtmp(utmp, layout)...)

	wtmp, cut, err := posix.Tail(wtmpFile, maxLoginRecords*layout.size, layout.size)
	s.note("wtmp", err)
	ended, reaches := parseWtmp(wtmp, layout, s.h.at(0))
	if cut && !reaches {
		s.note("wtmp", fmt.Errorf("bound: the last %d records", maxLoginRecords))
	}
	ls = append(ls, ended...)

	sessions, err := readSessions()
	s.note("sessions", err)
	return append(ls, sessions...), nil
}

// note makes a gap of an error, unless it is that a file is not there.
func (s *snapshot) note(what string, err error) {
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.gaps = append(s.gaps, host.Gap{What: what, Why: err.Error()})
	}
}

// readSessions reads the sessions that logind keeps. FIFOs of the sessions lie beside them.
func readSessions() ([]host.Login, error) {
	dir, err := os.Open(sessionsDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(4 * maxSessions)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var ls []host.Login
	var errs error
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") { // a temporary file
			continue
		}
		if len(ls) == maxSessions || len(entries) == 4*maxSessions {
			errs = errors.Join(errs, fmt.Errorf("bound: %d sessions", len(ls)))
			break
		}
		b, err := readSession(filepath.Join(sessionsDir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		errs = errors.Join(errs, err)
		if l, ok := parseSession(b); ok {
			ls = append(ls, l)
		}
	}
	slices.SortStableFunc(ls, func(a, b host.Login) int { return a.Time.Compare(b.Time) })
	return ls, errs
}

func readSession(path string) ([]byte, error) {
	f, err := posix.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSessionFile))
}

// Audited looks which processes are in an audit session. All are read once a look, when first asked for.
func (s *snapshot) Audited(ctx context.Context, session uint32) ([]int, error) {
	if s.audited == nil {
		s.audited = map[uint32][]int{}
		pids, err := listPIDs(s.root)
		if err != nil {
			return nil, err
		}
		slices.Sort(pids)
		for _, pid := range pids {
			if ctx.Err() != nil {
				return nil, errors.New("bound: deadline")
			}
			if id, ok := s.auditSession(pid); ok {
				s.audited[id] = append(s.audited[id], pid)
			}
		}
	}
	return s.audited[session], nil
}

func (s *snapshot) auditSession(pid int) (uint32, bool) {
	d := procDir{s.root, pid}
	b, err := d.read(strconv.Itoa(pid) + "/sessionid")
	if err != nil {
		return 0, false // it has ended, or the kernel has no audit
	}
	return parseAuditID(b)
}
