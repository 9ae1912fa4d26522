package daemon

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/stopd/stopd/evidence"
)

// warnOfKeys says which files hold an administrator's private key. As long as it lies on the host, reports are no
// secret from who becomes root.
func warnOfKeys(config string, cfg Config, log *slog.Logger) {
	for _, path := range privateKeys(keyPlaces(config, cfg), cfg.Recipients) {
		log.Warn("an administrator's private key lies on this host: who becomes root can read every report; move it elsewhere", "file", path)
	}
}

// keyPlaces are the directories where stopctl init, or somebody who ran it, leaves a key: beside the configuration and
// the store, where the daemon was started, and at home.
func keyPlaces(config string, cfg Config) []string {
	dirs := []string{filepath.Dir(config), filepath.Dir(filepath.Clean(cfg.Store)), "."}
	if logKey, err := evidence.LogKeyPath(cfg.Store); err == nil {
		dirs = append(dirs, filepath.Dir(logKey)) // where a symbolic link leads to
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, home)
	}
	var places []string
	for _, d := range dirs {
		if abs, err := filepath.Abs(d); err == nil && !slices.Contains(places, abs) {
			places = append(places, abs)
		}
	}
	return places
}

// Bounds of the search: a key file is small, and a directory of them is not large.
const (
	maxKeyFile  = 64 << 10
	maxKeyFiles = 1024
)

// privateKeys gives the files in the directories that hold a private key of one of the recipients.
func privateKeys(dirs, recipients []string) []string {
	var found []string
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if err != nil {
			continue // whoever cannot read it finds no key there either
		}
		entries, _ := d.ReadDir(maxKeyFiles)
		d.Close()
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.Type().IsRegular() && holdsKey(path, recipients) {
				found = append(found, path)
			}
		}
	}
	return found
}

// holdsKey tells whether a file holds the private key of a recipient, on a line of its own as age writes it.
func holdsKey(path string, recipients []string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(io.LimitReader(f, maxKeyFile)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if !strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			continue
		}
		ids, err := age.ParseIdentities(strings.NewReader(line))
		if err != nil {
			continue
		}
		for _, id := range ids {
			if slices.Contains(recipients, recipientOf(id)) {
				return true
			}
		}
	}
	return false
}

// recipientOf is the public key of a private one; empty where it has none.
func recipientOf(id age.Identity) string {
	switch id := id.(type) {
	case *age.X25519Identity:
		return fmt.Sprint(id.Recipient())
	case *age.HybridIdentity:
		return fmt.Sprint(id.Recipient())
	}
	return ""
}
