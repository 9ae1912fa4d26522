package evidence

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stopd/stopd"
)

// kindsOf are what a token of a recursive question may stand for, as small and as large as such reports are.
func kindsOf(i int) map[string]string {
	salt := make([]byte, 32)
	rand.Read(salt)
	head := fmt.Sprintf(`{"version":1,"kind":"%%s","salt":"%s","tool":{"name":"stopd","version":"0.1.0","sources":["netlink","proc"],"groups_off":[]},`+
		`"host":{"name":"gate","boot_time":"2026-11-23T01:13:38.%09dZ","boot_id":"8b3e6c91-6a5d-4a07-9cf4-1bb678ac2a07"},"request":{"type":"SV_REC","sid":"%d"}`,
		hex.EncodeToString(salt), i, i*7919)
	return map[string]string{
		"decoy":     fmt.Sprintf(head, "none") + `,"reason":"no user: no such connection"}`,
		"stranger":  fmt.Sprintf(head, "none") + `,"reason":"the requester may not ask on behalf of other hosts"}`,
		"duplicate": fmt.Sprintf(head, "duplicate") + `,"same_as":"` + stop.TokenOf(salt).String() + `"}`,
		"name":      fmt.Sprintf(head, "id") + `,"connection":{"protocol":"tcp","state":"ESTABLISHED","uid":1001,"user":"alice"}}`,
	}
}

// Who has the disk and the log but no key cannot tell what a token stands for: records of all kinds have one size, and the
// log grows by the same leaves.
func TestKindsLookAlike(t *testing.T) {
	key := newLogKey(t)
	s := openTest(t, Config{LogKey: &key}, newIdentity(t))
	type look struct{ report, traceback, leaves int }
	looks := map[string]map[look]int{}
	for i := range 50 {
		for kind, report := range kindsOf(i) {
			before := s.Log().Size()
			token, err := s.Keep(t.Context(), []byte(report), stop.Payer{Traceback: true})
			if err != nil {
				t.Fatal(err)
			}
			traceback := "[]"
			if kind == "name" {
				traceback = `[{"previous":{"remote":"192.0.2.10:53294","local":"192.0.2.20:22"},"asked":true,"reply":"53294 , 22 : USERID : OTHER : ` + token.String() + `"}]`
			}
			keepTraceback(t, s, token, traceback)
			sealed := export(t, s, token)
			var l look
			for b := sealed[exportHeader:]; len(b) > 0; {
				r, err := decodeRecord(b)
				if err != nil {
					t.Fatal(err)
				}
				switch r.kind {
				case typeReport:
					l.report = len(r.payload)
				case typeTraceback:
					l.traceback = len(r.payload)
				}
				b = b[r.size():]
			}
			batches := 0
			for _, e := range entries(t, s.dir) {
				if int64(e.Number) >= before && e.Type == "batch" {
					batches++
				}
			}
			l.leaves = int(s.Log().Size()-before) - batches - 1 // and the redemption
			if looks[kind] == nil {
				looks[kind] = map[look]int{}
			}
			looks[kind][l]++
		}
	}
	want := look{step + sealOverhead, tracebackStep + sealOverhead, 2}
	for kind, seen := range looks {
		if len(seen) != 1 || seen[want] == 0 {
			t.Errorf("%s: %v, want %v alone", kind, seen, want)
		}
	}
}

// Nothing in the store, its log or beside it says in the clear what was kept, of whom, or who redeemed it.
func TestNoCleartext(t *testing.T) {
	key := newLogKey(t)
	s := openTest(t, Config{LogKey: &key, SegmentBytes: 4 << 10}, newIdentity(t))
	var secrets []string
	for i := range 30 {
		report := kindsOf(i)["name"]
		token := keep(t, s, report)
		keepTraceback(t, s, token, "192.0.2.77:53294")
		secrets = append(secrets, token.String(), string(token[:]), hex.EncodeToString(token[:]))
		if err := s.Hold(t.Context(), Redemption{Token: token, By: "judge dredd", Reason: "case eighteen"}); err != nil {
			t.Fatal(err)
		}
		export(t, s, token)
	}
	secrets = append(secrets, "alice", "case 7", "judge dredd", "case eighteen", "192.0.2.77", "ESTABLISHED", `"salt"`, "SV_REC")
	closeStore(t, s)
	files := 0
	err := filepath.WalkDir(filepath.Dir(s.dir), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(b), secret) || strings.Contains(path, secret) {
				t.Errorf("%s holds %q", path, secret)
			}
		}
		return err
	})
	if err != nil || files < 8 {
		t.Errorf("%d files were searched, %v", files, err)
	}
}

// A disk that is full is no broken one: what does not fit is refused, everything before stays, and when there is room
// again it goes on. No key seals twice under one number.
func TestDiskFull(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{SegmentBytes: 8 << 10}, id)
	before := fill(t, s, 2)
	write := s.disk.writeAt
	var sealedWith []uint64
	full := true
	s.disk.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		if full {
			n, _ := write(f, b[:len(b)/2], off)
			return n, syscall.ENOSPC
		}
		return write(f, b, off)
	}
	for range 5 {
		if _, err := s.Keep(t.Context(), []byte("does not fit"), stop.Payer{}); !errors.Is(err, ErrFull) || errors.Is(err, ErrStore) {
			t.Fatalf("Keep: %v, want %v", err, ErrFull)
		}
		s.inBetween(context.Background(), func() {
			if s.batch != nil {
				sealedWith = append(sealedWith, s.batch.number)
			}
		})
	}
	if len(sealedWith) > 0 {
		t.Errorf("batches %v outlive what was cut back: a number would be sealed twice with their keys", sealedWith)
	}
	full = false
	after := fill(t, s, 4)
	found(t, s, append(before, after...), id)
	closeStore(t, s)
	s = openAt(t, s.dir, small, id)
	found(t, s, append(before, after...), id)
	entries(t, s.dir)
}

// A disk on which a new segment fits and the table of the one before does not is full, too, and no broken one.
func TestDiskFullForATable(t *testing.T) {
	id := newIdentity(t)
	d := *quick()
	create := d.create
	full, refused := true, 0
	d.create = func(path string) (*os.File, error) {
		if full && strings.Contains(path, tableSuffix) {
			refused++
			return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
		}
		return create(path)
	}
	s := openTest(t, Config{SegmentBytes: 4 << 10, disk: &d}, id)
	several := func(name string) (tokens []stop.Token) {
		for i := range 12 {
			token := keep(t, s, fmt.Sprintf("%s %d", name, i))
			keepTraceback(t, s, token, "nobody")
			tokens = append(tokens, token)
		}
		return tokens
	}
	before := several("before")
	if n, err := segments(s.dir); err != nil || refused == 0 || len(n) != 1 {
		t.Errorf("%d tables did not fit, segments are %d, %v", refused, n, err)
	}
	s.inBetween(t.Context(), func() { full = false })
	after := several("after")
	if n, err := segments(s.dir); err != nil || len(n) < 2 {
		t.Errorf("segments are %d, %v", n, err)
	}
	closeStore(t, s)
	s = openAt(t, s.dir, Config{}, id)
	found(t, s, append(before, after...), id)
}
