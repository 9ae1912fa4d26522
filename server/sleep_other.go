//go:build !linux

package server

import "time"

func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
