//go:build !linux

package daemon

func bindsLow() bool { return false }
