package netlab

// The lab and the init of a host speak JSON, one value a line, over a stream socket. The lab sends a
// setup and then orders; the init answers each in turn, and tells the end of every program started by
// an order, unasked, with exited set.

// setup is what an init has to make before it serves orders.
type setup struct {
	Lab      string `json:"lab"`              // marks the mounts
	Hostname string `json:"hostname"`         // "" for the switch, which has no root of its own
	Layer    string `json:"layer,omitzero"`   // directory of unpacked packages, "" for none
	Systemd  bool   `json:"systemd,omitzero"` // to become systemd, which takes no orders
}

// order asks the init to start a program, or to send a signal to one.
type order struct {
	Program string   `json:"program,omitzero"` // looked up before Args is executed, so that its absence is an error
	Args    []string `json:"args,omitzero"`
	Env     []string `json:"env,omitzero"`
	Log     string   `json:"log,omitzero"` // file that takes the program's output, made anew

	Signal int `json:"signal,omitzero"`
	PID    int `json:"pid,omitzero"` // as the host sees it; negative is a process group
}

// answer tells how an order went, or that a program ended.
type answer struct {
	PID    int    `json:"pid,omitzero"`
	Exited bool   `json:"exited,omitzero"`
	Status uint32 `json:"status,omitzero"` // as wait(2) gives it
	Error  string `json:"error,omitzero"`
}
