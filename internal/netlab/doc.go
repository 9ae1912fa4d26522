// Package netlab makes small hosts on one Linux machine: for the integration tests, for the benchmark
// and for the command "stopctl demo".
//
// A [Lab] is a switch, and any number of [Host]s on it. A host has network, PID, mount, UTS and IPC
// namespaces of its own, a root which looks like the machine's but keeps every change in memory, its
// own users, its own daemons, and a PID 1 which reaps orphans. The switch is a bridge in a network
// namespace of its own: neither a link nor a mount nor a name under /run/netns appears on the machine.
//
// PID 1 of a host is the program that made the lab, executed again. Such a program therefore calls
// [Init] before anything else:
//
//	func main() {
//		netlab.Init()
//		…
//	}
//
// and a test package does so in its TestMain. Init returns at once in every process but those inits.
//
// [Lab.AddSystemdHost] makes a host whose init becomes systemd, with a control group of its own.
//
// Every init reads from a socket whose other end only the lab's process holds. When that process ends,
// in whatever way, the init sees the end of the stream and exits; the kernel then kills what ran in
// the host and frees its namespaces, mounts and links. Systemd is killed with the lab's process. Nothing has to be
// cleaned up after a SIGKILL: the empty control group of a systemd host is removed by the next lab that makes one.
//
// A lab needs root, the overlay file system, iproute2 and util-linux; [Available] says what is missing.
// The package does something on Linux only.
package netlab
