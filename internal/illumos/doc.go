// Package illumos is the host of illumos and of Solaris 11.4. Processes and their descriptors are read from /proc
// (proc(5)), states of connections and who created them from the network stack (MIB2, by a STREAMS message).
//
// Nobody has run it. A [Host] is made of what it asks the system; only kernel_solaris.go asks. Everything else is built and tested on
// every system, on records that C structures of the system's layout make (testdata).
package illumos
