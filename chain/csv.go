package chain

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var csvColumns = []string{"path", "step", "host", "name", "address", "status", "user", "process", "asked", "token", "source", "destination",
	"opened_by", "clock_seconds", "clock_error", "contradictions", "note", "standing", "log"}

// CSV writes the paths as a table (RFC 4180): a line for each host of each path, with the connection that leads on from
// it. Where a spreadsheet would take what a host said for a formula, an apostrophe stands before it.
func CSV(c *Chain) (string, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	if err := w.Write(csvColumns); err != nil {
		return "", fmt.Errorf("write table: %w", err)
	}
	for i, p := range c.Paths {
		for step, id := range p.Hosts {
			cells := []string{strconv.Itoa(i + 1), strconv.Itoa(step + 1)}
			cells = append(cells, c.hostCells(c.host(id), p, step)...)
			for j, s := range cells {
				cells[j] = harmless(s)
			}
			if err := w.Write(cells); err != nil {
				return "", fmt.Errorf("write table: %w", err)
			}
		}
	}
	w.Flush()
	return b.String(), w.Error()
}

func (c *Chain) hostCells(h *Host, p Path, step int) []string {
	cells := []string{strconv.Itoa(h.ID), h.Name, h.address(), string(h.Status)}
	in, out := 0, 0
	if step > 0 {
		in = p.Connections[step-1]
	}
	if step < len(p.Connections) {
		out = p.Connections[step]
	}
	user, process, asked, token, standing, log := "", "", "", "", "", ""
	if a := c.account(h, in, out); a != nil {
		if a.UID != nil {
			user = userText(a.User, *a.UID)
		}
		if len(a.Processes) > 0 {
			process = a.Processes[0].Command
		}
		if a.Asked != nil {
			asked = a.Asked.UTC().Format("2006-01-02T15:04:05.000000000Z")
		}
		token, standing, log = a.Token, string(a.Standing), a.Log
	}
	var about []string
	for _, x := range c.about[0] {
		if slices.Contains(x.Hosts, h.ID) {
			about = append(about, x.Text)
		}
	}
	cells = append(cells, user, process, asked, token)
	if out == 0 {
		return append(cells, "", "", "", "", "", strings.Join(about, "; "), "reached", standing, log)
	}
	k := c.connection(out)
	seconds, wrong := "", ""
	if k.Clock != nil {
		seconds, wrong = strconv.FormatFloat(k.Clock.Seconds, 'f', 6, 64), strconv.FormatFloat(k.Clock.Error, 'f', 6, 64)
	}
	for _, x := range c.about[k.ID] {
		about = append(about, x.Text)
	}
	note := ""
	if step == 0 {
		note = h.Begins
		if p.Loop {
			note = "a loop: the path leads into itself"
		}
	}
	for _, q := range k.Questions {
		if note == "" && q.Status != Reported {
			note = strings.TrimSpace(string(q.Status) + " " + q.Detail + q.Token)
		}
	}
	return append(cells, k.Source, k.Destination, k.OpenedBy, seconds, wrong, strings.Join(about, "; "), note, standing, log)
}

// account is the report of a host that joins two connections, or else was asked about the one that leads on, or any.
func (c *Chain) account(h *Host, in, out int) *Account {
	for _, j := range c.joinsOf[h.ID] {
		for i := range h.Reports {
			if j.In == in && j.Out == out && h.Reports[i].Token == j.Token {
				return &h.Reports[i]
			}
		}
	}
	for i := range h.Reports {
		if out != 0 && h.Reports[i].out == out {
			return &h.Reports[i]
		}
	}
	if len(h.Reports) > 0 {
		return &h.Reports[0]
	}
	return nil
}

// harmless keeps a text from being a formula. Numbers may be negative.
func harmless(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r＝＋－＠", []rune(s)[0]) {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && s[0] == '-' {
		return s
	}
	return "'" + s
}
