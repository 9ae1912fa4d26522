package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// pastKey returns the key that seals what is remembered, over a restart. It is in the user's keyring (user-keyring(7)), made where there is none, ends with the
// host's boot, and so long after the last call.
func pastKey(store string, lasts time.Duration) (key []byte, err error) {
	err = inKeyring(func() error {
		id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", pastKeyName(store), 0)
		switch {
		case err == nil:
			key, err = readKey(id)
		case errors.Is(err, unix.ENOKEY), errors.Is(err, unix.EKEYEXPIRED), errors.Is(err, unix.EKEYREVOKED):
			key = make([]byte, recorder.KeySize)
			rand.Read(key) // never fails
			id, err = unix.AddKey("user", pastKeyName(store), key, unix.KEY_SPEC_USER_KEYRING)
		}
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

func pastKeyName(store string) string { return "stopd past of " + pastDir(store) }

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
