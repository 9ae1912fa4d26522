package main

import "github.com/stopd/stopd/internal/freebsd"

// openHost opens this machine.
func openHost() (openedHost, error) { return freebsd.Open() }
