package stop_test

import (
	"bufio"
	"context"
	"fmt"
	"net"

	stop "github.com/stopd/stopd"
)

// A daemon's side: parse the line, keep a report, answer with its token.
func Example() {
	request, err := stop.ParseRequest([]byte("968, 23: SV_REC: 92847523456"))
	if err != nil {
		fmt.Println(err)
		return
	}
	report := []byte("the exact bytes of what was saved")
	reply := stop.Reply{
		Local: request.Local, Remote: request.Remote,
		System: "OTHER", UserID: stop.TokenOf(report).String(),
	}
	fmt.Println(request)
	fmt.Println(reply)
	// Output:
	// 968 , 23 : SV_REC : 92847523456
	// 968 , 23 : USERID : OTHER : szrdhsx2yribgoulrn7b3brm5eyy2skt5sbmo2hxgeei2uawbkcqq
}

// The asking side, and a daemon that knows RFC 1413 alone.
func ExampleClient_Ask() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		bufio.NewReader(conn).ReadString('\n')
		fmt.Fprint(conn, "968 , 23 : USERID : UNIX : alice\r\n")
	}()

	var client stop.Client
	host := listener.Addr().(*net.TCPAddr).AddrPort()
	answer, err := client.Ask(context.Background(), host, stop.Request{Local: 968, Remote: 23, Type: stop.SV})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Sent)
	fmt.Println(answer.Kind, answer.Line)
	// Output:
	// 968 , 23 : SV
	// legacy 968 , 23 : USERID : UNIX : alice
}
