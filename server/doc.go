// Package server has the two halves of answering: a [Server] admits requests or declines them and releases the replies,
// and [Tracebacks] ask the previous hosts afterwards. Neither sees a report, and a Server never a previous host.
package server
