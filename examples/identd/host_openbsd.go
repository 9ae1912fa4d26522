package main

import "github.com/stopd/stopd/internal/openbsd"

// openHost opens this machine.
func openHost() (openedHost, error) { return openbsd.Open() }
