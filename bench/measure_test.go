package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		times []time.Duration
		want  time.Duration
	}{
		{nil, 0},
		{[]time.Duration{7}, 7},
		{[]time.Duration{9, 1, 5}, 5},
		{[]time.Duration{8, 2, 4, 100}, 6},
	} {
		if got := (figure{times: c.times}).median(); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.times, got, c.want)
		}
	}
}

// TestMeasure holds that sides take turns, and the lines to the form that benchstat reads
// (golang.org/design/14313-benchmark-format).
func TestMeasure(t *testing.T) { synctest.Test(t, testMeasure) }

func testMeasure(t *testing.T) {
	var turns strings.Builder
	slow := func(name string) func() error {
		return func() error { turns.WriteString(name); time.Sleep(roundTime); return nil }
	}
	var out strings.Builder
	figures, err := measure(&out, "P0/size=1", side{name: "a", run: slow("a")}, side{name: "b", run: slow("b")})
	if err != nil {
		t.Fatal(err)
	}
	if want := "aaabbb" + strings.Repeat("abba", rounds/2); turns.String() != want {
		t.Errorf("turns %s, want %s", turns.String(), want)
	}
	line := regexp.MustCompile(`^BenchmarkP0/size=1/by=[ab]-\d+\t +1\t +50000000 ns/op$`)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, l := range lines {
		if !line.MatchString(l) {
			t.Errorf("line %q is not of the form", l)
		}
	}
	if len(lines) != 2*rounds || len(figures["a"].times) != rounds || len(figures["b"].times) != rounds {
		t.Errorf("%d lines, figures %v", len(lines), figures)
	}
}

func TestMeasureFails(t *testing.T) {
	broken := errors.New("broken")
	if _, err := measure(&strings.Builder{}, "P0", side{name: "a", run: func() error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestFormat(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1234: "1.23 µs", 56789: "57 µs", 2345678: "2.35 ms", 123456789: "123 ms", 1234567890: "1.23 s", -2345678: "-2.35 ms",
	} {
		if got := format(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

func TestReplace(t *testing.T) {
	doc := "before\n" + beginMark + "old\n" + endMark + "after\n"
	got, err := replace(doc, "new")
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + beginMark + "\nnew\n" + endMark + "after\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if again, err := replace(got, "new"); err != nil || again != got {
		t.Errorf("a second time: %q, %v", again, err)
	}
	if _, err := replace("before\n"+endMark+beginMark, "new"); err == nil {
		t.Error("no error for marks in the wrong order")
	}
}

func TestMarkdown(t *testing.T) {
	tab := table{head: []string{"a", "b"}}
	tab.add("1", "2")
	if d := cmp.Diff("| a | b |\n| --- | --: |\n| 1 | 2 |\n", tab.markdown()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
