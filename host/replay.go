package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Recording is a host at one moment, as `stopctl record` writes it.
type Recording struct {
	Facts   Facts    `json:"host"`
	Sockets []Socket `json:"sockets"`
	// Processes are in the system's own order, which is that of [Snapshot.Holders].
	Processes []Process `json:"processes"`
	Logins    []Login   `json:"logins,omitzero"`
	// Accepted is what [Snapshot.Accepted] returned of those who may have let somebody in.
	Accepted []Login `json:"accepted,omitzero"`
	Gaps     []Gap   `json:"gaps,omitzero"`
	// Remembered is what [Snapshot.Remembered] returned of the processes, and of those that made them.
	Remembered []Remembered `json:"remembered,omitzero"`
}

// ParseRecording reads a recording. On failure it is zero.
func ParseRecording(b []byte) (Recording, error) {
	var r Recording
	if err := json.Unmarshal(b, &r); err != nil {
		return Recording{}, fmt.Errorf("parse recording: %w", err)
	}
	return r, nil
}

// Record records what a snapshot shows of the given processes, and the sockets they hold.
func Record(ctx context.Context, h Host, s Snapshot, pids []int) (Recording, error) {
	var r Recording
	var gaps []Gap
	r.Facts, gaps = h.Facts(ctx)
	seen := map[Object]bool{}
	for _, pid := range pids {
		p, err := s.Process(ctx, pid)
		switch {
		case errors.Is(err, ErrNotFound):
			continue // it ended since the pids were listed
		case ctx.Err() != nil:
			return Recording{}, ctx.Err()
		case err != nil:
			gaps = append(gaps, Gap{PID: pid, What: "process", Why: err.Error()})
			continue
		}
		r.Processes = append(r.Processes, p)
		for _, d := range p.Descriptors {
			if !d.Kind.Inet() || !d.Remote.IsValid() || d.Object != "" && seen[d.Object] {
				continue
			}
			seen[d.Object] = true
			o := d.Outside()
			f := Flow{Protocol: d.Kind, Local: o.Local, Remote: o.Remote}
			sock, err := h.Find(ctx, f)
			if err != nil {
				gaps = append(gaps, Gap{PID: pid, What: fmt.Sprintf("%s socket %s to %s", d.Kind, d.Local, d.Remote), Why: err.Error()})
				continue
			}
			r.Sockets = append(r.Sockets, sock)
		}
	}
	var err error
	if r.Logins, err = s.Logins(ctx); err != nil {
		gaps = append(gaps, Gap{What: "logins", Why: err.Error()})
	}
	if r.Accepted, err = s.Accepted(ctx, r.doors()); err != nil {
		gaps = append(gaps, Gap{What: "sshd's records", Why: err.Error()})
	}
	if err := r.recall(ctx, s); err != nil {
		gaps = append(gaps, Gap{What: "the past", Why: err.Error()})
	}
	r.Gaps = append(gaps, s.Gaps()...)
	return r, nil
}

// recall records what is remembered of the recorded processes and of those that made them, and the connections that these held.
func (r *Recording) recall(ctx context.Context, s Snapshot) error {
	var todo []ID
	for _, p := range r.Processes {
		todo = append(todo, p.ID())
	}
	known := map[ID]bool{}
	for ; len(todo) > 0; todo = todo[1:] {
		if known[todo[0]] {
			continue
		}
		known[todo[0]] = true
		m, err := s.Remembered(ctx, todo[0])
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		r.Remembered = append(r.Remembered, m)
		todo = append(todo, m.Parent)
		for _, j := range m.Joints {
			for _, h := range j.With {
				todo = append(todo, h.ID)
			}
		}
		for _, h := range m.Held {
			if h.Peer != "" {
				far, err := s.Holders(ctx, h.Peer)
				if err != nil && !errors.Is(err, ErrNotFound) {
					return err
				}
				for _, o := range far {
					todo = append(todo, o.ID)
				}
			}
			if h.Recalled && !slices.ContainsFunc(r.Sockets, func(o Socket) bool { return o.Object == h.Object }) {
				r.Sockets = append(r.Sockets, h)
			}
		}
	}
	return nil
}

// doors returns the processes that may have let somebody in: those of the logins, and root's with an inbound
// connection.
func (r *Recording) doors() []ID {
	var ids []ID
	for _, l := range r.Logins {
		if l.PID != 0 && l.Cgroup != "" {
			ids = append(ids, ID{PID: l.PID})
		}
	}
	for _, p := range r.Processes {
		inbound := func(d Descriptor) bool { return d.Kind == TCP && d.Remote.IsValid() && d.Direction != Outbound }
		if p.EUID != nil && *p.EUID == 0 && slices.ContainsFunc(p.Descriptors, inbound) {
			ids = append(ids, p.ID())
		}
	}
	return ids
}

// A Replay is a host that answers from a recording.
type Replay struct{ Recording }

// Facts returns the recorded facts.
func (r *Replay) Facts(context.Context) (Facts, []Gap) { return r.Recording.Facts, nil }

// Find searches the recorded sockets.
func (r *Replay) Find(_ context.Context, f Flow) (Socket, error) {
	var found Socket
	for _, s := range r.Sockets {
		o := s.Outside()
		if s.Protocol == f.Protocol && s.State != "LISTEN" && o.Remote == f.Remote && o.Local.Port() == f.Local.Port() &&
			(o.Local.Addr() == f.Local.Addr() || f.Local.Addr().IsUnspecified()) {
			if !s.Recalled {
				return s, nil
			}
			if !found.Recalled || s.Opened.After(found.Opened) {
				found = s // the latest of those that are closed
			}
		}
	}
	if !found.Recalled {
		return Socket{}, ErrNotFound
	}
	return found, nil
}

// Snapshot returns the recording itself.
func (r *Replay) Snapshot(context.Context) (Snapshot, error) {
	return replaySnapshot{r, NewTable(r.Processes)}, nil
}

type replaySnapshot struct {
	r *Replay
	t *Table
}

func (s replaySnapshot) Process(_ context.Context, pid int) (Process, error) { return s.t.Process(pid) }

// Holders are those of the table, and who is remembered to have held what nobody has any more.
func (s replaySnapshot) Holders(_ context.Context, o Object) ([]Holder, error) {
	hs, err := s.t.Holders(o)
	if err != nil {
		return nil, err
	}
	hs = slices.Clip(hs)
	for _, m := range s.r.Recording.Remembered {
		if slices.ContainsFunc(m.Held, func(h Socket) bool { return h.Recalled && h.Object == o }) {
			hs = append(hs, Holder{ID: m.Process.ID(), FDs: []int{}, Mode: ReadWrite})
		}
	}
	return hs, nil
}

func (s replaySnapshot) Remembered(_ context.Context, id ID) (Remembered, error) {
	for _, m := range s.r.Recording.Remembered {
		if m.Process.ID() == id {
			return m, nil
		}
	}
	return Remembered{}, ErrNotFound
}

func (s replaySnapshot) Held(ctx context.Context, id ID, from, to time.Time, outbound bool) (held []Socket, more bool, err error) {
	r, err := s.Remembered(ctx, id)
	for _, h := range r.Held {
		if maybe, _ := h.Within(from, to); maybe && (h.Direction == Outbound) == outbound {
			held = append(held, h)
		}
	}
	return held, r.Cut, err
}

func (s replaySnapshot) Peers(_ context.Context, o Object) ([]Object, error) { return s.t.Peers(o) }

func (s replaySnapshot) Logins(context.Context) ([]Login, error) { return s.r.Recording.Logins, nil }

func (s replaySnapshot) Audited(_ context.Context, session uint32) ([]int, error) {
	var pids []int
	for _, p := range s.r.Processes {
		if p.AuditSession != nil && *p.AuditSession == session {
			pids = append(pids, p.PID)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func (s replaySnapshot) Accepted(_ context.Context, ids []ID) ([]Login, error) {
	var ls []Login
	for _, l := range s.r.Recording.Accepted {
		if slices.ContainsFunc(ids, func(id ID) bool { return id.PID == l.PID }) {
			ls = append(ls, l)
		}
	}
	return ls, nil
}

func (s replaySnapshot) Gaps() []Gap  { return s.r.Recording.Gaps }
func (s replaySnapshot) Close() error { return nil }
