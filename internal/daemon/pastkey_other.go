//go:build !linux

package daemon

func pastKey(string) ([]byte, error) { return nil, errSystem }

func tryKeyring() error { return errSystem }
