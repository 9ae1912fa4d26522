//go:build !linux && !openbsd

package main

import "errors"

func openHost() (openedHost, error) { return nil, errors.ErrUnsupported }
