package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/evidence"
)

// promises are what a role may do (pledge(2)). What else it tries fails, and does not end it. The collector has none: kern.file is
// refused whoever has any.
var promises = map[role]string{
	front:  "error stdio inet recvfd",
	tracer: "error stdio inet dns rpath",
	keeper: "error stdio rpath wpath cpath fattr flock unix recvfd",
	reader: "error stdio rpath",
}

// viewsOf says which files a role may use. The store and its lock are made where they are not there yet.
func viewsOf(r role, cfg Config) ([]view, error) {
	switch r {
	case collector:
		return []view{{"/usr/bin/getent", "rx"}, {"/usr/libexec/ld.so", "r"}, {"/dev", "r"}, {os.DevNull, "rw"}, {"/var/run/utmp", "r"}, {"/var/log/wtmp", "r"}}, nil
	case tracer:
		return []view{{"/etc/resolv.conf", "r"}, {"/etc/hosts", "r"}, {"/etc/services", "r"}, {"/etc/ssl", "r"}}, nil
	case keeper:
		dir := filepath.Clean(cfg.Store)
		if err := makeStore(dir); err != nil { // unveil(2) looks directories up when it is called
			return nil, err
		}
		key, err := evidence.LogKeyPath(cfg.Store)
		if err != nil {
			return nil, fmt.Errorf("find log key: %w", err)
		}
		tlsKey, err := TLSKeyPath(cfg.Store)
		if err != nil {
			return nil, err
		}
		return []view{{dir, "rwc"}, {dir + ".lock", "rwc"}, {key, "r"}, {tlsKey, "r"}}, nil
	}
	return nil, nil
}

// restrict leaves this process what it is shown, and its promises. What is not there, or has no directory to be in, needs nothing.
func restrict(r role, views []view) error {
	if len(views) == 0 { // who is shown nothing would see everything
		views = []view{{"/nonexistent", ""}}
	}
	for _, v := range views {
		if err := unix.Unveil(v.path, v.may); err != nil && err != unix.ENOENT {
			return fmt.Errorf("unveil %s: %w", v.path, err)
		}
	}
	if err := unix.UnveilBlock(); err != nil {
		return fmt.Errorf("unveil nothing more: %w", err)
	}
	if p, ok := promises[r]; ok {
		if err := unix.PledgePromises(p); err != nil {
			return fmt.Errorf("pledge: %w", err)
		}
	}
	return nil
}
