package watch

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestManual holds the section RULES of stopctl(1) to the keys, and to their defaults.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../man/stopctl.1")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n.Sh RULES\n")
	text, _, _ = strings.Cut(text, "\n.Sh ")
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Ic (.*)$`).FindAllStringSubmatch(text, -1) {
		documented = append(documented, strings.Split(m[1], " , ")...)
	}
	var keys []string
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			key := prefix + v.Type().Field(i).Tag.Get("toml")
			switch x := v.Field(i).Interface().(type) {
			case Limits:
				walk("limits.", reflect.ValueOf(x))
				continue
			case []Rule:
				walk("", reflect.ValueOf(Rule{}))
				continue
			case int, uint16, float64, string:
				if s := fmt.Sprint(x); !v.Field(i).IsZero() && !strings.Contains(text, s) {
					t.Errorf("the default of %s, %s, is not in the manual", key, s)
				}
			}
			keys = append(keys, key)
		}
	}
	walk("", reflect.ValueOf(Defaults()))
	slices.Sort(keys)
	slices.Sort(documented)
	if d := cmp.Diff(keys, documented); d != "" {
		t.Errorf("keys (-) and what the manual has (+):\n%s", d)
	}
	d := Defaults()
	for key, v := range map[string]time.Duration{"2160h": d.Retention.Duration, "; 2m.": d.Limits.Repeat.Duration, "; 1m.": d.Limits.Age.Duration, "; 10s.": d.Limits.Timeout.Duration, "\n5s.": d.Limits.RetryAfter.Duration} {
		if said, err := time.ParseDuration(strings.Trim(key, ";.\n ")); err != nil || said != v || !strings.Contains(text, key) {
			t.Errorf("the manual has not %s for %s", key, v)
		}
	}
	// Its example is one.
	_, example, _ := strings.Cut(text, ".Bd -literal\n")
	example, _, _ = strings.Cut(example, ".Ed")
	if c, err := Parse([]byte(example)); err != nil || len(c.Rules) != 2 {
		t.Errorf("the example: %v", err)
	}
}
