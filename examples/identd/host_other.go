//go:build !linux && !openbsd && !solaris

package main

import "errors"

func openHost() (openedHost, error) { return nil, errors.ErrUnsupported }
