package tokens

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
)

// server is PostgreSQL on a host of a lab, for all tests of the package. It is spoken to by its socket in that host's root.
var server struct {
	once      sync.Once
	end       []func() error
	at        string
	databases atomic.Int32
	err       error
}

func TestMain(m *testing.M) {
	netlab.Init()
	code := m.Run()
	for i := len(server.end) - 1; i >= 0; i-- {
		if err := server.end[i](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// newPostgres returns the address of a database that is empty.
func newPostgres(t *testing.T) string {
	t.Helper()
	netlab.Require(t)
	server.once.Do(func() { server.err = startPostgres() })
	if server.err != nil {
		t.Fatal(server.err)
	}
	name := fmt.Sprintf("tokens%d", server.databases.Add(1))
	db, err := openDB("pgx", "postgres://postgres@/postgres?host="+server.at)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	return "postgres://postgres@/" + name + "?host=" + server.at
}

func startPostgres() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	lab, err := netlab.New(ctx, "postgresql")
	if err != nil {
		return err
	}
	server.end = append(server.end, lab.Close)
	h, err := lab.AddHost(ctx, "db")
	if err != nil {
		return err
	}
	if err := h.AddSystemUser("postgres", 981); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	const initialize = `install -d -o postgres /var/lib/pg && setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/15/bin/initdb -D /var/lib/pg -A trust`
	if _, err := h.Run(ctx, "sh", "-c", initialize); err != nil {
		return err
	}
	if _, err := h.StartAs("postgres", "/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/pg", "-k", "/tmp", "-h", ""); err != nil {
		return err
	}
	server.at = h.Path("/tmp")
	return netlab.WaitFor(ctx, func() (bool, error) {
		_, err := h.Run(ctx, "psql", "-h", "/tmp", "-U", "postgres", "-c", "select 1", "postgres")
		return err == nil, nil
	})
}
