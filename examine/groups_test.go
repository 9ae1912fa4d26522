package examine

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

func TestGroups(t *testing.T) {
	all := []string{"arguments", "cwd", "environment", "exe_hash", "files", "host", "login", "users"}
	// what says which groups a report has something of.
	what := func(r report.Report) []string {
		has := map[string]bool{"host": r.Host.Name != "" || r.Host.OS != "", "users": len(r.Users) > 0 || r.Connection.User != ""}
		for _, u := range r.Users {
			has["login"] = has["login"] || len(u.Logins) > 0
		}
		for _, p := range r.Previous {
			has["environment"] = has["environment"] || slices.Contains(p.Reasons, trace.ReasonSSHConnection)
		}
		for _, p := range r.Processes {
			has["arguments"] = has["arguments"] || len(p.Args) > 0
			has["cwd"] = has["cwd"] || p.CWD != ""
			has["exe_hash"] = has["exe_hash"] || p.ExeSHA256 != "" || p.ExeBuildID != ""
			has["login"] = has["login"] || p.Login != nil && p.Login.Source != host.LoginEnvironment
			has["environment"] = has["environment"] || p.Login != nil && p.Login.Source == host.LoginEnvironment
			has["environment"] = has["environment"] || p.Job != nil && (p.Job.Source == host.JobEnvironment || p.Job.SubmitHost != "" || p.Job.ClaimedID != "")
			has["users"] = has["users"] || p.RUser != "" || p.EUser != ""
			for _, d := range p.Descriptors {
				has["files"] = has["files"] || d.Kind == host.File
			}
		}
		var names []string
		for _, g := range all {
			if has[g] {
				names = append(names, g)
			}
		}
		return names
	}
	for _, c := range []struct {
		off    string
		change func(*Groups)
		also   []string // what is gone with it
	}{
		{"", func(*Groups) {}, nil},
		{"arguments", func(g *Groups) { g.Arguments = ArgumentsOff }, nil},
		{"host", func(g *Groups) { g.Host = false }, nil},
		{"cwd", func(g *Groups) { g.CWD = false }, nil},
		{"exe_hash", func(g *Groups) { g.ExeHash = false }, nil},
		{"login", func(g *Groups) { g.Login = false }, nil},
		{"files", func(g *Groups) { g.Files = false }, nil},
		{"users", func(g *Groups) { g.Users = false }, []string{"login"}}, // a login is some user's
		{"environment", func(g *Groups) { g.Environment = false }, nil},
	} {
		t.Run("no "+c.off, func(t *testing.T) {
			x, k := examiner(t)
			c.change(&x.Save)
			got, err := x.Examine(t.Context(), question(t, "968,23:SV_REC:7"))
			if err != nil {
				t.Fatal(err)
			}
			r, f := k.last(t, got.Token), k.found(t)
			var want, off []string
			for _, g := range all {
				if g == c.off {
					off = []string{g}
				} else if !slices.Contains(c.also, g) {
					want = append(want, g)
				}
			}
			if d := cmp.Diff(want, what(r)); d != "" {
				t.Errorf("saved is %s", d)
			}
			if d := cmp.Diff(off, r.Tool.GroupsOff, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("off is %s", d)
			}
			for _, p := range r.Processes {
				if p.Name == "telnet" && (p.Job == nil || p.Job.ID != "42") {
					t.Errorf("what the control group says of a job is lost: %+v", p.Job)
				}
			}
			// Whatever is saved, the previous host is asked.
			if len(f.Previous) == 0 || !f.Previous[0].Corroborated {
				t.Errorf("candidates are %v", f.Previous)
			}
			l, err := x.Look(t.Context(), question(t, "968,23:SV_REC:7"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(what(r), what(l)); d != "" {
				t.Errorf("explained is %s", d)
			}
		})
	}
	if off := (Groups{Arguments: ArgumentsOff}).off(); len(off) != len(all) {
		t.Errorf("there are groups beside %q", off)
	}
}

func TestArguments(t *testing.T) {
	for mode, want := range map[string][]string{
		ArgumentsFull:   {"telnet", "--password", "hunter2", "3.3.3.3"},
		ArgumentsRedact: {"telnet", "--password", masked, "3.3.3.3"},
		ArgumentsOff:    nil,
	} {
		x, k := examiner(t)
		x.Save.Arguments = mode
		got, err := x.Examine(t.Context(), question(t, "968,23:SV"))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, k.last(t, got.Token).Processes[0].Args, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", mode, d)
		}
	}
}
