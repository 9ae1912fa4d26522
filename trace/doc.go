// Package trace finds who is behind a connection and where they came from.
//
// It is pure: it asks a [host.Snapshot] and reasons over the answers, so that whatever it decides can be
// decided again from a recording. [Run] works in two steps.
//
// The closure (thesis sections 3.2.3 and 4.3.2) is the processes that hold the asked socket, their
// parents, and whoever is joined to any of these by a pipe, a FIFO, a UNIX socket, a pseudo terminal or a
// connection within the host, until nothing is left. It does not continue through process 0 or 1, through
// a hub (a service that many others talk to), nor through a listener that only accepted the connection
// which explains its child.
//
// The previous hosts are connections with other hosts held within the closure, where data or commands can
// have come from them to the asked socket, or gone to them from it. Descriptors have modes, so that one
// who only writes to the same log is not accused; and a service keeps its clients apart, so that one who
// only uses the same database or message bus is not either (docs/decisions/0011-hubs.md).
package trace
