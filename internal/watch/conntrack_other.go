//go:build !linux

package watch

import (
	"context"
	"errors"
)

// Conntrack is of Linux.
func Conntrack() Input {
	return func(context.Context, *Watcher) error {
		return errors.New("watch connections: only Linux tracks them so that others can tell")
	}
}
