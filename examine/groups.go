package examine

import (
	"slices"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// How arguments are saved.
const (
	ArgumentsOff    = "off"
	ArgumentsRedact = "redact" // likely secrets masked
	ArgumentsFull   = "full"
)

// Groups say what is saved (thesis section 3.1.2: "options for what user, application, and host data to
// save"). The zero Groups saves nothing that can be left out.
type Groups struct {
	Arguments   string
	Host        bool
	CWD         bool
	ExeHash     bool
	Login       bool
	Files       bool
	Users       bool
	Environment bool
}

// AllGroups saves everything, with secrets masked.
var AllGroups = Groups{Arguments: ArgumentsRedact, Host: true, CWD: true, ExeHash: true, Login: true, Files: true, Users: true, Environment: true}

// off names the groups that are not saved.
func (g Groups) off() []string {
	var off []string
	for _, x := range []struct {
		name string
		on   bool
	}{
		{"arguments", g.Arguments != ArgumentsOff}, {"host", g.Host}, {"cwd", g.CWD}, {"exe_hash", g.ExeHash},
		{"login", g.Login}, {"files", g.Files}, {"users", g.Users}, {"environment", g.Environment},
	} {
		if !x.on {
			off = append(off, x.name)
		}
	}
	return off
}

// apply leaves out of a report what is not to be saved. What a trace needs of it has been used by then.
func (g Groups) apply(r *report.Report) {
	if !g.Host {
		r.Host = host.Facts{}
	}
	if !g.Users {
		r.Users = nil
		if r.Connection != nil {
			r.Connection.User = ""
		}
	}
	if !g.Login {
		for i := range r.Users {
			r.Users[i].Logins = nil
		}
	}
	for i := range r.Processes {
		g.process(&r.Processes[i].Process)
	}
	r.Previous = g.previous(r.Previous)
}

// previous leaves out the reasons that are not to be saved, and candidates that have no other.
func (g Groups) previous(ps []trace.Previous) []trace.Previous {
	kept := ps[:0:0]
	for _, p := range ps {
		reasons := slices.DeleteFunc(slices.Clone(p.Reasons), func(reason string) bool {
			return reason == trace.ReasonSSHConnection && !(g.Login && g.Environment) || (reason == trace.ReasonUtmp || reason == trace.ReasonAuditSession) && !g.Login
		})
		if len(reasons) > 0 {
			p.Reasons = reasons
			kept = append(kept, p)
		}
	}
	return kept
}

func (g Groups) process(p *host.Process) {
	switch g.Arguments {
	case ArgumentsFull:
	case ArgumentsRedact:
		p.Args = redact(p.Args)
	default:
		p.Args = nil
	}
	if !g.CWD {
		p.CWD = ""
	}
	if !g.ExeHash {
		p.ExeSHA256, p.ExeBuildID = "", ""
	}
	if !g.Login || !g.Environment && p.Login != nil && p.Login.Source == host.LoginEnvironment {
		p.Login = nil
	}
	if !g.Environment && p.Job != nil {
		if p.Job.Source == host.JobCgroup {
			p.Job = &host.Job{ID: p.Job.ID, Source: p.Job.Source}
		} else {
			p.Job = nil
		}
	}
	if !g.Users {
		p.RUser, p.EUser = "", ""
	}
	if !g.Files {
		kept := p.Descriptors[:0:0]
		for _, d := range p.Descriptors {
			if d.Kind != host.File {
				kept = append(kept, d)
			}
		}
		p.Descriptors = kept
	}
}
