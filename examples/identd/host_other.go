//go:build !linux && !openbsd && !solaris && !freebsd

package main

import "errors"

func openHost() (openedHost, error) { return nil, errors.ErrUnsupported }
