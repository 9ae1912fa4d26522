package server

import (
	"net"
	"testing"
)

// Where a gateway cannot tell whether a question was sent to another host, it does not hear it; a host that is none does not ask.
func TestSentToUnknown(t *testing.T) {
	for _, forwards := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		there, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sentTo(c); err != nil {
			t.Errorf("a connection that is there: %v", err)
		}
		c.Close() // the kernel cannot be asked about it
		if _, err := sentTo(c); err == nil {
			t.Error("no error of one that is closed")
		}
		cfg := testConfig()
		cfg.Forwards = forwards
		s := newServer(&fake{}, cfg)
		if admitted := s.admitted(c) != nil; admitted == forwards {
			t.Errorf("on a gateway %t: admitted is %t", forwards, admitted)
		}
	}
}
