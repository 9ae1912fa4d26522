package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/internal/optin"
	"github.com/stopd/stopd/server"
)

func setupInit(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	dir := fs.String("dir", "", "put everything below this `directory` (default /etc/stopd, /var/lib/stopd, and the private key here)")
	listen := fs.String("listen", "", "the `address` and port to answer on (default [::]:113)")
	var recipients, behalf many
	fs.Var(&recipients, "recipient", "an administrator's age public `key`, instead of a new pair; may be repeated")
	fs.Var(&behalf, "on-behalf", "an address or `prefix` that may ask on behalf of other hosts; may be repeated")
	oidentd := fs.String("from-oidentd", "", "make the configuration what an oidentd.conf in this `file` says, and print what has another form here, or none")
	config := fs.String("config", "", "make the store and the host's keys for the configuration in this `file`, which is there already")
	return func(_ context.Context, std stdio, _ []string) error {
		if *config != "" {
			if fs.NFlag() > 1 {
				return usageError("-config goes with no other flag: the configuration says the rest")
			}
			return initFor(*config, std)
		}
		p, err := placesOf(*dir)
		if err != nil {
			return err
		}
		c := daemon.Defaults()
		c.Store = p.store
		if *listen != "" {
			c.Listen = []string{*listen}
		}
		for _, b := range behalf {
			var n daemon.Network
			if err := n.UnmarshalText([]byte(b)); err != nil {
				return usageError("-on-behalf: %w", err)
			}
			c.OnBehalf = append(c.OnBehalf, n)
		}
		c.Recipients = recipients
		notes, err := fromOidentd(*oidentd, &c)
		if err != nil {
			return err
		}
		key, err := p.write(c)
		if err != nil {
			return err
		}
		if err := p.print(p.config, std); err != nil {
			return err
		}
		for _, n := range notes {
			fmt.Fprintln(std.err, n)
		}
		if key != "" {
			fmt.Fprintf(std.err, "private key:   %s\n  Whoever has it can open every report. Move it off this host, and keep a copy.\n", key)
		}
		return nil
	}
}

// fromOidentd puts into a configuration what an oidentd.conf says, and returns what is to be said of the rest, by lines. Without a file it is nothing.
func fromOidentd(file string, c *daemon.Config) (notes []string, err error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read oidentd's configuration: %w", err)
	}
	from, err := optin.FromOidentd(text)
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("translate %s: %w", file, err)}
	}
	if from.Everybody {
		notes = append(notes, "names:         oidentd told everybody the user's name, stopd tells nobody. Who needs names, as an IRC network or a database: hosts of a [[peer]] with names = true")
	}
	var told []string
	for _, a := range from.Names {
		told = append(told, a.String())
		c.Peers = append(c.Peers, daemon.Peer{Hosts: []daemon.Network{{Prefix: netip.PrefixFrom(a, a.BitLen())}}, Names: true, System: server.SystemUnix})
	}
	if len(told) > 0 {
		notes = append(notes, "names:         told to "+strings.Join(told, ", ")+" alone")
	}
	for _, n := range from.Notes {
		notes = append(notes, fmt.Sprintf("%s:%d: %s", file, n.Line, n.Text))
	}
	return notes, nil
}

// initFor makes what a configuration that is there lacks to be used: the store and the host's keys. Where all of it is there, that is well:
// what brings configurations says so at each start.
func initFor(config string, std stdio) error {
	c, err := daemon.Load(config)
	if err != nil {
		return err
	}
	p := places{store: c.Store}
	if p.logKey, err = evidence.LogKeyPath(c.Store); err != nil {
		return fmt.Errorf("find log key: %w", err)
	}
	if p.tlsKey, err = daemon.TLSKeyPath(c.Store); err != nil {
		return fmt.Errorf("find TLS key: %w", err)
	}
	if there(p.store, p.logKey, p.tlsKey) {
		fmt.Fprintf(std.err, "%s is there already, with its keys: nothing was written\n", p.store)
		return nil
	}
	if _, err := p.write(c); err != nil {
		return err
	}
	return p.print(config, std)
}

// places are where init puts things. Without config the configuration is there already.
type places struct{ config, store, logKey, tlsKey, adminKey string }

// print says what was made.
func (p places) print(config string, std stdio) error {
	host, err := daemon.ReadTLSKey(p.tlsKey)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.err, "configuration: %s\nstore:         %s\nlog key:       %s\nTLS key:       %s\n  Its pin, for others' [[peer]]: %s\n",
		config, p.store, p.logKey, p.tlsKey, stop.PinOf(host.Leaf))
	return nil
}

func placesOf(dir string) (places, error) {
	if dir == "" {
		return places{defaultConfig, "/var/lib/stopd/store", "/var/lib/stopd/log.key", "/var/lib/stopd/tls.key", "admin.key"}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return places{}, fmt.Errorf("find -dir: %w", err)
	}
	j := func(name string) string { return filepath.Join(dir, name) }
	return places{j("stopd.toml"), j("store"), j("log.key"), j("tls.key"), j("admin.key")}, nil
}

// write makes all files, or none: it looks first whether one is there already, and removes what it made where
// one fails. The keys come first, and the store, which is of no use without the rest, last. It returns the path
// of the private key, if there is a new one.
func (p places) write(c daemon.Config) (adminKey string, err error) {
	if len(c.Recipients) == 0 {
		adminKey = p.adminKey
	}
	if err := absent(p.config, p.store, p.logKey, p.tlsKey, adminKey); err != nil {
		return "", err
	}
	var secret string
	if adminKey != "" {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return "", fmt.Errorf("make administrator key: %w", err)
		}
		c.Recipients = []string{id.Recipient().String()}
		secret = fmt.Sprintf("# the administrator's key of stopd\n# public key: %s\n%s\n", id.Recipient(), id)
	}
	config := daemon.Template(c)
	if _, err := daemon.Parse(config); err != nil {
		return "", &exitError{exitUsage, err} // a recipient or address that does not parse
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find host name: %w", err)
	}
	logKey, err := translog.GenerateKey(name)
	if err != nil {
		return "", err
	}
	key, err := translog.ParseKey(logKey)
	if err != nil {
		return "", err
	}
	tlsKey, err := daemon.GenerateTLSKey()
	if err != nil {
		return "", err
	}
	var w writing
	if adminKey != "" {
		w.file(adminKey, []byte(secret))
	}
	w.file(p.logKey, logKey)
	w.file(p.tlsKey, tlsKey)
	if p.config != "" {
		w.file(p.config, config)
	}
	w.store(p.store, key)
	if w.err != nil {
		return "", w.undo()
	}
	return adminKey, nil
}

// there says whether there is something at each path.
func there(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(path string) bool { _, err := os.Lstat(path); return err != nil })
}

// absent returns an error where there is something already.
func absent(paths ...string) error {
	for _, path := range paths {
		if path == "" {
			continue
		}
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is there already: nothing was written", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %s: %w", path, err)
		}
	}
	return nil
}

// A writing makes files until one fails, and remembers them.
type writing struct {
	made []string // the last is to be removed first
	err  error
}

// directory makes a directory and the parents that it lacks.
func (w *writing) directory(path string) {
	if w.err != nil {
		return
	}
	err := os.Mkdir(path, 0o700)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		if w.directory(parent); w.err != nil {
			return
		}
		err = os.Mkdir(path, 0o700)
	}
	switch {
	case err == nil:
		w.made = append(w.made, path)
	case !errors.Is(err, fs.ErrExist):
		w.err = fmt.Errorf("make directory: %w", err)
	}
}

// file makes a file that is its owner's alone.
func (w *writing) file(path string, content []byte) {
	if w.directory(filepath.Dir(path)); w.err != nil {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		w.err = fmt.Errorf("write: %w", err)
		return
	}
	w.made = append(w.made, path)
	_, err = f.Write(content)
	w.err = errors.Join(err, f.Close())
}

// store makes the store, which was not there, and its lock, which may have been.
func (w *writing) store(path string, key translog.Key) {
	if w.directory(filepath.Dir(path)); w.err != nil {
		return
	}
	lock := path + ".lock"
	if _, err := os.Lstat(lock); errors.Is(err, fs.ErrNotExist) {
		w.made = append(w.made, lock)
	}
	if w.err = evidence.Create(path, key); w.err != nil {
		w.made = append(w.made, path)
		os.RemoveAll(path) // what it holds; undo says what could not be removed
	}
}

// undo removes what was made, and returns why, with what could not be removed.
func (w *writing) undo() error {
	for _, path := range slices.Backward(w.made) {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.err = fmt.Errorf("%w (%w)", w.err, err)
		}
	}
	return w.err
}
