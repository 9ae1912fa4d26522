package linux

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/posix"
)

// statLine makes a line of /proc/PID/stat of a process with a name; "" stands for the end of the line after
// the name.
func statLine(name string) string {
	return "812 (" + name + ") S 811 812 800 34816 812 4194304 1 0 0 0 3 4 0 0 20 -5 1 0 123456 4096000 200 " +
		"18446744073709551615 1 2 140722222222222 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 3 4 5 100 150 150 450 0\n"
}

func TestParseStat(t *testing.T) {
	for _, name := range []string{"bash", "", "a b", ") R 1 1 1 1", "a) R 1\n(b", "1 (a)", "((((((((((((((", "))))))))))))))))", "()()()()()()()(", " ", "\n", "ä"} {
		want := stat{pid: 812, ppid: 811, pgrp: 812, session: 800, name: name, state: 'S', tty: "pts/0", priority: 20, nice: -5, start: 123456,
			args: area{100, 150}, environ: area{150, 450}}
		got, err := parseStat([]byte(statLine(name)))
		if err != nil || got != want {
			t.Errorf("name %q: %+v, %v; want %+v", name, got, err, want)
		}
	}
	got, err := parseStat([]byte(statLine("\xff\xfe(\\")))
	if err != nil || got.name != `\xff\xfe(\\` {
		t.Errorf("name that is not UTF-8: %q, %v", got.name, err)
	}
	old := strings.Join(strings.Fields(statLine("old"))[:22], " ")
	if got, err := parseStat([]byte(old)); err != nil || got.start != 123456 || got.args.size() != 0 {
		t.Errorf("a line of an old kernel: %+v, %v", got, err)
	}
	for _, s := range []string{"", "(", ")", ")(", "()", "1 (a)", "1 (a) ", "1 (a) R 1", ") 1 (", "812 (bash) S 811",
		strings.Replace(statLine("a"), " S ", " SS ", 1), strings.Replace(statLine("a"), "811", "x", 1), strings.Replace(statLine("a"), "123456", "-1", 1),
		strings.Replace(statLine("a"), "812 (", "x (", 1), strings.Replace(statLine("a"), " 450 ", " 99999999999999999999 ", 1), statLine("a")[3:]} {
		if got, err := parseStat([]byte(s)); !errors.Is(err, errSyntax) || got != (stat{}) {
			t.Errorf("parseStat(%q) = %+v, %v; want an error and nothing else", s, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	for _, name := range []string{"bash", "a) R 1\n(b", "1 (a)", "\xff", ")))"} {
		f.Add([]byte(name), []byte(statLine(name)))
	}
	f.Fuzz(func(t *testing.T, name, line []byte) {
		// Whatever a process is called, the rest of its line is read alike.
		plain, err := parseStat([]byte(statLine("x")))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseStat([]byte(statLine(string(name))))
		plain.name = text(name)
		if err != nil || got != plain {
			t.Errorf("name %q: %+v, %v; want %+v", name, got, err, plain)
		}
		if got, err := parseStat(line); err != nil && got != (stat{}) {
			t.Errorf("parseStat(%q) = %+v with error %v", line, got, err)
		}
	})
}

func TestAreaSize(t *testing.T) {
	for a, want := range map[area]int{{}: 0, {1, 1}: 0, {10, 15}: 5, {15, 10}: 0, {0, math.MaxUint64}: math.MaxInt} {
		if got := a.size(); got != want {
			t.Errorf("%v: %d, want %d", a, got, want)
		}
	}
}

func TestTTYName(t *testing.T) {
	for dev, want := range map[int]string{
		0: "", 136 << 8: "pts/0", 136<<8 | 255: "pts/255", 136<<8 | 0x100000: "pts/256", 137 << 8: "pts/1048576",
		4<<8 | 1: "tty1", 4<<8 | 64: "ttyS0", 5<<8 | 1: "5:1", -1: "4095:1048575",
	} {
		if got := ttyName(dev); got != want {
			t.Errorf("ttyName(%#x) = %q, want %q", dev, got, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const good = "Name:\ta\\nUid: 0 0 0 0\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\nGid:\t4294967295\t0\t0\t1\nGroups:\t4 5\n"
	want := status{uid: [4]uint32{1000, 1001, 1002, 1003}, gid: [4]uint32{4294967295, 0, 0, 1}}
	if got, err := parseStatus([]byte(good)); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, s := range []string{"", "Uid:\t1\t2\t3\t4\n", "Uid:\t1\t2\t3\nGid:\t1\t2\t3\t4\n", "Uid:\t1\t2\t3\t4294967296\nGid:\t1\t2\t3\t4\n",
		"Uid:\t1\t2\t3\t-4\nGid:\t1\t2\t3\t4\n", good + good} {
		if got, err := parseStatus([]byte(s)); !errors.Is(err, errSyntax) || got != (status{}) {
			t.Errorf("parseStatus(%q) = %+v, %v; want an error and nothing else", s, got, err)
		}
	}
}

func TestParseStatusTracer(t *testing.T) {
	got, err := parseStatus([]byte("Name:\tTracerPid:\\n9\nTgid:\t100\nPid:\t101\nTracerPid:\t4711\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"))
	if want := (status{tracer: 4711, tgid: 100}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parseStatus(b); err != nil && got != (status{}) {
			t.Errorf("%+v with error %v", got, err)
		}
	})
}

func TestParseCgroup(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{
		"":       "",
		"0::/\n": "/",
		"0::/user.slice/user-0.slice/session-1.scope\n": "/user.slice/user-0.slice/session-1.scope",
		"12:pids:/a\n1:name=systemd:/b\n0::/c\n":        "/c",
		"12:pids:/a\n1:name=systemd:/b\n0::/\n":         "/b",
		"12:pids:/a\n3:cpu,cpuacct:/b\n":                "/a",
		"0::/docker/" + id + "\n":                       "/docker/" + id,
		"0::/a:b:c\n":                                   "/a:b:c",
		"no colons\n\n:\n::\n":                          "",
	} {
		if got := parseCgroup([]byte(in)); got != want {
			t.Errorf("parseCgroup(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("12:pids:/a\n1:name=systemd:/b\n0::/\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := parseCgroup(b)
		if !bytes.Contains(b, posix.Octets(path)) {
			t.Errorf("path %q is not in %q", path, b)
		}
	})
}

func TestParseFdinfo(t *testing.T) {
	const info = "pos:\t0\nflags:\t0100002\nmnt_id:\t24\ntty-index:\t3\n"
	for field, want := range map[string]string{"tty-index": "3", "flags": "0100002", "pos": "0", "tty": "", "": "", "index": ""} {
		got, ok := parseFdinfo([]byte(info), field)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t; want %q", field, got, ok, want)
		}
	}
}

func TestParseOSRelease(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n": "Debian GNU/Linux 13 (trixie)",
		"PRETTY_NAME='a b'": "a b", "PRETTY_NAME=Alpine\r\n": "Alpine", "#PRETTY_NAME=x\n": "",
	} {
		if got := parseOSRelease([]byte(in)); got != want {
			t.Errorf("parseOSRelease(%q) = %q, want %q", in, got, want)
		}
	}
}

// direntsOf makes a buffer as getdents64(2) fills it.
func direntsOf(names ...string) []byte {
	var b []byte
	for i, n := range names {
		length := (19 + len(n) + 1 + 7) &^ 7
		r := make([]byte, length)
		copy(r[8:], nativeUint64(uint64(1000+i)))
		copy(r[16:], nativeUint16(uint16(length)))
		copy(r[19:], n)
		b = append(b, r...)
	}
	return b
}

func TestDirents(t *testing.T) {
	b := direntsOf(".", "..", "0", "1", "10", "a")
	var got []string
	offset, ok := dirents(b, func(n []byte) bool { got = append(got, string(n)); return true })
	if want := []string{"0", "1", "10", "a"}; !ok || offset != 0 || !slices.Equal(got, want) {
		t.Errorf("%q, %d, %t; want %q", got, offset, ok, want)
	}
	offset, ok = dirents(b, func(n []byte) bool { return string(n) != "1" })
	if ok || offset != 1003 {
		t.Errorf("stopped at offset %d, %t; want that after 1, 1003", offset, ok)
	}
	for s, want := range map[string]int{"0": 0, "12": 12, "4194304": 4194304, "": -1, "a": -1, "1a": -1, "-1": -1, "+1": -1, " 1": -1, "99999999999": -1} {
		if n, ok := number([]byte(s)); ok != (want >= 0) || ok && n != want {
			t.Errorf("number(%q) = %d, %t; want %d", s, n, ok, want)
		}
	}
}

func FuzzDirents(f *testing.F) {
	f.Add(direntsOf(".", "..", "0", "1"), 3)
	f.Add([]byte("                \x13\x00"), 0)
	f.Fuzz(func(t *testing.T, b []byte, stop int) {
		n := 0
		dirents(b, func(name []byte) bool {
			n++
			if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
				t.Errorf("name %q", name)
			}
			if i, ok := number(name); ok && (i < 0 || len(name) > 10) {
				t.Errorf("number(%q) = %d", name, i)
			}
			return n != stop
		})
		if n > len(b)/19 {
			t.Errorf("%d names in %d octets", n, len(b))
		}
	})
}
