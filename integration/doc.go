// Package integration holds the tests that need hosts: intruders walk through hosts of a lab with real
// programs, among other people's work, and are traced back by real daemons. It has no code of its own.
package integration
