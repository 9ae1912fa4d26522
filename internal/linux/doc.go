// Package linux is the Linux host: it finds sockets by NETLINK_SOCK_DIAG, reads processes from /proc, and
// joins descriptors to each other.
//
// Files named decode*.go parse what the kernel wrote; they are pure and have no build tag. System calls
// are in *_linux.go.
package linux
