package tokens

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
)

// A Query says which records are looked for. Where several things are set all of them have to hold.
type Query struct {
	// Flow are both ends of a connection, in either order, on either side of a gateway.
	Flow [2]netip.AddrPort
	// End is one end of a connection, on either side of a gateway, of any port where its port is 0.
	End       netip.AddrPort
	Community string
	// From and To bound when the connection was seen.
	From, To time.Time
	// Limit bounds how many records are found.
	Limit int
}

// Find returns records in the order in which their connections were seen, and whether there are more than the limit.
func (s *Store) Find(ctx context.Context, q Query) (found []Record, more bool, err error) {
	if q.Limit <= 0 {
		return nil, false, errors.New("find tokens: no limit")
	}
	if found, err = s.find(ctx, q); err != nil {
		return nil, false, fmt.Errorf("find tokens: %w", err)
	}
	slices.SortStableFunc(found, func(a, b Record) int { return cmp.Or(a.Seen.Compare(b.Seen), a.Asked.Compare(b.Asked)) })
	if len(found) > q.Limit {
		return found[:q.Limit], true, nil
	}
	return found, false, nil
}

// find sees one state of the store, whatever expires meanwhile.
func (s *Store) find(ctx context.Context, q Query) (found []Record, err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	tables := []string{"token"}
	if !s.kind.whole {
		days, err := readDays(ctx, tx)
		if err != nil {
			return nil, err
		}
		tables = nil
		for _, d := range slices.Sorted(maps.Keys(days)) {
			tables = append(tables, tableOf(d))
		}
	}
	seeds, err := readSeeds(ctx, tx)
	if err != nil {
		return nil, err
	}
	where, args := q.where(seeds)
	for _, table := range tables {
		text := fmt.Sprintf("select %s from %s where %s order by seen limit %d", names, table, where, q.Limit+1)
		rs, err := read(ctx, tx, s.kind.text(text), args)
		if err != nil {
			return nil, err
		}
		found = append(found, rs...)
	}
	return found, nil
}

// where is the condition of a query. The time stands beside each end, so that both indexes of ends are bounded by it.
func (q Query) where(seeds []uint16) (string, []any) {
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "?" + strconv.Itoa(len(args))
	}
	times := ""
	if !q.From.IsZero() {
		times += " and seen >= " + arg(q.From.UnixMicro())
	}
	if !q.To.IsZero() {
		times += " and seen <= " + arg(q.To.UnixMicro())
	}
	var all []string
	if times != "" {
		all = append(all, strings.TrimPrefix(times, " and "))
	}
	community := func(ids ...string) {
		for i, id := range ids {
			ids[i] = arg(id)
		}
		in := " in (" + strings.Join(ids, ", ") + ")"
		all = append(all, "(community"+in+" or far_community <> '' and far_community"+in+")")
	}
	if q.Flow[0].IsValid() {
		var ids []string
		for _, seed := range seeds {
			ids = append(ids, flows.CommunityID(flows.TCP, q.Flow[0], q.Flow[1], seed))
		}
		community(ids...)
	}
	if q.Community != "" {
		community(q.Community)
	}
	if q.End.Addr().IsValid() {
		addr, port := arg(q.End.Addr().String()), ""
		if q.End.Port() != 0 {
			port = arg(int32(q.End.Port()))
		}
		is := func(end string) string {
			text := end + " = " + addr + times
			if strings.HasPrefix(end, "far_") {
				text += " and " + end + " <> ''" // as their indexes have it
			}
			if port != "" {
				text += " and " + end + "_port = " + port
			}
			return "(" + text + ")"
		}
		all = append(all, "("+is("source")+" or "+is("destination")+" or "+is("far_source")+" or "+is("far_destination")+")")
	}
	if len(all) == 0 {
		return "1 = 1", nil
	}
	return strings.Join(all, " and "), args
}

func read(ctx context.Context, tx *sql.Tx, text string, args []any) ([]Record, error) {
	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []Record
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, rows.Err()
}

func scan(rows *sql.Rows) (Record, error) {
	var w row
	if err := rows.Scan(&w.seen, &w.asked, &w.near.community, &w.near.source, &w.near.sourcePort, &w.near.destination, &w.near.destPort,
		&w.far.community, &w.far.source, &w.far.sourcePort, &w.far.destination, &w.far.destPort, &w.host, &w.hostPort, &w.kind, &w.sid, &w.token, &w.fail, &w.input, &w.alert); err != nil {
		return Record{}, err
	}
	r := Record{Seen: time.UnixMicro(w.seen).UTC(), Asked: time.UnixMicro(w.asked).UTC(), Token: w.token, Error: w.fail, Input: w.input, Alert: w.alert}
	var errs [7]error
	r.Source, errs[0] = endOf(w.near.source, w.near.sourcePort)
	r.Destination, errs[1] = endOf(w.near.destination, w.near.destPort)
	r.Host, errs[2] = endOf(w.host, w.hostPort)
	r.Type, errs[3] = stop.ParseType(w.kind)
	r.SID, errs[4] = strconv.ParseUint(w.sid, 10, 64)
	if w.far.source != "" {
		r.FarSource, errs[5] = endOf(w.far.source, w.far.sourcePort)
		r.FarDestination, errs[6] = endOf(w.far.destination, w.far.destPort)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	return r, nil
}

func endOf(addr string, port int32) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err == nil && (port < 0 || port > 65535) {
		err = fmt.Errorf("port %d", port)
	}
	return netip.AddrPortFrom(a, uint16(port)), err
}
