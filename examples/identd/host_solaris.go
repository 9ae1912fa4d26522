package main

import "github.com/stopd/stopd/internal/illumos"

// openHost opens this machine.
func openHost() (openedHost, error) { return illumos.Open() }
