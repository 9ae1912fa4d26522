package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A side is one of those that are compared.
type side struct {
	name  string
	run   func() error
	least int // how often it runs in a round at least
}

// How long one round of a side lasts at least, how many rounds there are, and after how long there are no
// more, so that a side that takes seconds does not take minutes.
const (
	roundTime  = 50 * time.Millisecond
	rounds     = 10
	caseTime   = 20 * time.Second
	leastTimes = 3
)

// A figure is what was measured of one side.
type figure struct {
	name  string // as in the printed lines
	times []time.Duration
}

// median returns the middle of the times of one operation.
func (f figure) median() time.Duration {
	t := slices.Sorted(slices.Values(f.times))
	if len(t) == 0 {
		return 0
	}
	return (t[(len(t)-1)/2] + t[len(t)/2]) / 2
}

// measure runs the sides by turns, in changing order, so that whatever else the machine does falls on all
// of them. It prints a line for each round, which benchstat reads, and returns the figures by side.
func measure(w io.Writer, name string, sides ...side) (map[string]figure, error) {
	counts := make([]int, len(sides))
	for i, s := range sides {
		n, err := calibrate(s.run)
		if err != nil {
			return nil, fmt.Errorf("run %s by %s: %w", name, s.name, err)
		}
		counts[i] = max(n, s.least)
	}
	figures := map[string]figure{}
	began := time.Now()
	for round := 0; round < rounds && (round < leastTimes || time.Since(began) < caseTime); round++ {
		for j := range sides {
			i := j
			if round%2 == 1 {
				i = len(sides) - 1 - j
			}
			s, n := sides[i], counts[i]
			start := time.Now()
			for range n {
				if err := s.run(); err != nil {
					return nil, fmt.Errorf("run %s by %s: %w", name, s.name, err)
				}
			}
			each := time.Since(start) / time.Duration(n)
			f := figures[s.name]
			f.name = fmt.Sprintf("%s/by=%s", name, s.name)
			f.times = append(f.times, each)
			figures[s.name] = f
			fmt.Fprintf(w, "Benchmark%s-%d\t%8d\t%12d ns/op\n", f.name, runtime.GOMAXPROCS(0), n, each.Nanoseconds())
		}
	}
	return figures, nil
}

// calibrate returns how often something is run in a round. What it does first, such as filling caches, is
// not measured.
func calibrate(run func() error) (int, error) {
	var least time.Duration
	for i := range 3 {
		start := time.Now()
		if err := run(); err != nil {
			return 0, err
		}
		if d := time.Since(start); i == 0 || d < least {
			least = d
		}
		if least > time.Second {
			break
		}
	}
	return int(max(1, min(10000, roundTime/max(least, 1)))), nil
}

// A table is what is printed last, and goes into the documentation.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// markdown writes the table. All columns but the first are to the right.
func (t *table) markdown() string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	rule := slices.Repeat([]string{"--:"}, len(t.head))
	rule[0] = "---"
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// format writes a duration with three digits.
func format(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + format(-d)
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2f µs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// times writes how many times longer one takes than another.
func times(slow, fast time.Duration) string {
	r := float64(slow) / float64(max(fast, 1))
	if r < 10 {
		return fmt.Sprintf("%.1f×", r)
	}
	return fmt.Sprintf("%.0f×", r)
}

// Marks in a document around what the benchmark writes there.
const (
	beginMark = "<!-- written by bench: begin -->\n"
	endMark   = "<!-- written by bench: end -->\n"
)

// replace puts text between the marks of a document.
func replace(doc, text string) (string, error) {
	before, rest, ok := strings.Cut(doc, beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("replace table: the document lacks %q or %q", beginMark, endMark)
	}
	return before + beginMark + "\n" + text + "\n" + endMark + after, nil
}
