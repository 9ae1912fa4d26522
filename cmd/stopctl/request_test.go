package main

import (
	"bufio"
	"flag"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// Who begins a trace-back takes a session number that nobody can guess, of 32 bits.
func TestRandomSession(t *testing.T) {
	const times = 64
	seen := map[uint64]bool{}
	var ones uint64
	for range times {
		r, err := requestOf("SV_REC", "", "", "968", "23")
		if err != nil || r.SID >= 1<<32 {
			t.Fatalf("%+v, %v", r, err)
		}
		seen[r.SID] = true
		ones |= r.SID
	}
	if len(seen) < times-1 || ones != 1<<32-1 { // one of some two million runs has a pair that is alike
		t.Errorf("%d numbers of %d differ; their bits are %x", len(seen), times, ones)
	}
}

// An ident daemon takes the ports, leaves out for whom it is asked, and answers for a connection to whoever asks.
func TestIdentOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("on behalf of others is asked from a port below 1024")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	defer func() { l.Close(); <-over }()
	go func() {
		defer close(over)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			io.WriteString(c, "968 , 23 : USERID : UNIX : carol\r\n")
			c.Close()
		}
	}()
	for _, tt := range []struct{ behalf, out, why string }{{"", "carol\n", ""}, {"192.0.2.1", "", "speaks ident only"}} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		run := setupRequest(fs)
		if err := fs.Parse([]string{"-for", tt.behalf}); err != nil {
			t.Fatal(err)
		}
		var out, warning strings.Builder
		err := run(t.Context(), stdio{&out, &warning}, []string{l.Addr().String(), "968", "23"})
		if out.String() != tt.out || (err != nil) != (tt.why != "") || err != nil && !strings.Contains(err.Error(), tt.why) {
			t.Errorf("for %q: %q, %v", tt.behalf, out.String(), err)
		}
	}
}
