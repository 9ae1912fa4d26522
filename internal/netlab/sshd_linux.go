package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// SSHPackages is what a host of a lab needs for [Host.StartSSHD] and [Lab.Trust].
var SSHPackages = []string{"openssh-server", "openssh-client"}

const (
	sshd    = "/usr/sbin/sshd"
	hostKey = "/etc/ssh/netlab_host_key"

	sshdConfig = `Port 22
HostKey ` + hostKey + `
PidFile /run/sshd.pid
UsePAM no
LoginGraceTime 0
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
`

	// Without the name service requests of GSSAPI, and without what the package's file includes.
	sshConfig = "Host *\n\tGSSAPIAuthentication no\n\tUpdateHostKeys no\n\tStrictHostKeyChecking yes\n"

	// sshdUID is that of the unprivileged part of sshd, a number of the range Debian gives to daemons.
	sshdUID = 991
)

// StartSSHD starts OpenSSH's sshd on port 22 and returns when it listens. Keys let users in, see
// [Lab.Trust], passwords do not. Who does not log in is not hung up on.
func (h *Host) StartSSHD(ctx context.Context) (*Daemon, error) {
	d, err := h.startSSHD(ctx)
	if err != nil {
		return nil, fmt.Errorf("start sshd on %q: %w", h.Name, err)
	}
	return d, nil
}

func (h *Host) startSSHD(ctx context.Context) (*Daemon, error) {
	if _, err := os.Stat(h.Path(sshd)); err != nil {
		return nil, fmt.Errorf("%w: the lab lacks the packages %q", err, SSHPackages)
	}
	if err := h.AddSystemUser("sshd", sshdUID); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if _, err := h.hostKey(ctx); err != nil {
		return nil, err
	}
	if _, err := h.Run(ctx, "mkdir", "-p", "-m", "0755", "/run/sshd"); err != nil {
		return nil, err
	}
	const config = "/etc/ssh/netlab_sshd_config"
	if err := h.WriteFile(config, []byte(sshdConfig), 0o644, "root"); err != nil {
		return nil, err
	}
	d, err := h.Start(sshd, "-D", "-e", "-f", config)
	if err != nil {
		return nil, err
	}
	// One that refuses its configuration ends at once: then waiting longer is in vain.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := h.WaitListen(ctx, 22); err != nil {
		log, logErr := d.Log()
		return nil, errors.Join(fmt.Errorf("%w: %s", err, log), logErr)
	}
	return d, nil
}

// hostKey returns the public key of the host, made when first asked for.
func (h *Host) hostKey(ctx context.Context) (string, error) {
	return h.keyPair(ctx, "root", hostKey)
}

// keyPair returns the public key of a pair in file and file.pub, made if it is not there.
func (h *Host) keyPair(ctx context.Context, owner, file string) (string, error) {
	public, err := h.ReadFile(file + ".pub")
	if errors.Is(err, os.ErrNotExist) {
		if _, err = h.RunAs(ctx, owner, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", owner+"@"+h.Name, "-f", file); err == nil {
			public, err = h.ReadFile(file + ".pub")
		}
	}
	return string(bytes.TrimSpace(public)), err
}

// Trust lets a user, who is on both hosts, say "ssh to" on from without being asked for anything.
func (l *Lab) Trust(ctx context.Context, userName string, from, to *Host) error {
	if err := trust(ctx, userName, from, to); err != nil {
		return fmt.Errorf("let %q in from %q to %q: %w", userName, from.Name, to.Name, err)
	}
	return nil
}

func trust(ctx context.Context, userName string, from, to *Host) error {
	var dir [2]string
	for i, h := range []*Host{from, to} {
		u, err := h.user(userName)
		if err != nil {
			return err
		}
		dir[i] = path.Join(u.home, ".ssh")
		if _, err := h.RunAs(ctx, userName, "mkdir", "-p", "-m", "0700", dir[i]); err != nil {
			return err
		}
	}
	if err := from.WriteFile("/etc/ssh/ssh_config", []byte(sshConfig), 0o644, "root"); err != nil {
		return err
	}
	key, err := from.keyPair(ctx, userName, path.Join(dir[0], "id_ed25519"))
	if err != nil {
		return err
	}
	if err := to.addLine(path.Join(dir[1], "authorized_keys"), key, userName); err != nil {
		return err
	}
	known, err := to.hostKey(ctx)
	if err != nil {
		return err
	}
	names := to.Name
	for _, a := range to.Addrs {
		names += "," + a.Addr().String()
	}
	return from.addLine(path.Join(dir[0], "known_hosts"), names+" "+known, userName)
}

// addLine appends a line to a private file, unless the file has it.
func (h *Host) addLine(file, line, owner string) error {
	data, err := h.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if slices.Contains(strings.Split(string(data), "\n"), line) {
		return nil
	}
	return h.appendLine(file, line, 0o600, owner)
}
