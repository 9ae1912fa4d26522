// Package daemon is what stopd is made of: the configuration, and the wiring of host, evidence and server.
package daemon
