package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tail is a follower whose lines a test reads.
type tail struct {
	t      *testing.T
	f      *follower
	path   string
	got    []string
	said   []string
	header []string
	counts *Counts
}

func newTail(t *testing.T, path string) *tail {
	x := &tail{t: t, path: path, counts: &Counts{}}
	x.f = &follower{path: path, progress: &progress{}, count: x.counts, buffer: make([]byte, 32), // smaller than lines are
		line:  func(line []byte, _ place) { x.got = append(x.got, string(line)) },
		begin: func(line []byte) { x.header = append(x.header, string(line)) },
		say:   func(what string) { x.said = append(x.said, what) }}
	t.Cleanup(func() {
		if x.f.file != nil {
			x.f.file.Close()
		}
	})
	return x
}

func (x *tail) start(from place, known bool) *tail {
	x.t.Helper()
	if err := x.f.start(from, known); err != nil {
		x.t.Fatal(err)
	}
	return x
}

// reads polls until there is nothing more, and compares what was read since the last time.
func (x *tail) reads(want ...string) {
	x.t.Helper()
	for more := true; more; {
		var err error
		if more, err = x.f.poll(x.t.Context()); err != nil {
			x.t.Fatal(err)
		}
	}
	if d := cmp.Diff(strings.Join(want, "\n"), strings.Join(x.got, "\n")); d != "" {
		x.t.Errorf("lines (-want +got):\n%s", d)
	}
	x.got = nil
}

func (x *tail) write(name, text string) {
	x.t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *tail) rename(to string) {
	x.t.Helper()
	if err := os.Rename(x.path, to); err != nil {
		x.t.Fatal(err)
	}
}

func (x *tail) cut() {
	x.t.Helper()
	if err := os.Truncate(x.path, 0); err != nil {
		x.t.Fatal(err)
	}
}

const long = "a line that is longer than what is read at once, and has a tail that is more than sixty-four octets long "

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	x := newTail(t, path).start(place{}, false)
	x.reads() // there is no file
	x.write(path, "1\n2\r\npart")
	x.reads("1", "2")
	x.write(path, "ial\n\n"+long+"3\n")
	x.reads("partial", "", long+"3")

	// Rotated: the writer goes on in the old file until it opens the new one, which may be there already.
	x.rename(path + ".1")
	x.write(path+".1", "4\n")
	x.reads("4")
	x.write(path, "")
	x.reads()
	x.write(path+".1", "5\n")
	x.reads("5")
	x.write(path+".1", "6\n")
	x.write(path, "7\n")
	x.reads("6", "7")

	// Cut, and cut and filled anew beyond where it was read.
	x.cut()
	x.reads()
	x.write(path, "8\n")
	x.reads("8")
	x.write(path, long+"9\n")
	x.reads(long + "9")
	x.cut()
	x.write(path, strings.Repeat(long, 3)+"10\n")
	x.reads(strings.Repeat(long, 3) + "10")
	if len(x.said) != 2 || x.counts.Lost.Load() != 2 {
		t.Errorf("of what was cut it is said %q", x.said)
	}

	// A line that nobody ended, and one that is too long.
	x.write(path, "cut")
	x.reads()
	x.rename(path + ".2")
	x.write(path, "11\n")
	x.reads("11")
	before := x.counts.Unreadable.Load()
	x.write(path, strings.Repeat("x", 3*maxLine)+"\n12\n")
	x.reads("12")
	if n := x.counts.Unreadable.Load() - before; before != 1 || n != 1 {
		t.Errorf("%d lines without end and %d too long are unreadable", before, n)
	}
}

// A known log is read on where it was left; an unknown one from its end.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conn.log")
	x := newTail(t, path)
	x.write(path, "#fields\ta\n#types\tb\n1\n2\nhalf")
	x.start(place{}, false)
	x.reads()
	x.write(path, " a line\n3\n")
	x.reads("half a line", "3")
	if d := cmp.Diff([]string{"#fields\ta\n", "#types\tb\n"}, x.header); d != "" {
		t.Errorf("the header of what is not read from its beginning (-want +got):\n%s", d)
	}
	at := x.f.progress.settled()
	x.write(path, "4\n")
	newTail(t, path).start(at, true).reads("4")
	newTail(t, path).start(place{0, hashOf(nil), 4, hashOf([]byte("#fie"))}, true).reads("#fields\ta", "#types\tb", "1", "2", "half a line", "3", "4")

	// Rotated twice meanwhile, once by a date, beside what is older, compressed or another's.
	for name, text := range map[string]string{".0": "0\n", ".9.gz": "x", "x": "x\n", ".d/": ""} {
		if strings.HasSuffix(name, "/") {
			if err := os.Mkdir(path+strings.TrimSuffix(name, "/"), 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		x.write(path+name, text)
	}
	// Their times say which is older.
	age := func(name string, seconds int64) {
		old := newTime(seconds)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	age(path+".0", 100)
	x.rename(path + "-20261103")
	age(path+"-20261103", 200)
	x.write(path, "5\n6\n")
	x.rename(path + ".1")
	age(path+".1", 300)
	x.write(path, "7\n")
	y := newTail(t, path).start(at, true)
	y.reads("4", "5", "6", "7")
	if len(y.said) != 0 {
		t.Errorf("it is said %q", y.said)
	}
	y.write(path, "8\n")
	y.reads("8")

	// Gone.
	if err := os.Remove(path + "-20261103"); err != nil {
		t.Fatal(err)
	}
	y = newTail(t, path).start(at, true)
	y.reads("7", "8")
	if len(y.said) != 1 || y.counts.Lost.Load() != 1 {
		t.Errorf("of what is gone it is said %q", y.said)
	}
}

// Alerts of one kind are as long as each other and end alike: a file is known by how it begins.
func TestAlike(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	record := func(n int) string { return fmt.Sprintf("%03d%s", n, long) }
	records := func(from, to int) (text string, lines []string) {
		for n := from; n <= to; n++ {
			text, lines = text+record(n)+"\n", append(lines, record(n))
		}
		return text, lines
	}
	x := newTail(t, path).start(place{}, false)
	text, lines := records(1, 3)
	x.write(path, text)
	x.reads(lines...)
	at := x.f.progress.settled()

	// Cut, and written anew as far as it was read, and further.
	x.cut()
	text, lines = records(4, 6)
	x.write(path, text)
	x.reads(lines...)
	x.cut()
	text, lines = records(7, 11)
	x.write(path, text)
	x.reads(lines...)
	if len(x.said) != 2 || x.counts.Lost.Load() != 2 {
		t.Errorf("of what was cut it is said %q", x.said)
	}
	x.write(path, record(12)+"\n")
	x.reads(record(12))

	// Neither is what was written meanwhile the file in which reading stopped, nor an older one that was read already.
	y := newTail(t, path).start(at, true)
	_, lines = records(7, 12)
	y.reads(lines...)
	if len(y.said) != 1 || y.counts.Lost.Load() != 1 {
		t.Errorf("of what is gone it is said %q", y.said)
	}
	at = x.f.progress.settled()
	text, _ = records(1, 9)
	x.write(path+".2", text)
	old := newTime(100)
	if err := os.Chtimes(path+".2", old, old); err != nil {
		t.Fatal(err)
	}
	x.rename(path + ".1")
	text, lines = records(13, 20)
	x.write(path, text)
	y = newTail(t, path).start(at, true)
	y.reads(lines...)
	if len(y.said) != 0 {
		t.Errorf("it is said %q", y.said)
	}
}

// Where nothing of a file is done yet, it is that file that is read after a restart, and none from before.
func TestRestartAtBeginning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eve.json")
	x := newTail(t, path).start(place{}, false)
	x.write(path, "old\n")
	x.reads("old")
	x.rename(path + ".1")
	x.write(path, "1\n2\n")
	var first place
	x.f.line = func(line []byte, before place) {
		if string(line) == "1" {
			first = before
		}
	}
	x.reads()
	if first.Offset != 0 {
		t.Fatalf("the first line begins at %d", first.Offset)
	}
	newTail(t, path).start(first, true).reads("1", "2")
	x.rename(path + ".0")
	x.write(path, "3\n")
	newTail(t, path).start(first, true).reads("1", "2", "3")

	// One that was cut is empty.
	x = newTail(t, path).start(first, true)
	x.reads("1", "2", "3")
	x.cut()
	x.reads()
	empty := x.f.progress.settled()
	x.write(path, "4\n")
	y := newTail(t, path).start(empty, true)
	y.reads("4")
	if len(y.said) != 0 {
		t.Errorf("it is said %q", y.said)
	}
}

// What is not done is read again after a crash, and only that.
func TestSettled(t *testing.T) {
	p := &progress{}
	at := func(n int64) place { return place{Offset: n} }
	p.reached(at(10))
	a, b, c := p.begin(at(10), 1), p.begin(at(20), 2), p.begin(at(30), 1)
	p.reached(at(40))
	for i, step := range []struct {
		done *mark
		want int64
	}{{nil, 10}, {b, 10}, {c, 10}, {a, 20}, {b, 40}} {
		step.done.done()
		if got := p.settled(); got != at(step.want) {
			t.Errorf("step %d: %v", i, got)
		}
	}
	name := filepath.Join(t.TempDir(), "position")
	want := positions{"/var/log/eve.json": {7, "abc", 8, "def"}}
	if got, err := readPositions(name); err != nil || len(got) != 0 {
		t.Errorf("no file yet: %v, %v", got, err)
	}
	if err := want.write(name); err != nil {
		t.Fatal(err)
	}
	got, err := readPositions(name)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"{", `{"/a":{"offset":-1}}`, `{"/a":{"begins":-1}}`, `{"/a":{"begins":257}}`} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPositions(name); err == nil {
			t.Errorf("%s is a position", bad)
		}
	}
}
