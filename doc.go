// Package stop speaks the wire of the Session Token Protocol (STOP) of Brian Carrier's thesis, an
// extension of the Identification Protocol (RFC 1413). A host asks another, on port 113, who holds one of
// its TCP connections; the answer is not a user name but a [Token], the SHA-256 of a report that the
// answering host keeps for whoever may redeem it.
//
// A [Request] names the connection by its two ports, as the asked host sees them, and says by its [Type]
// how much is to be saved and whether the host is to ask the hosts before it in turn:
//
//	968 , 23                                       RFC 1413, the same as ID
//	968 , 23 : SV                                  save a whole report
//	968 , 23 : SV_REC : 92847523456                and ask the previous hosts
//	968 , 23 : SV_REC : 92847523456 : 192.0.2.7    on behalf of the remote end
//
// A [Reply] carries a token or an error word:
//
//	968 , 23 : USERID : OTHER : s4oymiquy7qobjgx36tejs35zeqt24qpemsnzgtfeswmrw6csxbkq
//	968 , 23 : ERROR : NO-USER
//
// A daemon reads a bounded line, gives it to [ParseRequest], and writes a Reply's [Reply.Line]. A host that
// asks uses a [Client], which also understands ident daemons that do not speak STOP and says so in the
// [Answer]. Parsers are pure, take bytes of strangers, and return the zero value with every error; what
// they return from a [Reply] is still a stranger's text, for [Printable] to escape.
//
// The specification is docs/protocol.md, its test vectors are testdata/vectors.json.
package stop
