package integration

import (
	"context"
	"fmt"

	"github.com/stopd/stopd/internal/netlab"
)

// received is what a victim's listener was told.
const received = "/tmp/received"

// users are the accounts on every host. The intruder has taken mallory's and www's; the others belong to
// people and services that have nothing to do with it.
var users = map[string]int{
	"mallory": 1001, "www": 1002,
	"bob": 1101, "carol": 1102, "dave": 1103, "logger": 1201, "service": 1202, "web": 1203, "victim": 1301,
}

// intruders are the users whose processes a scenario starts, and ends.
var intruders = []string{"mallory", "www"}

// innocents are the users that no report of a scenario should need.
var innocents = []int{1101, 1102, 1103, 1201, 1202, 1203}

// Ports and paths of the innocents' services on b.
const (
	echoPort     = 5000
	databasePort = 5001
	webPort      = 8080
	database     = "/tmp/database"
	echoSocket   = "/tmp/echo"
	logFIFO      = "/tmp/log"
	innocentPort = 7001 // on c
)

// startInnocents puts other people to work on b: services with clients of d, sessions of users of d, and
// somebody who is in the middle of logging in.
func (w *world) startInnocents(ctx context.Context) error {
	if err := w.startServices(ctx); err != nil {
		return err
	}
	const request = `GET / HTTP/1.1\r\nHost: b\r\n\r\n`
	if _, err := w.d.Host.StartAs("dave", "clients", "b:22:2", fmt.Sprintf("b:%d:3:hello", echoPort), fmt.Sprintf("b:%d:4:%s", webPort, request)); err != nil {
		return err
	}
	if err := w.startSessions(ctx); err != nil {
		return err
	}
	const want = 2 + 3 + 4 + 3 // logging in, echo, web, sessions
	err := netlab.WaitFor(ctx, func() (bool, error) {
		n, err := w.atWork(ctx)
		w.innocents = n
		return n == want, err
	})
	if err != nil {
		return fmt.Errorf("count innocents: %w; %d connections, want %d", err, w.innocents, want)
	}
	return nil
}

// atWork counts the connections of the innocents' host with b.
func (w *world) atWork(ctx context.Context) (int, error) {
	cs, err := connections(ctx, w.b.Host)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range cs {
		if w.of(w.d, c.remote.Addr()) {
			n++
		}
	}
	return n, nil
}

func (w *world) startServices(ctx context.Context) error {
	h := w.b.Host
	if _, err := h.Run(ctx, "mkfifo", "-m", "0666", logFIFO); err != nil {
		return err
	}
	if err := startVictim(ctx, w.c.Host, innocentPort); err != nil {
		return err
	}
	for _, s := range []struct {
		user string
		argv []string
	}{
		{"service", []string{"socat", fmt.Sprintf("TCP-LISTEN:%d,reuseaddr,fork", echoPort), "EXEC:/bin/cat"}},
		{"service", []string{"socat", "UNIX-LISTEN:" + echoSocket + ",fork,mode=0666", "EXEC:/bin/cat"}},
		{"service", []string{"database", database, fmt.Sprint(databasePort)}},
		{"web", []string{"python3", "-m", "http.server", "--protocol", "HTTP/1.1", fmt.Sprint(webPort)}},
		// It keeps the FIFO open for writing as well, as syslog daemons do: else it ends with the first writer.
		{"logger", []string{"sh", "-c", "exec cat <>" + logFIFO + " >/dev/null"}},
	} {
		if err := w.serve(ctx, s.user, s.argv...); err != nil {
			return err
		}
	}
	for _, port := range []uint16{echoPort, databasePort, webPort} {
		if err := h.WaitListen(ctx, port); err != nil {
			return err
		}
	}
	return nil
}

// serve starts a service on b.
func (w *world) serve(ctx context.Context, user string, argv ...string) error {
	if w.systemd {
		_, err := w.b.Host.Run(ctx, "systemd-run", append([]string{"--quiet", "--collect", "--uid", user}, argv...)...)
		return err
	}
	_, err := w.b.Host.StartAs(user, argv[0], argv[1:]...)
	return err
}

// startSessions logs three users in from d.
func (w *world) startSessions(ctx context.Context) error {
	for _, s := range []struct {
		user string
		ssh  []string
		say  []string
	}{
		{"bob", []string{"-tt", "b"}, []string{
			"sleep infinity >" + logFIFO + " &",
			"tail -f /dev/null | cat | nc.openbsd -U " + database + " &",
			"tail -f /dev/null | socat - UNIX-CONNECT:" + echoSocket + " &",
			"echo at''work; exec tail -f /dev/null",
		}},
		{"carol", []string{"-tt", "b"}, []string{
			"sleep infinity >" + logFIFO + " &",
			fmt.Sprintf("tail -f /dev/null | nc.traditional 127.0.0.1 %d &", databasePort),
			"tail -f /dev/null | socat - UNIX-CONNECT:" + echoSocket + " &",
			fmt.Sprintf("echo at''work; exec nc.traditional %s %d", w.c.Host.Addr(), innocentPort),
		}},
		{"dave", []string{"b", "echo at''work; exec cat"}, nil},
	} {
		session, err := netlab.Open(w.d.Host.CommandAs(ctx, s.user, "ssh", s.ssh...))
		if err != nil {
			return err
		}
		ends = append(ends, session.Close)
		for _, line := range s.say {
			if err := session.Send(line); err != nil {
				return err
			}
		}
		if _, err := session.Expect(ctx, "atwork"); err != nil {
			return err
		}
	}
	// The last word is said before the last program runs: its connection is what is waited for.
	n := 0
	err := netlab.WaitFor(ctx, func() (bool, error) {
		cs, err := connections(ctx, w.b.Host)
		n = 0
		for _, c := range cs {
			if c.remote.Port() == innocentPort || c.local.Port() == databasePort {
				n++
			}
		}
		return n == 2, err
	})
	if err != nil {
		return fmt.Errorf("start sessions: %w; %d connections of their programs", err, n)
	}
	return nil
}
