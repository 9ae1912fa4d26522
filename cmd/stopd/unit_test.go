package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The unit waits until the daemon answers, and hides nothing from it that it is to see.
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
	hides := regexp.MustCompile(`(?m)^(ProtectProc|ProcSubset|PrivateUsers|PrivateNetwork|PrivateIPC|ProtectHostname|ProtectHome=(yes|true|tmpfs)|TemporaryFileSystem|` +
		`Root(Directory|Image)|Inaccessible|NoExecPaths|IPAddress|User|DynamicUser|JoinsNamespaceOf).*`)
	if found := hides.FindAllString(string(b), -1); found != nil {
		t.Errorf("it hides: %q", found)
	}
}
