package posix

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// An Account is what the system knows of a user.
type Account struct {
	Name string // as it is, octet by octet
	GID  uint32
	Home string // may be empty, or anything
}

// parsePasswd parses the account of a user id from the line that getent(1) prints (passwd(5)). Some systems leave out
// what comes after the home.
func parsePasswd(b []byte, uid uint32) (Account, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Split(line, []byte(":"))
	if len(f) < 6 || len(f[0]) == 0 || string(f[2]) != strconv.FormatUint(uint64(uid), 10) {
		return Account{}, errors.New("parse account: syntax")
	}
	gid, err := strconv.ParseUint(string(f[3]), 10, 32)
	if err != nil {
		return Account{}, fmt.Errorf("parse account: group: %w", err)
	}
	return Account{string(f[0]), uint32(gid), string(f[5])}, nil
}
