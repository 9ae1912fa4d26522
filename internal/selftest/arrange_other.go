//go:build !unix

package selftest

import "errors"

func arrange(Start, bool) (*arrangement, error) { return nil, errors.ErrUnsupported }

// Wait is what a child does, of which there is none here.
func Wait() error { return errors.ErrUnsupported }
