// Goproxy relays each connection to a port by one of its own: goproxy PORT ADDRESS:PORT plain|splice. It has a goroutine for each
// direction, which copies itself or has the kernel do it (splice(2)).
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3] == "splice"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(port, to string, splice bool) error {
	l, err := net.Listen("tcp4", ":"+port)
	if err != nil {
		return err
	}
	for {
		near, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			far, err := net.Dial("tcp4", to)
			if err != nil {
				near.Close()
				return
			}
			go relay(far, near, splice)
			relay(near, far, splice)
		}()
	}
}

func relay(to, from net.Conn, splice bool) {
	defer to.Close()
	if splice {
		io.Copy(to, from)
	} else {
		io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	}
}
