//go:build goexperiment.runtimesecret

package evidence

import (
	"runtime"
	"runtime/secret"
)

// secretly runs f. What f leaves in registers, on the stack and on the heap is erased: on the heap once the
// garbage collector has found it unused (package runtime/secret).
func secretly(f func()) { secret.Do(f) }

// sweep has what secretly left on the heap erased now.
func sweep() { runtime.GC() }

// erases tells whether this build erases what secretly leaves behind.
const erases = (runtime.GOOS == "linux") && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
