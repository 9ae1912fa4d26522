package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The unit waits until the daemon answers, and takes from it nothing that it is to see.
func TestUnit(t *testing.T) {
	b, err := os.ReadFile("../../deploy/stopd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nType=notify\n", "\nExecStart=/usr/local/sbin/stopd -config /etc/stopd/stopd.toml\n", "\nExecReload=/bin/kill -HUP $MAINPID\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q", want)
		}
	}
	if hides := regexp.MustCompile(`(?m)^(Protect|Private|Restrict|Capability|NoNewPrivileges|ProcSubset|Inaccessible|User|DynamicUser|SystemCall).*`).FindAllString(string(b), -1); hides != nil {
		t.Errorf("it hides: %q", hides)
	}
}
