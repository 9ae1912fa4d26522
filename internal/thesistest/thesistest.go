// Package thesistest holds a system's host to the reports of the thesis's Appendix B: restated as what that system's kernel
// would write, and read by its real decoders, they give the golden reports of testdata/thesis.
package thesistest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A Restated is a report of the appendix as a host that a system's decoders read.
type Restated struct {
	Host host.Host
	// Objects are the names in the recording by those of the system.
	Objects map[host.Object]host.Object
	// Unsaid are the gaps about what the appendix does not say, and nobody restated.
	Unsaid []string
	// Untold takes out of a report what the system does not tell; nil is nothing.
	Untold func(*report.Report)
}

// Hints takes out of a report what is not told where directions are hints and logins are not read, but for the previous hosts.
func Hints(r *report.Report) {
	r.Host = host.Facts{}
	r.Connection.State, r.Connection.Direction, r.Connection.DirectionSource = "", "", ""
	for _, p := range r.Processes {
		for i := range p.Descriptors {
			d := &p.Descriptors[i]
			d.State, d.Direction, d.DirectionSource = "", "", ""
		}
	}
	for i := range r.Processes {
		r.Processes[i].TTY = ""
	}
	for i := range r.Users {
		r.Users[i].Logins = nil
	}
}

const dir = "../../testdata/thesis"

// Recording reads what the appendix says of the host; name is b1 or b2.
func Recording(t *testing.T, name string) host.Recording {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Check asks the golden report's question and compares the answer with it, octet by octet, but for what the system does not tell.
func Check(t *testing.T, name string, x Restated) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(dir, name+".report.json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	q := r.Request
	s, err := x.Host.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: q.Local, Remote: q.Remote})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := x.Host.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	facts, _ := x.Host.Facts(t.Context())
	found := trace.Run(t.Context(), snap, trace.Question{Socket: s, Host: facts, OnBehalf: q.OnBehalf}, trace.Defaults)
	facts.Arch, facts.Clock, facts.NetNS = "", nil, 0
	r.Host = facts
	c := *r.Connection
	c.Protocol, c.State, c.Direction, c.DirectionSource, c.UID, c.Object, c.Owners = s.Protocol, s.State, s.Direction, s.DirectionSource, s.UID, x.Objects[s.Object], found.Owners
	r.Connection = &c
	r.Processes, r.Channels, r.Previous, r.Users = found.Processes, found.Channels, found.Previous, found.Users
	r.Gaps = slices.DeleteFunc(found.Gaps, func(g host.Gap) bool { return slices.Contains(x.Unsaid, g.What) })
	for i := range r.Processes {
		x.leaveOut(&r.Processes[i].Process)
	}
	for i := range r.Channels {
		for j := range r.Channels[i].Ends {
			r.Channels[i].Ends[j].FDs, r.Channels[i].Ends[j].Mode = []int{}, ""
		}
	}
	if x.Untold != nil {
		golden, err := report.Decode(want)
		if err != nil {
			t.Fatal(err)
		}
		x.Untold(&golden)
		x.Untold(&r)
		want = report.Encode(golden)
	}
	if d := cmp.Diff(string(want), string(report.Encode(r))); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// leaveOut leaves out what the appendix does not say, and gives objects the names of the recording.
func (x Restated) leaveOut(p *host.Process) {
	p.StartTicks, p.Start, p.Args, p.CWD = 0, time.Time{}, nil, ""
	p.SUID, p.RGID, p.EGID, p.SGID, p.Nice, p.Session, p.PGRP = nil, nil, nil, nil, nil, nil, nil
	ds := slices.Clone(p.Descriptors)
	for i := range ds {
		d := &ds[i]
		d.FDs, d.Mode, d.Inode, d.Path = []int{}, "", 0, ""
		d.Object, d.Peer = x.Objects[d.Object], x.Objects[d.Peer]
	}
	p.Descriptors = ds
}
