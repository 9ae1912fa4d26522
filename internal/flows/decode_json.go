package flows

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An eve is what is read of a record of Suricata (docs.suricata.io, EVE JSON Format).
type eve struct {
	Timestamp string `json:"timestamp"`
	EventType string `json:"event_type"`
	SrcIP     string `json:"src_ip"`
	SrcPort   uint16 `json:"src_port"`
	DestIP    string `json:"dest_ip"`
	DestPort  uint16 `json:"dest_port"`
	Proto     string `json:"proto"`
	Direction string `json:"direction"`
	Alert     *struct {
		Signature   string `json:"signature"`
		SignatureID uint64 `json:"signature_id"`
		Category    string `json:"category"`
		Severity    int    `json:"severity"`
	} `json:"alert"`
	Flow struct {
		SrcIP    string `json:"src_ip"`
		SrcPort  uint16 `json:"src_port"`
		DestIP   string `json:"dest_ip"`
		DestPort uint16 `json:"dest_port"`
	} `json:"flow"`
}

// EVE reads one record of Suricata's EVE log. The ends of a packet that goes back to whoever opened the connection are turned
// round, where the record tells: by "direction", or by the ends of its "flow".
func EVE(line []byte) (Flow, error) {
	f, err := decodeEVE(line)
	if err != nil {
		return Flow{}, fmt.Errorf("read EVE record: %w", err)
	}
	return f, nil
}

func decodeEVE(line []byte) (Flow, error) {
	var r eve
	if err := json.Unmarshal(line, &r); err != nil {
		return Flow{}, err
	}
	if r.SrcIP == "" || r.DestIP == "" {
		return Flow{}, ErrNoFlow
	}
	source, err := end(r.SrcIP, r.SrcPort)
	if err != nil {
		return Flow{}, err
	}
	destination, err := end(r.DestIP, r.DestPort)
	if err != nil {
		return Flow{}, err
	}
	f, err := flow(r.Proto, source, destination)
	if err != nil {
		return Flow{}, err
	}
	opener, err := end(r.Flow.SrcIP, r.Flow.SrcPort)
	switch {
	case err == nil && plain(opener) == f.Destination, err != nil && r.Direction == "to_client":
		f.Source, f.Destination = f.Destination, f.Source
		f.Directed = true
	case err == nil && plain(opener) == f.Source, r.Direction == "to_server", r.EventType == "flow":
		f.Directed = true
	}
	f.Kind = r.EventType
	if r.Alert != nil {
		f.Alert = Alert{Name: r.Alert.Signature, ID: r.Alert.SignatureID, Category: r.Alert.Category, Severity: r.Alert.Severity}
	}
	// Suricata writes the zone as +0100; whoever passes records on, as RFC 3339.
	for _, layout := range []string{"2006-01-02T15:04:05.999999-0700", time.RFC3339Nano} {
		if f.Time, err = time.Parse(layout, r.Timestamp); err == nil {
			break
		}
	}
	if err != nil && r.Timestamp != "" {
		return Flow{}, fmt.Errorf("timestamp %q", r.Timestamp)
	}
	return f, nil
}

// end puts an address and a port together.
func end(addr string, port uint16) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	return netip.AddrPortFrom(a, port), err
}

// A zeekRecord is what is read of a record of Zeek, from JSON or from columns (docs.zeek.org, conn.log and notice.log).
type zeekRecord struct {
	TS     json.RawMessage `json:"ts"`
	Path   string          `json:"_path"`
	OrigH  string          `json:"id.orig_h"`
	OrigP  uint16          `json:"id.orig_p"`
	RespH  string          `json:"id.resp_h"`
	RespP  uint16          `json:"id.resp_p"`
	Proto  string          `json:"proto"`
	Note   string          `json:"note"`
	States string          `json:"conn_state"`
	Lasted float64         `json:"duration"` // seconds
}

func decodeZeekJSON(line []byte) (Flow, error) {
	var r zeekRecord
	if err := json.Unmarshal(line, &r); err != nil {
		return Flow{}, err
	}
	return r.flow(string(bytes.Trim(r.TS, `"`)))
}

func (r zeekRecord) flow(ts string) (Flow, error) {
	if r.OrigH == "" || r.RespH == "" {
		return Flow{}, ErrNoFlow
	}
	source, err := end(r.OrigH, r.OrigP)
	if err != nil {
		return Flow{}, err
	}
	destination, err := end(r.RespH, r.RespP)
	if err != nil {
		return Flow{}, err
	}
	f, err := flow(r.Proto, source, destination)
	if err != nil {
		return Flow{}, err
	}
	f.Directed = true
	f.Alert.Name = r.Note
	switch f.Kind = r.Path; {
	case f.Kind != "":
	case r.Note != "":
		f.Kind = "notice"
	case r.States != "":
		f.Kind = "conn"
	}
	if f.Time, err = zeekTime(ts); err != nil {
		return Flow{}, err
	}
	if math.IsNaN(r.Lasted) || r.Lasted < 0 || r.Lasted > 1<<32 {
		return Flow{}, fmt.Errorf("duration %g", r.Lasted)
	}
	f.Lasted = time.Duration(math.Round(r.Lasted*1e6)) * time.Microsecond
	return f, nil
}

// zeekTime reads seconds since 1970 with decimals, or RFC 3339, as Zeek writes JSON where it was told to.
func zeekTime(ts string) (time.Time, error) {
	if ts == "" {
		return time.Time{}, nil
	}
	if strings.Contains(ts, "T") {
		return time.Parse(time.RFC3339Nano, ts)
	}
	seconds, err := strconv.ParseFloat(ts, 64)
	if err != nil || math.IsNaN(seconds) || math.Abs(seconds) > 1<<40 {
		return time.Time{}, fmt.Errorf("time %q", ts)
	}
	return time.UnixMicro(int64(math.Round(seconds * 1e6))).UTC(), nil
}
