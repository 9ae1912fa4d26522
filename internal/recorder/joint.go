package recorder

// A Class is what a joint is of.
type Class uint8

// Classes of objects.
const (
	Pipe Class = iota + 1 // or a FIFO: they differ in the file system
	Unix                  // one end of a UNIX socket
	Master
	Slave // of a pseudo terminal, as the master
)

// An Object is one end of a channel, or what both ends have in common.
type Object struct {
	Class  Class
	Device uint32 // of the file system, in the sender's own form
	Number uint64
}

// A Mode says which way data can go.
type Mode uint8

// Bits of a mode.
const (
	Reads Mode = 1 << iota
	Writes
	// Passing says that the process was only seen to have it as it made another, which may have been given it, or as it was met.
	Passing
	// Named says that a UNIX socket has a name, as those have that a named one accepted.
	Named
	// Inherited says that the process was only seen to have it as it ended, and never became another program: it may have it from its
	// parent without a use for it.
	Inherited
)

// way is what the mode says of data.
func (m Mode) way() Mode { return m & (Reads | Writes) }

// like reports whether two modes differ only in how surely the process had use for the object.
func (m Mode) like(o Mode) bool { return (m^o)&^(Passing|Inherited) == 0 }

// A Joint is what a process had, and what is at its other end. Peer is Object for pipes, and zero where it is not known.
type Joint struct {
	Object, Peer Object
	Mode         Mode
}
