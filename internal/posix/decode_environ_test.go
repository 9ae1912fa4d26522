package posix

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

func TestParseEnviron(t *testing.T) {
	login := &host.Login{Source: host.LoginEnvironment, Remote: netip.MustParseAddrPort("192.0.2.1:40000"), Local: netip.MustParseAddrPort("198.51.100.2:22")}
	client := &host.Login{Source: host.LoginEnvironment, Remote: netip.MustParseAddrPort("192.0.2.1:40000")}
	tests := []struct {
		environ []string
		login   *host.Login
		job     host.Job
	}{
		{nil, nil, host.Job{}},
		{[]string{"HOME=/", "X_SSH_CONNECTION=192.0.2.1 40000 198.51.100.2 22", "SLURM_JOB_IDS=1", "="}, nil, host.Job{}},
		{[]string{"SSH_CONNECTION=192.0.2.1 40000 198.51.100.2 22"}, login, host.Job{}},
		{[]string{"SSH_CONNECTION=192.0.2.1 40000 198.51.100.2 22", "SSH_CLIENT=192.0.2.9 1 22"}, login, host.Job{}},
		{[]string{"SSH_CLIENT=192.0.2.1 40000 22"}, client, host.Job{}},
		{[]string{"SSH_CONNECTION=nonsense", "SSH_CLIENT=::ffff:192.0.2.1 40000 22"}, client, host.Job{}},
		{[]string{"SSH_CLIENT=192.0.2.1 40000"}, nil, host.Job{}},
		{[]string{"SSH_CLIENT=192.0.2.1 0 22"}, nil, host.Job{}},
		{[]string{"SLURM_SUBMIT_HOST=login1", "SLURM_JOB_ID=4711"}, nil, host.Job{ID: "4711", SubmitHost: "login1"}},
		{[]string{"PBS_JOBID=12.server"}, nil, host.Job{ID: "12.server"}},
	}
	for _, tt := range tests {
		login, job := ParseEnviron(tt.environ)
		if d := cmp.Diff(tt.login, login, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%q: login (-want +got):\n%s", tt.environ, d)
		}
		if d := cmp.Diff(tt.job, job); d != "" {
			t.Errorf("%q: job (-want +got):\n%s", tt.environ, d)
		}
	}
}

func TestParseSSHConnection(t *testing.T) {
	ap := netip.MustParseAddrPort
	for in, want := range map[string]*host.Login{
		"192.0.2.1 40000 198.51.100.2 22":     {Source: host.LoginEnvironment, Remote: ap("192.0.2.1:40000"), Local: ap("198.51.100.2:22")},
		"2001:db8::1 40000 2001:db8::2 22":    {Source: host.LoginEnvironment, Remote: ap("[2001:db8::1]:40000"), Local: ap("[2001:db8::2]:22")},
		"::ffff:192.0.2.1 1 ::ffff:0.0.0.1 2": {Source: host.LoginEnvironment, Remote: ap("192.0.2.1:1"), Local: ap("0.0.0.1:2")},
		"fe80::1%eth0 1 fe80::2%eth0 2":       {Source: host.LoginEnvironment, Remote: ap("[fe80::1%eth0]:1"), Local: ap("[fe80::2%eth0]:2")},
		"":                                    nil,
		"192.0.2.1 40000 198.51.100.2":        nil,
		"192.0.2.1 40000 198.51.100.2 22 x":   nil,
		"192.0.2.1 0 198.51.100.2 22":         nil,
		"192.0.2.1 65536 198.51.100.2 22":     nil,
		"192.0.2.1 -1 198.51.100.2 22":        nil,
		"a.example 40000 198.51.100.2 22":     nil,
		"UNKNOWN 65535 UNKNOWN 65535":         nil,
	} {
		got := parseSSHConnection(in)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

// FuzzParseSSHConnection: whoever runs the process wrote it, and it goes into reports and recordings.
func FuzzParseSSHConnection(f *testing.F) {
	f.Add("192.0.2.1 40000 198.51.100.2 22")
	f.Add("fe80::1%a]b 1 fe80::1%: 2")
	f.Fuzz(func(t *testing.T, v string) {
		l := parseSSHConnection(Text([]byte(v)))
		if l == nil {
			return
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back host.Login
		if err := json.Unmarshal(b, &back); err != nil || back != *l {
			t.Errorf("%q: %s gave %+v, %v; want %+v", v, b, back, err, *l)
		}
	})
}

func TestJobOf(t *testing.T) {
	for _, tt := range []struct {
		cgroup  string
		environ host.Job
		want    *host.Job
	}{
		{"", host.Job{}, nil},
		{"42", host.Job{}, &host.Job{ID: "42", Source: host.JobCgroup}},
		{"", host.Job{ID: "43", SubmitHost: "login1"}, &host.Job{ID: "43", SubmitHost: "login1", Source: host.JobEnvironment}},
		{"42", host.Job{ID: "42", SubmitHost: "login1"}, &host.Job{ID: "42", SubmitHost: "login1", Source: host.JobCgroup}},
		{"42", host.Job{ID: "43", SubmitHost: "login1"}, &host.Job{ID: "42", SubmitHost: "login1", Source: host.JobCgroup, ClaimedID: "43"}},
	} {
		if d := cmp.Diff(tt.want, JobOf(tt.cgroup, tt.environ)); d != "" {
			t.Errorf("%q and %+v (-want +got):\n%s", tt.cgroup, tt.environ, d)
		}
	}
}
