// Package freebsd is the FreeBSD host. The kernel tells of all processes at once (sysctl(3): kern.proc), and of the descriptors of
// each (kern.proc.filedesc), with the addresses of both ends of what joins them.
//
// Nobody has run it. A [Host] is made of what it asks the kernel; only kernel_freebsd.go asks. Everything else is built and
// tested on every system, on records that C structures of the system's layout make (testdata).
package freebsd
