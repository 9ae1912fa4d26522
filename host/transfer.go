package host

// A Transfer is one call by which a thread of a process took octets from a socket, or sent some by it.
type Transfer struct {
	// Socket is the number of its inode, as [Descriptor] has it.
	Socket uint64 `json:"socket"`
	Sent   bool   `json:"sent,omitzero"`
	// Octets is 0 where they were only looked at, or their number is not known.
	Octets uint32 `json:"octets,omitzero"`
	// Thread tells the threads of the process apart.
	Thread uint32 `json:"thread"`
	// Waits is how often the thread had waited for something so far, as the system counts; it only serves to be compared.
	Waits uint32 `json:"waits"`
}
