package examine

import (
	"regexp"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
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
	Arguments string
	Host      bool
	CWD       bool
	ExeHash   bool
	Login     bool
	Files     bool
	Users     bool
	Environ   bool
}

// AllGroups saves everything, with secrets masked.
var AllGroups = Groups{Arguments: ArgumentsRedact, Host: true, CWD: true, ExeHash: true, Login: true, Files: true, Users: true, Environ: true}

// Off names the groups that are not saved.
func (g Groups) Off() []string {
	var off []string
	for _, x := range []struct {
		name string
		on   bool
	}{
		{"arguments", g.Arguments != ArgumentsOff}, {"host", g.Host}, {"cwd", g.CWD}, {"exe_hash", g.ExeHash},
		{"login", g.Login}, {"files", g.Files}, {"users", g.Users}, {"environment", g.Environ},
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
	for i := range r.Processes {
		g.process(&r.Processes[i].Process)
	}
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
	if !g.Login || !g.Environ && p.Login != nil && p.Login.Source == host.LoginEnvironment {
		p.Login = nil
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

// masked stands for what was left out of an argument.
const masked = "[masked]"

var (
	// secretName is what options that carry secrets are called.
	secretName = regexp.MustCompile(`(?i)(pass(w(or)?d|phrase)?|secret|token|api[-_]?key|credential|auth)`)
	// userInfo is a password in a URL.
	userInfo = regexp.MustCompile(`(://[^/@:\s]*:)[^/@\s]+@`)
	// keyPrefix begins well-known kinds of keys.
	keyPrefix = regexp.MustCompile(`^(AKIA|ASIA|ghp_|gho_|github_pat_|glpat-|xox[abp]-|sk-|eyJ|AGE-SECRET-KEY-)`)
)

// redact masks what is likely a secret: the value of an option that is named like one, a password in a
// URL, a well-known kind of key, and mysql's -pPASSWORD. It leaves the rest as it is.
func redact(args []string) []string {
	out := make([]string, len(args))
	next := false
	for i, a := range args {
		out[i] = a
		name, value, assigned := strings.Cut(a, "=")
		switch {
		case i == 0:
		case next && !strings.HasPrefix(a, "-"):
			out[i] = masked
		case assigned && value != "" && secretName.MatchString(name) && !strings.Contains(name, "/"):
			out[i] = name + "=" + masked
		case keyPrefix.MatchString(a) && len(a) > 16:
			out[i] = masked
		case strings.HasPrefix(a, "-p") && len(a) > 3 && strings.HasPrefix(args[0], "mysql"):
			out[i] = "-p" + masked
		default:
			out[i] = userInfo.ReplaceAllString(a, "${1}"+masked+"@")
		}
		next = i > 0 && strings.HasPrefix(a, "-") && !assigned && secretName.MatchString(a)
	}
	return out
}
