package netlab

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPackages(t *testing.T) {
	ctx, _, hosts := newLab(t, 1, "netcat-traditional", "telnet")
	dir, err := Packages(ctx, "telnet", "netcat-traditional", "telnet")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hosts[0].lab.layer, dir; got != want {
		t.Errorf("the same packages in two directories, %q and %q", got, want)
	}
	// As a directory it would hide all of the machine's /bin.
	info, err := os.Lstat(filepath.Join(dir, "bin"))
	if err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("bin of the packages: %v, %v; want a symbolic link", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/share/doc/netcat-traditional")); !os.IsNotExist(err) {
		t.Errorf("documentation is unpacked: %v", err)
	}
	if out, err := hosts[0].Run(ctx, "sh", "-c", "command -v nc.traditional && command -v ls"); err != nil {
		t.Errorf("programs in host: %q, %v", out, err)
	}
	var left []string
	err = WaitFor(ctx, func() (bool, error) { // other processes fetch packages as well
		var err error
		left, err = filepath.Glob(filepath.Join(filepath.Dir(dir), "new-*"))
		return len(left) == 0, err
	})
	if err != nil {
		t.Errorf("temporary directories stay: %q, %v", left, err)
	}
}

func TestListeningPorts(t *testing.T) {
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:1F90 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 8 1 0 20 4 1 10 -1\n" +
		"   2: 00000000000000000000000000000000:0071 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9\n" +
		"   3: cut"
	got := listeningPorts([]byte(table))
	if len(got) != 2 || got[0] != 22 || got[1] != 113 {
		t.Errorf("listeningPorts: %v, want [22 113]", got)
	}
}
