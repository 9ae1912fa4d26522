package openbsd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
)

// errUnrecorded is what the recording has nothing of.
var errUnrecorded = errors.New("not recorded")

// recorded is the host that root, or a user, saw on OpenBSD 7.3: testdata/README.md.
func recorded(t testing.TB, who string) *Host {
	t.Helper()
	return hostOf(read(t, who+".kern.file.bin"), read(t, who+".kern.proc.bin"))
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "openbsd-7.3", "openbsd73."+name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hostOf makes a host of what kern.file and kern.proc give, and of other values by their names.
func hostOf(files, procs []byte, more ...value) *Host {
	values := map[string][]byte{
		fmt.Sprint(mibFiles): files, fmt.Sprint(mibProcs): procs, fmt.Sprint(mibSockets): loose(files),
		fmt.Sprint(mibHostName): []byte("stopvm\x00"), fmt.Sprint(mibOS): []byte("OpenBSD\x00"), fmt.Sprint(mibRelease): []byte("7.3\x00"),
		fmt.Sprint(mibVersion):  []byte("OpenBSD 7.3-stable (STOPVM) #0: Sun Nov 22 23:47:48 UTC 2026\n    @vm:STOPVM\n\x00"),
		fmt.Sprint(mibMachine):  []byte("amd64\x00"),
		fmt.Sprint(mibBootTime): {154, 131, 3, 107, 0, 0, 0, 0, 109, 53, 14, 0, 0, 0, 0, 0},
	}
	for b := procs; len(b) >= procSize; b = b[procSize:] {
		values[fmt.Sprint(mibProcess(parseProc(b[:procSize]).pid))] = b[:procSize]
	}
	for _, v := range more {
		values[fmt.Sprint(v.mib)] = v.is
	}
	return newHost(kernel{
		sysctl: func(mib []int32) ([]byte, error) {
			if b, ok := values[fmt.Sprint(mib)]; ok || strings.HasPrefix(fmt.Sprint(mib), "[1 66 1 ") { // who is not there has no record
				return b, nil
			}
			return nil, errUnrecorded
		},
		addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil },
		tail:      func(string, int, int) ([]byte, bool, error) { return nil, false, os.ErrNotExist },
		devices:   func() map[uint32]string { return map[uint32]string{0: "/dev/console", 0x202: "/dev/null"} },
		pid:       91072,
	})
}

// A value is one of sysctl(2).
type value struct {
	mib []int32
	is  []byte
}

// loose lists sockets as the kernel does of its own tables: without an open file and without a process. One more is in
// TIME-WAIT, which nobody holds.
func loose(files []byte) (out []byte) {
	for b := files; len(b) >= fileSize; b = b[fileSize:] {
		if f := parseFile(b[:fileSize]); f.kind == typeSocket && f.socket.protocol() != "" {
			out = append(out, unheld(b[:fileSize])...)
		}
	}
	if len(out) > 0 {
		closed := make([]byte, fileSize)
		copy(closed, out)
		binary.LittleEndian.PutUint32(closed[tcpState:], 10)
		binary.BigEndian.PutUint16(closed[inpFPort:], 46070)
		out = append(out, closed...)
	}
	return out
}

func unheld(b []byte) []byte {
	r := make([]byte, fileSize)
	copy(r[sockType:], b[sockType:unpPath])
	copy(r[inpProto:], b[inpProto:])
	clear(r[filePID : fileComm+24])
	binary.LittleEndian.PutUint32(r[fileType:], typeSocket)
	return r
}

func flow(kind host.Kind, local, remote string) host.Flow {
	return host.Flow{Protocol: kind, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}
