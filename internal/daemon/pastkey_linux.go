package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// pastKey has the key that seals what is remembered, over a restart, last so long from now on, and returns it. It is in the user's keyring (user-keyring(7)), and
// ends with the host's boot. Where known is nil it is the one that is there, or a new one; else it is known, whatever became of it there: its end comes by the
// host's clock, which may be set, and goes on where the daemon does not.
func pastKey(store string, lasts time.Duration, known []byte) (key []byte, err error) {
	name, err := pastKeyName(store)
	if err != nil {
		return nil, err
	}
	err = inKeyring(func() error {
		key = known
		if key == nil {
			if key, err = findKey(name); err != nil {
				return err
			}
		}
		id, err := unix.AddKey("user", name, key, unix.KEY_SPEC_USER_KEYRING) // or change what it is
		if err != nil {
			return err
		}
		_, err = unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, int(lasts/time.Second), 0, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keep a key in the user's keyring: %w", err)
	}
	return key, nil
}

// findKey returns the key with a name, a new one where there is none.
func findKey(name string) ([]byte, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
	switch {
	case err == nil:
		return readKey(id)
	case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYEXPIRED), errors.Is(err, unix.EKEYREVOKED):
		key := make([]byte, recorder.KeySize)
		rand.Read(key) // never fails
		return key, nil
	}
	return nil, err
}

// pastKeyName is the name of that key. One user's keyring is that of containers, too: each has a PID namespace of its own, and what is remembered holds in one alone.
func pastKeyName(store string) (string, error) {
	pids, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("name the key of what is remembered: %w", err)
	}
	dir, err := filepath.Abs(pastDir(store))
	if err != nil {
		return "", fmt.Errorf("name the key of what is remembered: %w", err)
	}
	return fmt.Sprintf("stopd past of %s in %s", dir, pids), nil
}

func readKey(id int) ([]byte, error) {
	key := make([]byte, recorder.KeySize)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, key, 0)
	if err == nil && n != len(key) {
		err = fmt.Errorf("it has %d octets", n)
	}
	return key, err
}

// tryKeyring says why nothing can be kept in the user's keyring; nil where it can.
func tryKeyring() error {
	return inKeyring(func() error {
		id, err := unix.AddKey("user", fmt.Sprintf("stopd check %d", os.Getpid()), make([]byte, recorder.KeySize), unix.KEY_SPEC_USER_KEYRING)
		if err != nil {
			return err
		}
		_, err = readKey(id)
		return errors.Join(err, dropKey(id))
	})
}

func dropKey(id int) error {
	_, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	return err
}

// inKeyring calls f on a thread that has the user's keyring and ends with it: who may read a key is who can reach it from a keyring of his own, and
// a service manager gives services a session keyring that does not lead there (keyrings(7), "Possession").
func inKeyring(f func() error) error {
	done := make(chan error)
	go onOwnThread(func() {
		_, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
		if err == nil {
			err = f()
		}
		done <- err
	})
	return <-done
}
