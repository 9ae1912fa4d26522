package tokens

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"
)

// A kind is what differs between SQLite and PostgreSQL. Statements are written with ?1, ?2 and so on.
type kind struct {
	// migrations are the statements that each lead to the next version of the tables.
	migrations [][]string
	// lock is held until the end of a transaction, "" where transactions that write wait for one another anyway.
	lock      string
	dollars   bool // for ?
	createDay func(day int64) []string
	insert    func(ctx context.Context, tx *sql.Tx, day int64, rows []row) error
	// whole is set where the table of all days finds a record on whichever day it is.
	whole bool
}

const columns = `(
	seen bigint not null, asked bigint not null,
	community text not null,
	source text not null, source_port integer not null, destination text not null, destination_port integer not null,
	far_community text not null,
	far_source text not null, far_source_port integer not null, far_destination text not null, far_destination_port integer not null,
	host text not null, host_port integer not null,
	type text not null, sid text not null, token text not null, error text not null,
	input text not null, alert text not null
)`

// names are the columns, in the order of a row.
const names = "seen, asked, community, source, source_port, destination, destination_port, far_community, far_source, far_source_port, far_destination, far_destination_port, host, host_port, type, sid, token, error, input, alert"

// seedTable has the seeds of the Community IDs that are kept: gateways that share a database need not have the same.
const seedTable = "create table token_seed (seed integer primary key)"

// keeperTable has for how long each host that adds records keeps them, and when it last said so.
const keeperTable = "create table token_keeper (host text primary key, keep bigint not null, at bigint not null)"

// indexed is what is looked for: a time, a Community ID (and so a flow), an end within a time; each of those beyond a gateway as well, of the records that have them.
var indexed = []string{"(seen)", "(community)", "(source, seen)", "(destination, seen)",
	"(far_community) where far_community <> ''", "(far_source, seen) where far_source <> ''", "(far_destination, seen) where far_destination <> ''"}

// tableOf is the name of a day's table.
func tableOf(d int64) string {
	return "token_" + time.Unix(d*int64(day/time.Second), 0).UTC().Format("20060102")
}

var sqlite = &kind{
	migrations: [][]string{{"create table token_day (day bigint primary key)"}, {seedTable, keeperTable}},
	createDay: func(d int64) []string {
		statements := []string{"create table " + tableOf(d) + " " + columns}
		for i, c := range indexed {
			statements = append(statements, fmt.Sprintf("create index %s_%d on %[1]s %[3]s", tableOf(d), i, c))
		}
		return statements
	},
	insert: insertEach,
}

var postgres = &kind{
	migrations: [][]string{append([]string{
		"create table token_day (day bigint primary key)",
		"create table token " + columns + " partition by range (asked)",
	}, indexes()...), {seedTable, keeperTable}},
	lock:    "select pg_advisory_xact_lock(1398034256)", // any number that no other program takes: this is "STOP" in ASCII
	dollars: true,
	createDay: func(d int64) []string {
		return []string{fmt.Sprintf("create table %s partition of token for values from (%d) to (%d)", tableOf(d), d*day.Microseconds(), (d+1)*day.Microseconds())}
	},
	insert: insertArrays,
	whole:  true,
}

func indexes() (statements []string) {
	for i, c := range indexed {
		statements = append(statements, fmt.Sprintf("create index token_%d on token %s", i, c))
	}
	return statements
}

// text is a statement as the database has it.
func (k *kind) text(s string) string {
	if k.dollars {
		return strings.ReplaceAll(s, "?", "$")
	}
	return s
}

// locked takes the lock under which tables are made and dropped.
func (k *kind) locked(ctx context.Context, tx *sql.Tx) error {
	if k.lock == "" {
		return nil // transactions begin as writers (_txlock=immediate, the driver's default)
	}
	_, err := tx.ExecContext(ctx, k.lock)
	return err
}

// migrate brings the tables to the newest version, each step whole or not at all.
func migrate(ctx context.Context, db *sql.DB, k *kind, migrations [][]string) error {
	return transaction(ctx, db, func(tx *sql.Tx) error {
		if err := k.locked(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "create table if not exists token_schema (version integer not null)"); err != nil {
			return fmt.Errorf("make tables: %w", err)
		}
		version, err := versionOf(ctx, tx)
		if err != nil {
			return err
		}
		if version > len(migrations) {
			return fmt.Errorf("%w: %d, and this program has %d", ErrVersion, version, len(migrations))
		}
		for i, statements := range migrations[version:] {
			for _, s := range statements {
				if _, err := tx.ExecContext(ctx, s); err != nil {
					return fmt.Errorf("make tables of version %d: %w", version+i+1, err)
				}
			}
		}
		if version == len(migrations) {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "delete from token_schema"); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, k.text("insert into token_schema (version) values (?1)"), len(migrations))
		return err
	})
}

func versionOf(ctx context.Context, q interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (version int, err error) {
	if err := q.QueryRowContext(ctx, "select coalesce(max(version), 0) from token_schema").Scan(&version); err != nil {
		return 0, fmt.Errorf("read version of the tables: %w", err)
	}
	return version, nil
}

// current is an error where the tables are of another version.
func current(ctx context.Context, db *sql.DB, want int) error {
	version, err := versionOf(ctx, db)
	if err == nil && version != want {
		err = fmt.Errorf("%w: %d, and this program has %d", ErrVersion, version, want)
	}
	return err
}

// insertEach inserts row by row, which costs SQLite nothing.
func insertEach(ctx context.Context, tx *sql.Tx, d int64, rows []row) error {
	statement, err := tx.PrepareContext(ctx, "insert into "+tableOf(d)+" ("+names+") values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer statement.Close()
	for _, r := range rows {
		if _, err := statement.ExecContext(ctx, r.seen, r.asked, r.near.community, r.near.source, r.near.sourcePort, r.near.destination, r.near.destPort,
			r.far.community, r.far.source, r.far.sourcePort, r.far.destination, r.far.destPort, r.host, r.hostPort, r.kind, r.sid, r.token, r.fail, r.input, r.alert); err != nil {
			return err
		}
	}
	return nil
}

// insertArrays hands all rows over at once, a column an array: PostgreSQL is asked once, not once a row.
func insertArrays(ctx context.Context, tx *sql.Tx, _ int64, rows []row) error {
	const statement = "insert into token (" + names + `) select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::integer[],
		$8::text[], $9::text[], $10::integer[], $11::text[], $12::integer[], $13::text[], $14::integer[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[])`
	args := []any{column(rows, func(r row) int64 { return r.seen }), column(rows, func(r row) int64 { return r.asked })}
	for _, of := range []func(row) ends{func(r row) ends { return r.near }, func(r row) ends { return r.far }} {
		args = append(args, column(rows, func(r row) string { return of(r).community }),
			column(rows, func(r row) string { return of(r).source }), column(rows, func(r row) int32 { return of(r).sourcePort }),
			column(rows, func(r row) string { return of(r).destination }), column(rows, func(r row) int32 { return of(r).destPort }))
	}
	args = append(args, column(rows, func(r row) string { return r.host }), column(rows, func(r row) int32 { return r.hostPort }))
	for _, of := range []func(row) string{func(r row) string { return r.kind }, func(r row) string { return r.sid }, func(r row) string { return r.token },
		func(r row) string { return r.fail }, func(r row) string { return r.input }, func(r row) string { return r.alert }} {
		args = append(args, column(rows, of))
	}
	_, err := tx.ExecContext(ctx, statement, args...)
	return err
}

func column[T any](rows []row, of func(row) T) []T {
	values := make([]T, len(rows))
	for i, r := range rows {
		values[i] = of(r)
	}
	return values
}
