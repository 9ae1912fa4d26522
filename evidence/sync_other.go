//go:build !linux

package evidence

import "os"

func syncData(f *os.File) error { return f.Sync() }
