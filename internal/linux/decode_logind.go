package linux

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// parseSession reads a session of logind, a file of /run/systemd/sessions (systemd src/login/logind-session.c).
// It is false where the file is none, or the session of no user.
func parseSession(b []byte) (host.Login, bool) {
	l := host.Login{Source: host.LoginAudit}
	var scope, uid string
	for line := range bytes.Lines(b) {
		key, v, _ := bytes.Cut(bytes.TrimRight(line, "\n"), []byte("="))
		value := text(bytes.Trim(v, `"`))
		switch string(key) {
		case "UID":
			if _, err := strconv.ParseUint(value, 10, 32); err == nil {
				uid = value
			}
		case "USER":
			l.User = value
		case "SCOPE":
			scope = value
		case "TTY":
			l.Line = value
		case "REMOTE_HOST":
			l.Host = value
			if a := posix.ParseAddress(value); a.IsValid() {
				l.Remote = netip.AddrPortFrom(a, 0)
			}
		case "LEADER":
			if n, err := strconv.ParseUint(value, 10, 31); err == nil {
				l.PID = int(n)
			}
		case "AUDIT":
			if n, err := strconv.ParseUint(value, 10, 32); err == nil && n != 1<<32-1 {
				l.Audit = new(uint32(n))
			}
		case "REALTIME":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 && n < 1<<57 {
				l.Time = time.UnixMicro(n).UTC()
			}
		}
	}
	if uid == "" {
		return host.Login{}, false
	}
	if scope != "" {
		// The user's slice is below the first; a user can make groups only below their own service manager's.
		l.Cgroup = "/user.slice/user-" + uid + ".slice/" + scope
	}
	return l, true
}
