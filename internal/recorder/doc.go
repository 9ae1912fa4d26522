// Package recorder remembers connections and processes of one host in fixed memory (docs/decisions/0070-recorder.md).
//
// Events go in, in about the order in which they happened, and questions are answered. It does no I/O, and has no
// clock: times are nanoseconds since the host's start, from whoever sends the events. All memory is taken by [New].
// What is kept of a history over a restart is sealed, and goes to a writer.
package recorder
