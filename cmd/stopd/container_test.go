package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// A manifest is what is asked of one of Kubernetes, in the names of its API.
type manifest struct {
	Kind string
	Data map[string]string // of a ConfigMap
	Spec struct {
		Template struct {
			Spec struct {
				HostNetwork, HostPID          bool
				TerminationGracePeriodSeconds int
				InitContainers, Containers    []container
				Volumes                       []struct {
					Name     string
					HostPath struct{ Path string }
				}
			}
		}
	}
}

type container struct {
	Command         []string
	SecurityContext struct {
		Privileged, AllowPrivilegeEscalation, ReadOnlyRootFilesystem bool
		RunAsUser                                                    int
		Capabilities                                                 struct{ Add, Drop []string }
	}
	VolumeMounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
}

func readManifests(t *testing.T) map[string]manifest {
	t.Helper()
	b, err := os.ReadFile("../../deploy/kubernetes/stopd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]manifest{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var document any
		if err := d.Decode(&document); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(document) // which knows names in whatever case, as Kubernetes' own reader
		if err != nil {
			t.Fatal(err)
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		found[m.Kind] = m
	}
}

// A container has the capabilities of the unit, and that to open the port, which systemd does there.
func TestManifest(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/stopd.service")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"NET_BIND_SERVICE"}
	for _, m := range regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindAllStringSubmatch(string(unit), -1) {
		for name := range strings.FieldsSeq(m[1]) {
			want = append(want, strings.TrimPrefix(name, "CAP_"))
		}
	}
	slices.Sort(want)
	all := readManifests(t)
	if all["Namespace"].Kind == "" || !strings.Contains(all["ConfigMap"].Data["stopd.toml"], "recipients") {
		t.Errorf("no namespace or no configuration: %+v", all)
	}
	spec := all["DaemonSet"].Spec.Template.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 1 {
		t.Fatalf("%d containers and %d before them", len(spec.Containers), len(spec.InitContainers))
	}
	c, first := spec.Containers[0], spec.InitContainers[0]
	got := slices.Sorted(slices.Values(c.SecurityContext.Capabilities.Add))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("capabilities of the unit (-) and of the manifest (+):\n%s", d)
	}
	if !spec.HostNetwork || !spec.HostPID {
		t.Error("it sees neither the node's connections nor its processes")
	}
	if m := regexp.MustCompile(`(?m)^TimeoutStopSec=60$`); !m.Match(unit) || spec.TerminationGracePeriodSeconds != 60 {
		t.Error("the unit and the manifest give it another time to end")
	}
	for _, c := range []container{c, first} {
		s := c.SecurityContext
		if s.Privileged || s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || s.RunAsUser != 0 || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%q: %+v", c.Command, s)
		}
		volumes := map[string]bool{}
		for _, v := range c.VolumeMounts {
			volumes[v.MountPath] = true
			if v.ReadOnly == (v.MountPath == "/var/lib/stopd" || v.MountPath == "/tmp") {
				t.Errorf("%q: %s is read-only: %t", c.Command, v.MountPath, v.ReadOnly)
			}
		}
		if !volumes["/etc/stopd"] || !volumes["/var/lib/stopd"] {
			t.Errorf("%q has %v", c.Command, volumes)
		}
	}
	recipe, err := os.ReadFile("../../deploy/container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	entry := `ENTRYPOINT ["` + c.Command[0] + "\"]\nCMD [\"" + strings.Join(c.Command[1:], `", "`) + "\"]\n"
	for _, want := range []string{"\nFROM scratch\n", " " + c.Command[0] + "\n", " " + first.Command[0] + "\n", entry} {
		if !strings.Contains(string(recipe), want) {
			t.Errorf("the recipe has no %q", want)
		}
	}
	if !strings.Contains(string(unit), "ExecStart=/usr/local"+strings.Replace(strings.Join(c.Command, " "), "/usr", "", 1)+"\n") {
		t.Errorf("the unit starts it otherwise than %q", c.Command)
	}
}
