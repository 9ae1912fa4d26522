package linux

import (
	"bytes"
	"regexp"
)

// jobGroups are the control groups that batch systems make for a job, from the root of the hierarchy: a user can
// make groups with such names only further below. Slurm: src/plugins/cgroup, "slurm" or "slurm_NODE" in version 1 and
// "[NODE_]slurmstepd.scope" in version 2. PBS: src/hooks/cgroups/pbs_cgroups.PY.
var jobGroups = []*regexp.Regexp{
	regexp.MustCompile(`^/slurm(?:_[^/]+)?/uid_\d+/job_(\d+)(?:/|$)`),
	regexp.MustCompile(`^/system\.slice/(?:[^/]+_)?slurmstepd\.scope/job_(\d+)(?:/|$)`),
	regexp.MustCompile(`^/(?:system\.slice/)?pbs(?:pro|_jobs)\.service/(?:jobid|jobs)/([^/]+)(?:/|$)`),
}

// jobOfCgroup finds the batch job in /proc/PID/cgroup, in whichever hierarchy; empty is none.
func jobOfCgroup(b []byte) string {
	for line := range bytes.Lines(b) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3)
		if len(f) != 3 {
			continue
		}
		for _, re := range jobGroups {
			if m := re.FindSubmatch(f[2]); m != nil {
				return text(m[1])
			}
		}
	}
	return ""
}
