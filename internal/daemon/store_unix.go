//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// makeStore makes the store's directory, durably, as long as its parent is there, and its lock: who is confined can be shown only what exists, and
// cannot reach the parent.
func makeStore(dir string) (err error) {
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return nil // the keeper says why there can be no store
	}
	defer func() {
		if err = errors.Join(err, parent.Close()); err != nil {
			err = fmt.Errorf("open store %q: %w", dir, err)
		}
	}()
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	} else if err := errors.Join(os.Mkdir(dir, 0o700), parent.Sync()); err != nil {
		return err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return lock.Close()
}
