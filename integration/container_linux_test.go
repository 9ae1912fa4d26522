package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// With nothing but the programs, what deploy/kubernetes/stopd.yaml mounts and the capabilities that it adds, the daemon sees a
// connection of the host's, who holds it and who feeds him, by all the ways that it has.
func TestContainerImage(t *testing.T) {
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	lab, err := netlab.New(ctx, packages...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := lab.AddHost(ctx, "k", netip.MustParsePrefix("192.0.2.1/24"))
	must(err)
	must(h.AddUser("mallory", 1001))
	manifest, err := os.ReadFile("../deploy/kubernetes/stopd.yaml")
	must(err)
	_, text, _ := strings.Cut(string(manifest), "\n      containers:\n")
	add, _, _ := strings.Cut(text, "\n          ports:\n")
	var capabilities, mounts []string
	for _, m := range regexp.MustCompile(`(?m)^                - ([A-Z_]+)$`).FindAllStringSubmatch(add, -1) {
		capabilities = append(capabilities, "+"+strings.ToLower(m[1]))
	}
	for _, m := range regexp.MustCompile(`mountPath: (\S+?), readOnly: true`).FindAllStringSubmatch(text, -1) {
		mounts = append(mounts, m[1])
	}
	if len(capabilities) < 10 || len(mounts) != 3 {
		t.Fatalf("capabilities %q, mounts %q", capabilities, mounts)
	}
	// The image: linked statically, since nothing else is there.
	image := t.TempDir()
	must(buildStatic(ctx, image))
	for _, f := range []string{"sbin/stopd", "bin/stopctl"} {
		must(h.Install(filepath.Join(image, filepath.Base(f)), "/image/usr/"+f))
		must(h.Install(filepath.Join(image, filepath.Base(f)), "/usr/local/"+f))
	}
	sh := func(line string) string {
		t.Helper()
		out, err := h.Run(ctx, "sh", "-e", "-c", line)
		must(err)
		return string(out)
	}
	sh("mkdir -p /etc/stopd /store && age-keygen -o /root/admin.key && echo \"recipients = [\\\"$(age-keygen -y /root/admin.key)\\\"]\" >/etc/stopd/stopd.toml")
	// As a runtime does: a root of its own which cannot be written, and no privilege but those.
	inside := "cd /image && mkdir -p proc sys dev etc/stopd var/lib/stopd var/log run tmp && mount --rbind /image /image && cd /image && mount --rbind /proc proc && mount --rbind /sys sys && " +
		"mount --rbind /dev dev && mount --bind /store var/lib/stopd && mount -t tmpfs tmp tmp && for m in " + strings.Join(mounts, " ") + "; do mount --rbind $m .$m && mount -o remount,bind,ro .$m; done && " +
		"mount -o remount,bind,ro /image && exec setpriv --no-new-privs --bounding-set=-all," + strings.Join(capabilities, ",") + " --inh-caps=-all chroot /image "
	must(h.WriteFile("/root/inside", []byte("#!/bin/sh\nset -e\n"+inside+"\"$@\"\n"), 0o755, "root"))
	const config = "/etc/stopd/stopd.toml"
	sh("unshare -m /root/inside /usr/bin/stopctl init -config " + config)
	sh("unshare -m /root/inside /usr/bin/stopctl init -config " + config) // each start says so
	if check := sh("unshare -m /root/inside /usr/sbin/stopd -check -config " + config); regexp.MustCompile(`(?m): no\b`).MatchString(check) {
		t.Errorf("something is not seen:\n%s", check)
	}
	d, err := h.Start("unshare", "-m", "/root/inside", "/usr/sbin/stopd", "-config", config)
	must(err)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := d.Log()
			t.Log(log)
		}
	})
	must(h.WaitListen(ctx, 113))
	_, err = h.StartAs("mallory", "nc.traditional", "-l", "-p", "7000")
	must(err)
	must(h.WaitListen(ctx, 7000))
	_, err = h.StartAs("mallory", "sh", "-c", "sleep 1000 | nc.traditional 192.0.2.1 7000")
	must(err)
	var out connection
	must(netlab.WaitFor(ctx, func() (bool, error) {
		cs, err := connections(ctx, h)
		for _, c := range cs {
			if c.remote.Port() == 7000 {
				out = c
			}
		}
		return out.local.IsValid(), err
	}))
	var r report.Redeemed
	must(netlab.WaitFor(ctx, func() (bool, error) { // the daemon has just started: it may not see by BPF yet
		token := sh("stopctl request -type SV 192.0.2.1 " + strconv.Itoa(int(out.local.Port())) + " 7000")
		sh("unshare -m /root/inside /usr/bin/stopctl export -by me -reason why -config " + config + " " + strings.TrimSpace(token) + " >/root/sealed")
		var err error
		r, _, err = report.DecodeRedeemed([]byte(sh("stopctl redeem -identity /root/admin.key /root/sealed")))
		return slices.Contains(r.Report.Tool.Sources, "bpf"), err
	}))
	names := map[string]bool{}
	for _, p := range r.Report.Processes {
		names[p.Name] = true
	}
	if !names["nc.traditional"] || !names["sleep"] {
		t.Errorf("the report has %v, not who holds the connection and who writes to him", names)
	}
}

// buildStatic makes the programs as they are in an image.
func buildStatic(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", dir, "../cmd/stopd", "../cmd/stopctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=runtimesecret")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w: %s", err, out)
	}
	return nil
}
