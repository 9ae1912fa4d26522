//go:build !linux

package daemon

// reloading tells a service manager that a reload begins.
func reloading() string { return "RELOADING=1" }
