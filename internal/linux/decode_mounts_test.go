package linux

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mounts = `22 26 0:5 / /dev rw,nosuid shared:2 - devtmpfs devtmpfs rw,size=8130028k
61 26 0:50 / /mnt/a\040b rw,relatime shared:30 - nfs4 files:/export rw,vers=4.2,port=0,clientaddr=192.0.2.2,local_lock=none,addr=192.0.2.9
62 26 0:51 / /six rw - nfs [2001:db8::9]:/export rw,addr=2001:db8::9,mountaddr=2001:db8::10
63 26 0:52 / /share rw - cifs //files/share rw,username=x,addr=192.0.2.10
64 26 0:53 / /ceph rw - ceph 192.0.2.11:6789,[2001:db8::11]:6789:/ rw,name=x
65 26 0:54 / /nine rw - 9p 192.0.2.12 rw,trans=tcp
66 26 0:55 / /user rw - fuse.sshfs 192.0.2.13:/ rw
67 26 8:1 / / rw - ext4 /dev/sda1 rw
68 26 0:1 /
`

func TestParseMounts(t *testing.T) {
	a := netip.MustParseAddr
	want := []mount{{"nfs4", `/mnt/a\040b`, []netip.Addr{a("192.0.2.9")}},
		{"nfs", "/six", []netip.Addr{a("2001:db8::9"), a("2001:db8::9")}},
		{"cifs", "/share", []netip.Addr{a("192.0.2.10")}},
		{"ceph", "/ceph", []netip.Addr{a("192.0.2.11"), a("2001:db8::11")}},
		{"9p", "/nine", []netip.Addr{a("192.0.2.12")}}}
	if d := cmp.Diff(want, parseMounts([]byte(mounts)), cmp.AllowUnexported(mount{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte(mounts))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMounts(b) {
			if len(m.from) == 0 || m.kind == "" || m.at == "" {
				t.Errorf("%+v", m)
			}
		}
	})
}
