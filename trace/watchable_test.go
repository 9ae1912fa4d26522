package trace

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// What can be watched is bounded, and who is no candidate because of the number of hosts can be told of all the same.
func TestWatchable(t *testing.T) {
	proxy := func(n int, format string, more ...host.Descriptor) host.Process {
		p := process(60, 1, append(more, listen(80), asked())...)
		for i := range n {
			d := number(10+i, in(80, fmt.Sprintf(format, i+1)))
			d.Inode = uint64(100 + i)
			p.Descriptors = append(p.Descriptors, d)
		}
		return as(33, p)
	}
	opened := out(40001, victim.String(), "another")
	opened.Inode = 7
	type counts struct{ Candidates, Crowd int }
	for name, tt := range map[string]struct {
		ps   []host.Process
		want counts
		ok   bool
	}{
		"one":                {[]host.Process{proxy(1, "203.0.113.%d:4000")}, counts{1, 0}, false},
		"few":                {[]host.Process{proxy(3, "203.0.113.%d:4000")}, counts{3, 0}, true},
		"what it opened":     {[]host.Process{proxy(1, "203.0.113.%d:4000", opened)}, counts{1, 0}, false},
		"too many hosts":     {[]host.Process{proxy(Defaults.Hub+1, "203.0.113.%d:4000")}, counts{0, Defaults.Hub + 1}, true},
		"many of one host":   {[]host.Process{proxy(maxCandidates+2, "203.0.113.5:%d")}, counts{maxCandidates, 2}, true},
		"far too many hosts": {[]host.Process{proxy(maxCrowd+1, "[2001:db8:0:%x::5]:4000")}, counts{0, 0}, false},
		"two hold it":        {[]host.Process{proxy(3, "203.0.113.%d:4000"), as(33, process(61, 60, asked()))}, counts{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, recording(append([]host.Process{initProcess}, tt.ps...)...))
			w, ok := r.Watchable(question().Socket)
			if d := cmp.Diff(tt.want, counts{len(w.Candidates), len(w.Crowd)}); d != "" || ok != tt.ok {
				t.Errorf("watchable: %v (-want +got):\n%s", ok, d)
			}
		})
	}
}

// What a person's process shows that person may have made up, whoever has started it.
func TestService(t *testing.T) {
	for name, tt := range map[string]struct {
		ruid, euid uint32
		login      *uint32
		want       bool
	}{
		"root":                    {0, 0, nil, true},
		"a daemon's user":         {33, 33, nil, true},
		"a person's, of no login": {1001, 1001, nil, false},
		"a person's, set-user-ID": {1001, 0, nil, false},
		"root, acts for a person": {0, 1001, nil, false},
		"root, of a login":        {0, 0, new(uint32(1001)), false},
	} {
		if got := service(host.Process{RUID: new(tt.ruid), EUID: new(tt.euid), LoginUID: tt.login}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if service(host.Process{}) {
		t.Error("whose user is not known")
	}
}
