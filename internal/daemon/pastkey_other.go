//go:build !linux

package daemon

import "time"

func pastKey(string, time.Duration, []byte) ([]byte, error) { return nil, errSystem }

func tryKeyring() error { return errSystem }
