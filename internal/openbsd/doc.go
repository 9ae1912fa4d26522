// Package openbsd is the OpenBSD host. The kernel tells of all processes and of all descriptors at once (sysctl(2):
// kern.proc and kern.file), with the addresses of both ends of what joins them, so nothing here reads kernel memory.
//
// A [Host] is made of what it asks the kernel; only kernel_openbsd.go asks. Everything else is built and tested on every system, on
// bytes that an OpenBSD 7.3 kernel wrote (testdata).
package openbsd
