package linux

import (
	"strings"
	"testing"
)

func TestJobOfCgroup(t *testing.T) {
	for cgroup, want := range map[string]string{
		"": "",
		"0::/system.slice/slurmstepd.scope/job_42/step_extern/user/task_0\n":                       "42",
		"0::/system.slice/n1_slurmstepd.scope/job_42\n":                                            "42",
		"0::/system.slice/slurmstepd.scope/system\n":                                               "",
		"5:name=systemd:/system.slice/slurmd.service\n4:freezer:/slurm/uid_1001/job_42/step_0\n":   "42",
		"4:cpuset:/slurm_n1/uid_1001/job_42/step_0\n0::/\n":                                        "42",
		"4:memory:/pbs_jobs.service/jobid/12345.server\n":                                          "12345.server",
		"0::/pbs_jobs.service/jobs/12345.server\n":                                                 "12345.server",
		"4:memory:/pbspro.service/jobid/12345[7].server\n":                                         "12345[7].server",
		"0::/user.slice/user-1001.slice/user@1001.service/slurm/uid_1001/job_42\n":                 "",
		"0::/user.slice/user-1001.slice/user@1001.service/system.slice/slurmstepd.scope/job_42/\n": "",
		"0::/slurm/uid_x/job_42\n":                                                                 "",
		"nonsense\n":                                                                               "",
	} {
		if got := jobOfCgroup([]byte(cgroup)); got != want {
			t.Errorf("%q: job %q, want %q", cgroup, got, want)
		}
	}
}

func FuzzJobOfCgroup(f *testing.F) {
	f.Add([]byte("0::/system.slice/slurmstepd.scope/job_42/step_0\n"))
	f.Add([]byte("4:memory:/pbspro.service/jobid/1.s\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := jobOfCgroup(b); strings.ContainsAny(id, "/\n") {
			t.Errorf("%q", id)
		}
	})
}
