package linux

import (
	"strings"
	"testing"
)

// What the engines make of a container's cgroup, by version 1 and 2 and by driver.
func TestContainerOf(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("f", 64)
	const pod = "0f2cb2e2_9a54_4a14_b9ee_7f0c2f4f1a11"
	for in, want := range map[string]string{
		"":  "",
		"/": "",
		"/user.slice/user-0.slice/session-1.scope": "",
		"/docker/" + id:                                                                                 id,
		"/system.slice/docker-" + id + ".scope":                                                         id,
		"/docker/" + id + "/system.slice/ssh.service":                                                   id,
		"/machine.slice/libpod-" + id + ".scope":                                                        id,
		"/machine.slice/libpod-" + id + ".scope/container":                                              id,
		"/libpod_parent/libpod-" + id:                                                                   id,
		"/machine.slice/libpod-conmon-" + id + ".scope":                                                 "",
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope":              id,
		"/system.slice/containerd.service/kubepods-burstable-pod" + pod + ".slice:cri-containerd:" + id: id,
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + pod + ".slice/cri-containerd-" + id + ".scope": id,
		"/kubepods.slice/kubepods-pod" + pod + ".slice/crio-" + id + ".scope":                                                id,
		"/kubepods.slice/kubepods-pod" + pod + ".slice/crio-conmon-" + id + ".scope":                                         "",
		"/kubepods/burstable/pod" + pod + "/" + id:                                                                           id,
		"/default/" + id:      id, // containerd's own client
		"/lxc/web":            "web",
		"/lxc/web/init.scope": "web",
		"/lxc.payload.web":    "web",
		"/lxc.payload.web/system.slice/ssh.service":           "web",
		"/lxc.monitor.web":                                    "",
		"/lxc.payload.web/docker/" + id:                       id,
		"/machine.slice/machine-web.scope":                    "web",
		"/machine.slice/machine-web.scope/payload/init.scope": "web",
		`/machine.slice/machine-my\\x2dweb.scope`:             "my-web",
		"/machine.slice/systemd-nspawn@web.service/payload":   "web",
		"/machine/vm.libvirt-lxc":                             "vm",
		"/system.slice/machine-learning.service":              "",
		"/docker/" + id + "0":                                 "",
		"/docker/" + id[1:]:                                   "",
		"/" + strings.ToUpper(id):                             "",
		"/a/" + id + "/b/" + other:                            other, // a container within a container
		"/lxc":                                                "",
		"/lxc/":                                               "",
		"/machine-.scope":                                     "",
		`/machine-\\x.scope`:                                  `\\x`,
	} {
		if got := containerOf(in); got != want {
			t.Errorf("containerOf(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzContainerOf(f *testing.F) {
	f.Add("/lxc/a/machine-b.scope/docker-" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, path string) {
		if name := containerOf(path); strings.Contains(name, "/") && !strings.Contains(path, `\\x2f`) {
			t.Errorf("container %q of %q", name, path)
		}
	})
}
