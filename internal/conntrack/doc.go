// Package conntrack reads the kernel's connection tracking: entries about TCP connections, and events about them, which
// the kernel sends by netlink (nfnetlink, ctnetlink). Reading messages is pure; listening takes Linux and CAP_NET_ADMIN.
package conntrack
