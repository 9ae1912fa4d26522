package posix

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
)

// ParseEnviron reads what the environment says of a process's login (ssh(1)) and of the batch job that it belongs
// to (Slurm's sbatch(1), PBS's qsub(1)). Whoever runs the process may have written it.
func ParseEnviron(environ []string) (*host.Login, host.Job) {
	var connection, client *host.Login
	var job host.Job
	for _, e := range environ {
		switch name, value, _ := strings.Cut(e, "="); name {
		case "SSH_CONNECTION":
			connection = parseSSHConnection(value)
		case "SSH_CLIENT":
			client = parseSSHClient(value)
		case "SLURM_JOB_ID", "PBS_JOBID":
			job.ID = value
		case "SLURM_SUBMIT_HOST", "PBS_O_HOST":
			job.SubmitHost = value
		}
	}
	if connection == nil {
		connection = client
	}
	return connection, job
}

// parseSSHClient reads the value of SSH_CLIENT, which sshd sets beside SSH_CONNECTION: client address and port, and
// the server's port. It is nil for anything else.
func parseSSHClient(v string) *host.Login {
	f := strings.Fields(v)
	if len(f) != 3 {
		return nil
	}
	remote, ok := parseEnd(f[0], f[1])
	if _, err := strconv.ParseUint(f[2], 10, 16); !ok || err != nil {
		return nil
	}
	return &host.Login{Source: host.LoginEnvironment, Remote: remote}
}

// parseEnd reads an address and a port.
func parseEnd(addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	p, err2 := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), err == nil && err2 == nil && p > 0
}

// parseSSHConnection reads the value of SSH_CONNECTION (ssh(1)): client address and port, server address
// and port. A zero login is returned for anything else: whoever runs the process may have written it.
func parseSSHConnection(v string) *host.Login {
	f := strings.Fields(v)
	if len(f) != 4 {
		return nil
	}
	remote, ok := parseEnd(f[0], f[1])
	local, ok2 := parseEnd(f[2], f[3])
	if !ok || !ok2 {
		return nil
	}
	return &host.Login{Source: host.LoginEnvironment, Remote: remote, Local: local}
}

// JobOf is what control group and environment say together of a job; nil where neither does.
func JobOf(cgroup string, environ host.Job) *host.Job {
	j := environ
	switch {
	case cgroup != "":
		j.ID, j.Source = cgroup, host.JobCgroup
		if environ.ID != cgroup {
			j.ClaimedID = environ.ID
		}
	case environ != (host.Job{}):
		j.Source = host.JobEnvironment
	default:
		return nil
	}
	return &j
}

// ParseAddress reads an address where the host's name should be: programs write one where they did not look for
// a name. It is invalid for anything else.
func ParseAddress(s string) netip.Addr {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil || a.IsUnspecified() || strings.ContainsFunc(a.Zone(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return netip.Addr{}
	}
	return a.Unmap()
}
