package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/optin"
)

// A home is alice's, in a directory that everybody may enter.
type home struct {
	t    *testing.T
	path string
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "stopd-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &home{t, filepath.Join(dir, "alice")}
	h.must(os.Chmod(dir, 0o755))
	h.must(os.Mkdir(h.path, 0o700))
	h.must(os.Chown(h.path, aliceUID, aliceUID))
	return h
}

func (h *home) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) at(name string) string { return filepath.Join(h.path, name) }

// write writes a file of a user's.
func (h *home) write(name, text string, uid int, mode os.FileMode) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.at(name)), 0o755))
	h.must(os.WriteFile(h.at(name), []byte(text), 0o600))
	h.must(os.Chown(h.at(name), uid, uid))
	h.must(os.Chmod(h.at(name), mode))
}

func (h *home) question() optin.Question {
	return optin.Question{UID: aliceUID, GID: aliceUID, Home: h.path, Requester: netip.MustParseAddr("192.0.2.9"),
		Local: netip.MustParseAddrPort("192.0.2.1:4000"), Remote: netip.MustParseAddrPort("192.0.2.9:6667")}
}

// ask has a reader answer a question, as the daemon does, but with a time that a slow machine keeps.
func (h *home) ask(asked readerAsked) (said readerSaid, err error) {
	h.t.Helper()
	ended := make(chan struct{})
	b, err := readBy(asked, Config{}, time.Now().Add(time.Minute), func() { close(ended) })
	<-ended
	if err == nil {
		said, err = parseSaid(b)
	}
	return said, err
}
