package netlab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// user is a line of a host's /etc/passwd.
type user struct {
	name     string
	uid, gid int
	home     string
}

// user looks a name up in the host's /etc/passwd.
func (h *Host) user(name string) (user, error) {
	if name == "root" {
		return user{name: "root", home: "/root"}, nil
	}
	passwd, err := h.ReadFile("/etc/passwd")
	if err != nil {
		return user{}, fmt.Errorf("look up user %q: %w", name, err)
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 7 || f[0] != name {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		if err != nil {
			return user{}, fmt.Errorf("look up user %q: %w", name, err)
		}
		gid, err := strconv.Atoi(f[3])
		if err != nil {
			return user{}, fmt.Errorf("look up user %q: %w", name, err)
		}
		return user{name: name, uid: uid, gid: gid, home: f[5]}, nil
	}
	return user{}, fmt.Errorf("look up user %q: %w", name, os.ErrNotExist)
}

// AddUser adds a user, and a group of the same name and number, with a home in /home and bash as shell.
// No password fits, yet the account is not locked: sshd lets a key in.
func (h *Host) AddUser(name string, uid int) error {
	home := "/home/" + name
	if err := h.addUser(name, uid, home, "/bin/bash"); err != nil {
		return err
	}
	root, err := h.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(inRoot(home), 0o755); err != nil {
		return err
	}
	return root.Chown(inRoot(home), uid, uid)
}

// AddSystemUser adds a user and group for a daemon, as a package's postinst would: without home or shell.
func (h *Host) AddSystemUser(name string, uid int) error {
	return h.addUser(name, uid, "/nonexistent", "/usr/sbin/nologin")
}

func (h *Host) addUser(name string, uid int, home, shell string) error {
	if _, err := h.user(name); err == nil {
		return fmt.Errorf("add user %q to %q: %w", name, h.Name, os.ErrExist)
	}
	for _, f := range []struct {
		path, line string
		mode       os.FileMode
	}{
		{"/etc/group", fmt.Sprintf("%s:x:%d:", name, uid), 0o644},
		{"/etc/shadow", fmt.Sprintf("%s:*:19000:0:99999:7:::", name), 0o640},
		{"/etc/passwd", fmt.Sprintf("%s:x:%d:%d::%s:%s", name, uid, uid, home, shell), 0o644},
	} {
		if err := h.appendLine(f.path, f.line, f.mode, "root"); err != nil {
			return fmt.Errorf("add user %q to %q: %w", name, h.Name, err)
		}
	}
	return nil
}

// appendLine appends a line to a file, which need not exist.
func (h *Host) appendLine(path, line string, mode os.FileMode, owner string) error {
	data, err := h.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return h.WriteFile(path, append(data, line+"\n"...), mode, owner)
}
