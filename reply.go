package stop

import (
	"errors"
	"fmt"
	"strings"
)

// An ErrorWord is the word of an error reply. Besides the words below there are those that begin with X,
// of two to 64 printable ASCII characters without blanks and colons.
type ErrorWord string

// The error words of RFC 1413. HiddenUser is read and never sent: a reply that names no user has nothing
// to hide (thesis section 3.1.2).
const (
	InvalidPort  ErrorWord = "INVALID-PORT"
	NoUser       ErrorWord = "NO-USER"
	UnknownError ErrorWord = "UNKNOWN-ERROR"
	HiddenUser   ErrorWord = "HIDDEN-USER"
)

// Bounds of a reply, in octets. RFC 1413 obliges clients to read 512 octets of user identification and
// keeps its other tokens to 64; a daemon that sends our suffix back may add up to another line.
const (
	MaxReply     = 1200 // a reply line, its line ending not counted
	maxUserID    = 512
	maxReplyWord = 64
)

// A Reply answers one request: with a token or, from a daemon that does not speak STOP, a user name in
// UserID, or with an error word in Error, in which case System, Charset and UserID are empty.
type Reply struct {
	Local, Remote   uint64 // as in the request; 0 and 0 in an error reply to what could not be parsed
	System, Charset string // upper case; Charset is mostly empty
	UserID          string // as it came, 1 to 512 octets without NUL, CR and LF: see [Printable]
	Error           ErrorWord
}

// String returns the reply without its line ending, "968 , 23 : USERID : OTHER : token" or
// "968 , 23 : ERROR : NO-USER", with exactly these blanks: stunnel wants both around USERID.
func (r Reply) String() string {
	line := formatPorts(r.Local, r.Remote)
	if r.Error != "" {
		return line + " : ERROR : " + string(r.Error)
	}
	line += " : USERID : " + r.System
	if r.Charset != "" {
		line += " , " + r.Charset
	}
	return line + " : " + r.UserID
}

// Line returns the reply with its line ending, to be sent in one write: some clients read once.
func (r Reply) Line() []byte { return []byte(r.String() + "\r\n") }

// ParseReply parses one reply line, without its line ending, to the request asked. The ports must be
// those that were asked about; only an error may have the ports 0 , 0, as daemons answer what they cannot
// parse. Of a daemon that sends parts of our line back, the parts are dropped: all that may stand between
// the ports and the word USERID or ERROR is a beginning of asked's own line. On failure the Reply is zero
// and the error is a [*SyntaxError].
func ParseReply(line []byte, asked Request) (Reply, error) {
	r, err := parseReply(string(line), asked)
	if err != nil {
		return Reply{}, syntaxError("reply", string(line), MaxReply, err)
	}
	return r, nil
}

func parseReply(line string, asked Request) (r Reply, err error) {
	if len(line) > MaxReply {
		return r, fmt.Errorf("longer than %d octets", MaxReply)
	}
	if i := strings.IndexAny(line, "\x00\r\n"); i >= 0 {
		return r, fmt.Errorf("octet 0x%02x at %d", line[i], i)
	}
	ports, rest, _ := cut(line, ":")
	if r.Local, r.Remote, err = parsePorts(ports); err != nil {
		return r, err
	}
	word, rest, err := dropEcho(rest, asked)
	if err != nil {
		return r, err
	}
	unparsed := word == "ERROR" && r.Local == 0 && r.Remote == 0
	if !unparsed && (r.Local != asked.Local || r.Remote != asked.Remote) {
		return r, fmt.Errorf("ports are not %s", formatPorts(asked.Local, asked.Remote))
	}
	if word == "ERROR" {
		r.Error, err = parseErrorWord(rest)
		return r, err
	}
	system, user, found := cut(rest, ":")
	if !found {
		return r, errors.New("no user identification")
	}
	if r.System, r.Charset, err = parseSystem(system); err != nil {
		return r, err
	}
	// RFC 1413 counts the blanks here as part of the user identification; the blank that nearly every
	// daemon, ours too, sends after the colon is part of nobody's name.
	r.UserID = strings.Trim(user, blanks)
	if r.UserID == "" || len(r.UserID) > maxUserID {
		return r, fmt.Errorf("user identification is not 1 to %d octets", maxUserID)
	}
	return r, nil
}

// dropEcho finds the first field of rest, which begins after the colon that ends the ports, that is
// USERID or ERROR, and returns that word in upper case and what follows its colon. Earlier fields must
// come from asked: nullidentd puts the first 20 octets of a request before its answer, wherever that cuts
// it, as in "968 , 23 : SV_REC :  : USERID : UNIX : foo".
func dropEcho(rest string, asked Request) (word, after string, err error) {
	_, suffix, _ := strings.Cut(asked.String(), ":")
	for at := 0; ; {
		field, after, more := cut(rest[at:], ":")
		if !more {
			return "", "", errors.New("neither USERID nor ERROR")
		}
		word = upper(field)
		if word == "USERID" || word == "ERROR" {
			echo := rest[:max(at-1, 0)]
			if !strings.HasPrefix(withoutBlanks(suffix), withoutBlanks(echo)) {
				return "", "", errors.New("neither USERID nor ERROR after the ports")
			}
			return word, after, nil
		}
		at = len(rest) - len(after)
	}
}

func withoutBlanks(s string) string {
	return strings.NewReplacer(" ", "", "\t", "").Replace(s)
}

func parseErrorWord(s string) (ErrorWord, error) {
	word := ErrorWord(upper(strings.Trim(s, blanks)))
	switch word {
	case InvalidPort, NoUser, UnknownError, HiddenUser:
		return word, nil
	}
	if len(word) < 2 || word[0] != 'X' || !replyWord(string(word)) || strings.ContainsAny(string(word), " :") {
		return "", errors.New("not an error word")
	}
	return word, nil
}

// parseSystem parses "OTHER" or "UNIX , US-ASCII".
func parseSystem(s string) (system, charset string, err error) {
	system, charset, found := cut(s, ",")
	charset = strings.Trim(charset, blanks)
	if !replyWord(system) || found && !replyWord(charset) {
		return "", "", fmt.Errorf("system or character set is not 1 to %d printable octets", maxReplyWord)
	}
	return upper(system), upper(charset), nil
}

// replyWord reports whether s is a token of RFC 1413: 1 to 64 octets of printable ASCII.
func replyWord(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= maxReplyWord
}
