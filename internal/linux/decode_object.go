package linux

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
)

// An object is what a descriptor refers to, small enough to index every descriptor of a host.
type object struct {
	class byte
	dev   uint64 // of a FIFO, file or terminal: the file system it is on; of a device its major number; of System V's the IPC namespace; else 0
	n     uint64 // inode, or the number of the terminal or device
}

// Classes of objects that channels are made of. Their names are those that /proc/PID/fd shows, or look alike.
const (
	socketObject = 's'
	pipeObject   = 'p'
	fifoObject   = 'f'
	masterObject = 'm'
	slaveObject  = 't'
	fileObject   = 'r' // a regular file, or memory that is one to the kernel
	sysvObject   = 'y' // a System V shared memory segment: its IPC namespace and id
	queueObject  = 'q' // a System V message queue, likewise
	semObject    = 'w' // a set of System V semaphores, likewise
	eventObject  = 'e' // an eventfd, by the kernel's own number
	ringObject   = 'u' // an io_uring instance
	ttyObject    = 'c' // a terminal that is a device of its own
	traceObject  = 'x' // a process that another one traces: its pid
	fuseObject   = 'v' // a file system that a process serves: its device

	// These the index has of descriptors of which only a closer look tells more.
	deviceObject = 'd' // a character device
	anonObject   = 'a' // an anonymous file: most share one inode
)

var classNames = map[byte]string{socketObject: "socket", pipeObject: "pipe", fifoObject: "fifo", masterObject: "ptm", slaveObject: "pts",
	fileObject: "file", sysvObject: "shm", queueObject: "msg",
	semObject: "sem", eventObject: "eventfd", ringObject: "io_uring", ttyObject: "tty", traceObject: "ptrace", fuseObject: "fuse",
	deviceObject: "device", anonObject: "anon_inode"}

func (o object) name() host.Object {
	if o.class == 0 {
		return ""
	}
	if o.class == socketObject || o.class == pipeObject {
		return host.Object(classNames[o.class] + ":[" + strconv.FormatUint(o.n, 10) + "]")
	}
	return host.Object(fmt.Sprintf("%s:[%d:%d]", classNames[o.class], o.dev, o.n))
}

// parseObject is the inverse of name; false for a text that no object has.
func parseObject(s host.Object) (object, bool) {
	class, rest, ok := strings.Cut(string(s), ":[")
	rest, ok2 := strings.CutSuffix(rest, "]")
	if !ok || !ok2 {
		return object{}, false
	}
	var o object
	for c, n := range classNames {
		if n == class {
			o.class = c
		}
	}
	dev, n, two := strings.Cut(rest, ":")
	if !two {
		dev, n = "0", rest
	}
	var err, err2 error
	o.dev, err = strconv.ParseUint(dev, 10, 64)
	o.n, err2 = strconv.ParseUint(n, 10, 64)
	if err != nil || err2 != nil || o.name() != s {
		return object{}, false
	}
	return o, true
}

// peer returns the other end where the object alone tells it: the two sides of a terminal, and for what all hold in common,
// as a pipe, that itself.
func (o object) peer() object {
	switch o.class {
	case masterObject:
		return object{slaveObject, o.dev, o.n}
	case slaveObject:
		return object{masterObject, o.dev, o.n}
	case 0, socketObject, deviceObject, anonObject:
		return object{}
	}
	return o
}
