package daemon

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/stopd/stopd/server"
)

// Template is a configuration file with every key at its default, to be completed with what differs.
func Template(c Config) []byte {
	var b bytes.Buffer
	w := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	w("# stopd.toml: the configuration of stopd(8). Every key is here; unknown keys are errors.\n")
	w("listen     = %s", list(c.Listen))
	w("store      = %s", strconv.Quote(c.Store))
	w("volatile   = %t  # allow a store on tmpfs, which a reboot empties", c.Volatile)
	w("recipients = %s  # administrators' public keys: reports are sealed to them", list(c.Recipients))
	w("on_behalf  = %s  # who may ask on behalf of other hosts", list(c.OnBehalf))
	w("quorum     = %d  # witnesses that have to cosign a checkpoint; 0 is all", c.Quorum)
	w("\n[reply]\nerrors = %q  # standard, unknown (UNKNOWN-ERROR for every error) or token (a decoy)", c.Reply.Errors)
	w("opt_in = %t  # whether users may let hosts have their names, by ~/.ident", c.Reply.OptIn)
	o := c.Reply.Slots
	w("slots  = {ID = \"%s\", ID_REC = \"%s\", SV = \"%s\", SV_REC = \"%s\"}  # replies leave on multiples of these, so that their time tells less",
		o.ID.Duration, o.IDRec.Duration, o.SV.Duration, o.SVRec.Duration)
	l := c.Limits
	w("\n[limits]")
	w("connections             = %d", l.Connections)
	w("connections_per_source  = %d", l.ConnectionsPerSource)
	w("requests_per_connection = %d", l.RequestsPerConn)
	w(`idle                    = "%s"`, l.Idle.Duration)
	w("lookups                 = %d  # questions examined at once", l.Lookups)
	w("per_source_per_second   = %d", l.PerSourcePerSecond)
	w("burst                   = %d", l.Burst)
	w("per_user_per_second     = %d  # first SV requests on one local user's connections", l.PerUserPerSecond)
	w("user_burst              = %d", l.UserBurst)
	w("askers_per_sid          = %d", l.AskersPerSID)
	w("table                   = %d  # entries of each table in memory", l.Table)
	w("over                    = %q  # decoy or error: what is answered over a bound", l.Over)
	w("deadline                = \"%s\"  # of one trace", l.Deadline.Duration)
	w("processes               = %d  # of one trace", l.Processes)
	w("descriptors             = %d  # of one trace", l.Descriptors)
	w("bytes                   = %d  # of the names, arguments and paths of one trace", l.Bytes)
	w("hub                     = %d  # others' processes, or other hosts, beyond which a service is a hub, which is not followed", l.Hub)
	w("store_bytes             = %d", l.StoreBytes)
	w("retention               = \"%s\"  # how long evidence is kept; older segments of the store are deleted", l.Retention.Duration)
	t := c.Traceback
	w("\n[traceback]")
	w("port         = %d", t.Port)
	w("window       = \"%s\"  # in which a repeated request is a duplicate", t.Window.Duration)
	w("to           = %s  # which previous hosts may be asked", list(t.To))
	w("outbound_to  = %s  # likewise, where this host opened the connection: asking tells the other end", list(t.OutboundTo))
	w("max_previous = %d", t.MaxPrevious)
	w(`timeout      = "%s"`, t.Timeout.Duration)
	w("parallel     = %d", t.Parallel)
	s := c.Save
	w("\n[save]")
	w("arguments   = %q  # off, redact (likely secrets masked) or full", s.Arguments)
	w("host        = %t", s.Host)
	w("cwd         = %t", s.CWD)
	w("exe_hash    = %t", s.ExeHash)
	w("login       = %t", s.Login)
	w("files       = %t", s.Files)
	w("users       = %t", s.Users)
	w("environment = %t  # facts from the processes' environment", s.Environment)
	w("\n[metrics]\nlisten = %s  # where Prometheus reads them, such as \"127.0.0.1:9113\"; empty is nowhere", strconv.Quote(c.Metrics.Listen))
	w("\n[syslog]\nto = %s  # a log server that is told the hash of each record, such as \"udp://192.0.2.9:514\" or \"tcp://192.0.2.9:514\"; empty is none", strconv.Quote(c.Syslog.To))
	w("\n# Who is answered otherwise than the rest; one section a peer, and the longest prefix decides:")
	if len(c.Peers) == 0 {
		w("# [[peer]]\n# hosts  = [\"192.0.2.9\"]\n# system = \"OTHER\"  # or UNIX, for those that refuse OTHER")
		w("# names  = false  # whether ID is answered with the user's name\n# pin    = \"\"  # of its TLS key: then by TLS alone; empty is none")
	}
	for _, p := range c.Peers {
		w("[[peer]]\nhosts  = %s\nsystem = %q\nnames  = %t\npin    = %s", list(p.Hosts), cmp.Or(p.System, server.SystemOther), p.Names, strconv.Quote(p.Pin))
	}
	w("\n# Who is shown the log's checkpoints and cosigns them; one section a witness:")
	if len(c.Witnesses) == 0 {
		w("# [[witness]]\n# url = \"https://witness.example/\"\n# key = \"witness.example/w1+...\"")
	}
	for _, x := range c.Witnesses {
		w("[[witness]]\nurl = %s\nkey = %s", strconv.Quote(x.URL), strconv.Quote(x.Key))
	}
	return b.Bytes()
}

func list[T any](vs []T) string {
	var ss []string
	for _, v := range vs {
		ss = append(ss, strconv.Quote(fmt.Sprint(v)))
	}
	return "[" + strings.Join(ss, ", ") + "]"
}
