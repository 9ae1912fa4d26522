//go:build !linux

package evidence

import (
	"errors"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

func nameless(string) (*os.File, error) { return nil, errors.ErrUnsupported }
