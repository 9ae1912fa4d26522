package netlab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// SystemdPackages is what a lab needs for [Lab.AddSystemdHost].
var SystemdPackages = []string{"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "polkitd", "systemd-container"}

// systemdProgram is what becomes PID 1.
const systemdProgram = "/lib/systemd/systemd"

// systemUsers are the users and groups that the packages' scripts would have made, with numbers of the range Debian
// gives to daemons.
var systemUsers = map[string]int{"messagebus": 981, "polkitd": 982, "systemd-network": 983, "systemd-journal": 984, "crontab": 985, "sshd": sshdUID}

// AddSystemdHost makes a host as AddHost does, whose PID 1 is systemd: it has a control group of its own, and what
// its units start is started by systemd, so [Host.Start] is refused. Of the machine's own units none is enabled:
// journald, logind and the message bus run, and sshd, which lets users in by keys (see [Lab.Trust]) and
// registers their sessions with logind. It returns when systemd has done all it was told to.
//
// Kernel parameters, /sys and the machine's clock and modules are out of its reach.
func (l *Lab) AddSystemdHost(ctx context.Context, name string, addrs ...netip.Prefix) (*Host, error) {
	h, err := l.addHost(ctx, setup{Hostname: name, Systemd: true}, addrs)
	if err != nil {
		return nil, err
	}
	if err := h.boot(ctx); err != nil {
		log, _ := h.Run(ctx, "journalctl", "--no-pager", "-b", "-n", "50")
		return nil, errors.Join(fmt.Errorf("boot host %q: %w; %s", name, err, log), h.Close())
	}
	return h, nil
}

// Systemd reports whether the host's first process is systemd.
func (h *Host) Systemd() bool { return h.control.cgroup != "" }

// boot waits for systemd, and starts sshd once it has a key and knows its user.
func (h *Host) boot(ctx context.Context) error {
	if err := h.running(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(h.Path(sshd)); err != nil {
		return nil // a lab without sshd
	}
	if _, err := h.hostKey(ctx); err != nil {
		return err
	}
	config := strings.Replace(sshdConfig, "UsePAM no", "UsePAM yes", 1)
	if err := h.WriteFile("/etc/ssh/sshd_config", []byte(config), 0o644, "root"); err != nil {
		return err
	}
	if _, err := h.Run(ctx, "systemctl", "start", "ssh"); err != nil {
		return err
	}
	return h.WaitListen(ctx, 22)
}

// running waits until systemd has no job left.
func (h *Host) running(ctx context.Context) error {
	return WaitFor(ctx, func() (bool, error) {
		out, err := h.Command(ctx, "systemctl", "is-system-running").Output() // fails in every other state
		switch state := string(bytes.TrimSpace(out)); state {
		case "running":
			return true, nil
		case "degraded":
			failed, err := h.Run(ctx, "systemctl", "--failed", "--no-legend", "--plain")
			return false, errors.Join(fmt.Errorf("units have failed: %s", failed), err)
		default:
			if ctx.Err() != nil {
				return false, fmt.Errorf("systemd is %q: %w", state, err)
			}
			return false, nil
		}
	})
}

// cgroupRoot returns where the version 2 hierarchy of control groups is mounted.
func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		// "ID parent device root mount-point options … - type source options", proc_pid_mountinfo(5).
		before, after, ok := strings.Cut(line, " - ")
		if f := strings.Fields(before); ok && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}

// makeCgroup makes a control group for a host.
func makeCgroup(name string) (string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", fmt.Errorf("make control group: %w", err)
	}
	removeOldCgroups(root)
	dir := filepath.Join(root, name)
	return dir, os.Mkdir(dir, 0o755)
}

// removeOldCgroups removes what labs have left that were killed: groups without a process, which are not about to
// get one.
func removeOldCgroups(root string) {
	dirs, _ := filepath.Glob(filepath.Join(root, labPrefix+"*"))
	for _, dir := range dirs {
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		made, err2 := os.Stat(dir)
		if errors.Join(err, err2) == nil && strings.Contains(string(events), "populated 0") && time.Since(made.ModTime()) > time.Minute {
			removeCgroup(dir)
		}
	}
}

// removeCgroup removes a control group in which no process is left, and those below it.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// becomeContainer makes this process, PID 1 of a host whose root it has entered, ready to become systemd, as
// systemd.io/CONTAINER_INTERFACE asks for: with a control group that is the root of those it sees, kernel
// interfaces that it cannot change, a machine id, and without what the machine has it start or mount.
func becomeContainer(s setup) error {
	// It was started in the host's control group, which is the root of the new namespace.
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare control group namespace: %w", err)
	}
	const nosuid, nodev, noexec = syscall.MS_NOSUID, syscall.MS_NODEV, syscall.MS_NOEXEC
	if err := syscall.Mount(s.Lab, "/sys/fs/cgroup", "cgroup2", nosuid|nodev|noexec, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %w", err)
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger"} {
		err := syscall.Mount(path, path, "", syscall.MS_BIND, "")
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without it
		}
		if err != nil {
			return fmt.Errorf("bind %q: %w", path, err)
		}
		if err := syscall.Mount("", path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|nosuid|nodev|noexec, ""); err != nil {
			return fmt.Errorf("make %q read-only: %w", path, err)
		}
	}
	for _, dir := range []string{"/etc/systemd/system", "/etc/init.d", "/var/log/journal", "/var/lib/systemd"} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	id := make([]byte, 16)
	rand.Read(id)
	for path, text := range map[string]string{
		"/etc/machine-id": hex.EncodeToString(id) + "\n",
		"/etc/fstab":      "",
		// What a Debian system has there once libpam-systemd is installed, without passwords.
		"/etc/pam.d/common-auth":                   "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so\nauth required pam_permit.so\n",
		"/etc/pam.d/common-account":                "account required pam_unix.so\n",
		"/etc/pam.d/common-password":               "password required pam_deny.so\n",
		"/etc/pam.d/common-session":                "session required pam_unix.so\nsession optional pam_systemd.so\n",
		"/etc/pam.d/common-session-noninteractive": "session required pam_unix.so\n",
	} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := addSystemUsers(); err != nil {
		return err
	}
	// What is neither a host's own nor a container's: consoles, and tables of the machine's kernel.
	for _, unit := range []string{"console-getty.service", "getty.target", "systemd-sysctl.service", "systemd-modules-load.service", "apparmor.service"} {
		if err := os.Symlink(os.DevNull, filepath.Join("/etc/systemd/system", unit)); err != nil {
			return err
		}
	}
	return os.Symlink("/lib/systemd/system/multi-user.target", "/etc/systemd/system/default.target")
}

// addSystemUsers adds those of systemUsers that the machine lacks.
func addSystemUsers() error {
	for path, line := range map[string]string{"/etc/passwd": "%[1]s:x:%[2]d:%[2]d::/nonexistent:/usr/sbin/nologin\n", "/etc/group": "%[1]s:x:%[2]d:\n"} {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, id := range systemUsers {
			if !bytes.Contains(append([]byte("\n"), data...), []byte("\n"+name+":")) {
				data = fmt.Appendf(data, line, name, id)
			}
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dropped are the capabilities for what belongs to the machine (linux/capability.h): modules, ports, the clock.
var dropped = []uintptr{16, 17, 25}

// becomeSystemd executes systemd in place of this process.
func becomeSystemd() error {
	for _, c := range dropped {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_CAPBSET_DROP, c, 0); errno != 0 {
			return os.NewSyscallError("prctl", errno)
		}
	}
	env := []string{"PATH=" + searchPath, "container=netlab", "LANG=C.UTF-8"}
	return os.NewSyscallError("execve", syscall.Exec(systemdProgram, []string{"/sbin/init"}, env))
}

// endWithLab has this thread, which is PID 1, killed with the one of the lab that started it: systemd
// does not listen to the lab. Kernels deliver the signal although it is PID 1, for it comes from outside.
func endWithLab() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}
