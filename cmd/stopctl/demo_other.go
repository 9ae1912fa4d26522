//go:build !linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
)

func beginLab() {}

func setupDemo(*flag.FlagSet) func(context.Context, stdio, []string) error {
	return func(context.Context, stdio, []string) error {
		return fmt.Errorf("the demonstration makes its hosts from Linux namespaces: %w", errors.ErrUnsupported)
	}
}
