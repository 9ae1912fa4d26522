package chain

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// docs/chain.md has every key, status, kind and action, and no form that there is not.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../docs/chain.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "\n## JSON\n")
	text, err := JSON(Build(Of(rich()...)))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	var words []string
	var keys func(v any)
	keys = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, v := range v {
				words = append(words, k)
				keys(v)
			}
		case []any:
			for _, v := range v {
				keys(v)
			}
		}
	}
	keys(v)
	for _, s := range statuses {
		words = append(words, string(s))
	}
	words = append(words, actions...)
	for _, w := range slices.Compact(slices.Sorted(slices.Values(words))) {
		if !slices.ContainsFunc([]string{"`" + w + "`", "`." + w + "`", "`" + w + "[]`", "`." + w + "[]`"}, func(s string) bool { return strings.Contains(table, s) }) {
			t.Errorf("docs/chain.md does not say what %s is", w)
		}
	}
	for _, kind := range []string{AboutAddress, AboutDirection, AboutRequest, AboutTime, AboutBytes, AboutName, AboutRecord} {
		if !strings.Contains(string(b), "\n| `"+kind+"` | ") {
			t.Errorf("docs/chain.md does not say what contradictions of kind %s are", kind)
		}
	}
	for form := range forms {
		if !strings.Contains(string(b), "\n| `"+form+"` | ") {
			t.Errorf("docs/chain.md does not say what -format %s is", form)
		}
	}
}
