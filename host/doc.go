// Package host is the model of a host as a trace sees it: processes, their descriptors, the sockets and
// pipes between them, and what could not be seen.
//
// [Host] and [Snapshot] are the seam between the systems, each of which implements them once, and the
// reasoning above, which knows no system. They are the thesis's internal interface (section 4.3.2) in
// today's terms: find_tcp is [Host.Find], the step of walk_ptree is [Snapshot.Process], and find_proc is
// [Snapshot.Peers] followed by [Snapshot.Holders].
//
// [Replay] answers from a [Recording], so that whatever a trace decides can be decided again elsewhere.
//
// The JSON names of the types here are those of the report; tools outside this repository rely on them.
package host
