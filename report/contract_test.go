package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// keyPaths lists the objects of a JSON value, each once, with their keys in their order. A list is [], and a
// descriptor of a kind is [kind].
func keyPaths(t *testing.T, b []byte) string {
	t.Helper()
	var lines []string
	seen := map[string]bool{}
	dec := json.NewDecoder(bytes.NewReader(b))
	token := func() json.Token {
		tok, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	var value func(path string)
	value = func(path string) {
		switch token() {
		case json.Delim('{'):
			at := len(lines)
			line := path + ":"
			if !seen[path] {
				lines = append(lines, "")
			}
			for dec.More() {
				key := token().(string)
				line += " " + key
				value(strings.TrimPrefix(path+"."+key, "."))
			}
			if !seen[path] {
				lines[at], seen[path] = line, true
			}
			token()
		case json.Delim('['):
			for i := 0; dec.More(); i++ {
				p := path + "[]"
				if strings.HasSuffix(path, ".descriptors") {
					p = path + "[" + string(kinds[i]) + "]"
				}
				value(p)
			}
			token()
		}
	}
	value("")
	return strings.Join(lines, "\n") + "\n"
}

// TestContract holds the names of the keys and their order, on which tools outside this repository rely. Keys may be
// added at the end of their line; none is ever renamed, moved or removed.
func TestContract(t *testing.T) {
	r := fullReport(func() string { return "x" })
	if d := cmp.Diff(reportKeys, "\n"+keyPaths(t, report.Encode(r))); d != "" {
		t.Errorf("report (-contract +written):\n%s", d)
	}
	if d := cmp.Diff(redeemedKeys, "\n"+keyPaths(t, report.EncodeRedeemed("x", []byte("{}"), []stop.Traceback{{Flow: &stop.Flow{}}}))); d != "" {
		t.Errorf("redeemed (-contract +written):\n%s", d)
	}
}

const reportKeys = `
: version kind salt tool host request connection processes channels previous users gaps reason same_as forwarded
tool: name version sources groups_off
host: name boot_time boot_id os release kernel arch addresses clock
host.clock: synchronised offset error
request: time type sid local remote requester on_behalf checkpoint
connection: protocol state direction direction_source uid user inode object cookie netns opened closed owners nat bytes
connection.nat: original translated
connection.nat.original: local remote
connection.nat.translated: local remote
connection.bytes: sent acknowledged received
processes[]: index role via pid ppid start exited name exe exe_deleted exe_build_id exe_sha256 args cwd ruid euid suid rgid egid sgid ruser euser tty priority nice session pgrp loginuid audit_session cgroup container job login descriptors
processes[].via: from by channel
processes[].job: id submit_host source claimed_id
processes[].login: source remote line time key log
processes[].descriptors[tcp]: fds kind mode inode object peer local remote state direction direction_source netns outer
processes[].descriptors[tcp].outer: local remote netns
processes[].descriptors[udp]: fds kind mode inode object peer local remote state direction direction_source netns outer
processes[].descriptors[udp].outer: local remote netns
processes[].descriptors[raw]: fds kind mode inode object peer local remote state direction direction_source netns outer
processes[].descriptors[raw].outer: local remote netns
processes[].descriptors[unix]: fds kind mode inode object peer path peer_path type
processes[].descriptors[pipe]: fds kind mode inode object peer path
processes[].descriptors[fifo]: fds kind mode inode object peer path
processes[].descriptors[pty]: fds kind mode inode object peer path side number
processes[].descriptors[tty]: fds kind mode inode object peer path
processes[].descriptors[file]: fds kind mode inode object peer path
processes[].descriptors[shm]: fds kind mode inode object peer path
processes[].descriptors[memfd]: fds kind mode inode object peer path
processes[].descriptors[mqueue]: fds kind mode inode object peer path
processes[].descriptors[msg]: fds kind mode inode object peer name
processes[].descriptors[eventfd]: fds kind mode inode object peer name
channels[]: id kind ends complete followed why remembered
channels[].ends[]: pid fds mode
previous[]: remote local pid direction reasons corroborated netns bytes
previous[].bytes: sent acknowledged received
users[]: name uid logins
users[].logins[]: line host address time ended
gaps[]: pid what why
forwarded: original translated direction state opened removed netns
forwarded.original: local remote
forwarded.translated: local remote
`

const redeemedKeys = `
: token report traceback
report:
traceback[]: previous selected_by asked request sent answered reply kind token error same_as flow
traceback[].previous: remote local
traceback[].flow: grade there back signs
`
