package bundle

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/evidence"
)

// Whatever bit is flipped is found, or changes nothing of what a bundle says: it was a time, an owner or the version of a
// program in what the zip file says of itself.
func TestEveryByteFlipped(t *testing.T) {
	s := newSite(t, "stone.example", 1)
	b := s.bundle(s.keep("report one", ""))
	want := mustOpen(t, b)
	wantFiles := filesIn(t, b)
	bits := 1
	if os.Getenv("STOPD_SOAK") != "" {
		bits = 8
	}
	found, harmless := 0, 0
	for i := range b {
		for bit := range bits {
			flip := byte(1) << ((i + bit) % 8)
			b[i] ^= flip
			got, err := Open(b)
			switch {
			case err == nil && (!reflect.DeepEqual(got, want) || !reflect.DeepEqual(filesIn(t, b), wantFiles)):
				t.Fatalf("octet %d, %#02x: it says something else, and is taken", i, flip)
			case err == nil:
				harmless++
			case !errors.Is(err, ErrAltered):
				t.Fatalf("octet %d, %#02x: %v, want %v", i, flip, err, ErrAltered)
			default:
				found++
			}
			b[i] ^= flip
		}
		if _, err := Open(b[:i]); err == nil {
			t.Fatalf("cut at %d: it is taken", i)
		}
	}
	t.Logf("%d octets: %d flips were found, %d changed nothing", len(b), found, harmless)
	if harmless > found/4 {
		t.Errorf("%d flips were not found, and %d were", harmless, found)
	}
}

func filesIn(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	packed, err := readZip(b)
	if err != nil {
		t.Fatal(err)
	}
	files, err := below(packed)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var oxum = regexp.MustCompile("Payload-Oxum: .*\n")

// repacked packs files of a bag again, with manifests and sizes that fit them.
func repacked(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var data, tags []file
	octets := 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch f := (file{name, files[name]}); {
		case strings.HasPrefix(name, "data/"):
			data = append(data, f)
			octets += len(f.content)
		case name != manifestName && name != tagManifestName:
			tags = append(tags, f)
		}
	}
	for i, f := range tags {
		if f.name == infoName {
			tags[i].content = oxum.ReplaceAll(f.content, fmt.Appendf(nil, "Payload-Oxum: %d.%d\n", octets, len(data)))
		}
	}
	tags = append(tags, file{manifestName, manifest(data)})
	tags = append(tags, file{tagManifestName, manifest(tags)})
	b, err := writeZip("bag", append(tags, data...), day)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What somebody changes who makes all sums anew is found all the same: it does not follow from the records.
func TestForgedBags(t *testing.T) {
	s, other := newSite(t, "stone.example", 1), newSite(t, "home.example", 1)
	token := s.keep("report one", "[]")
	s.redeem(evidence.Redemption{Token: token, By: "mallory", Reason: "to know"})
	s.cosign()
	mine := filesIn(t, s.bundle(token))
	b2 := s.bundle(s.keep("report two", "[]"))
	second, open2 := filesIn(t, b2), mustOpen(t, b2)
	theirToken := other.keep("report one", "[]")
	other.redeem(evidence.Redemption{Token: theirToken, By: "mallory", Reason: "to know"})
	other.cosign()
	theirs := filesIn(t, other.bundle(theirToken))
	names := slices.Sorted(maps.Keys(mine))
	named := func(pattern string, i int) string {
		t.Helper()
		var fits []string
		for _, n := range names {
			if strings.Contains(n, pattern) {
				fits = append(fits, n)
			}
		}
		slices.SortFunc(fits, func(a, b string) int { return len(a)*1000 + strings.Compare(a, b) - len(b)*1000 })
		if i >= len(fits) {
			t.Fatalf("no %q number %d in %q", pattern, i, names)
		}
		return fits[i]
	}
	traceback, redemption, last := named("data/traceback-", 0), named("data/redemption-", 0), named("data/redemption-", 1)
	number := func(name string) string {
		_, rest, _ := strings.Cut(name, "-")
		n, _, _ := strings.Cut(rest, ".")
		return n
	}
	without := func(files map[string][]byte, record string) {
		n := number(record)
		delete(files, record)
		for _, suffix := range []string{".record", ".key", ".tlog-proof"} {
			delete(files, "data/log/"+n+suffix)
		}
	}
	reportIn := func(files map[string][]byte) string {
		for n, b := range files {
			if strings.HasSuffix(n, ".record") && binary.BigEndian.Uint32(b[8:]) == 2 {
				return strings.TrimSuffix(n, ".record")
			}
		}
		t.Fatal("no report")
		return ""
	}
	report, theirReport := reportIn(mine), reportIn(theirs)
	for name, change := range map[string]func(f map[string][]byte){
		"another report":       func(f map[string][]byte) { f[reportName] = []byte("report 1") },
		"report of another":    func(f map[string][]byte) { f[reportName] = second[reportName] },
		"a changed trace-back": func(f map[string][]byte) { f[traceback] = []byte("[ ]") },
		"changed custody": func(f map[string][]byte) {
			f[redemption] = bytes.Replace(f[redemption], []byte("mallory"), []byte("alice"), 1)
		},
		"no trace-back":           func(f map[string][]byte) { without(f, traceback) },
		"no first redemption":     func(f map[string][]byte) { without(f, redemption) },
		"no redemption":           func(f map[string][]byte) { without(f, redemption); without(f, last) },
		"no traces of mallory":    func(f map[string][]byte) { delete(f, redemption) },
		"a record changed":        func(f map[string][]byte) { f[report+".record"][100] ^= 1 },
		"a record's time changed": func(f map[string][]byte) { f[report+".record"][24] ^= 1 },
		"another key":             func(f map[string][]byte) { f[report+".key"] = f["data/log/"+number(traceback)+".key"] },
		"upper-case key":          func(f map[string][]byte) { f[report+".key"] = bytes.ToUpper(f[report+".key"]) },
		"no key":                  func(f map[string][]byte) { delete(f, report+".key") },
		"proof of another record": func(f map[string][]byte) { f[report+".tlog-proof"] = f["data/log/"+number(traceback)+".tlog-proof"] },
		"proof of another host":   func(f map[string][]byte) { f[report+".tlog-proof"] = theirs[theirReport+".tlog-proof"] },
		"a leaf changed": func(f map[string][]byte) {
			f[report+".tlog-proof"] = bytes.Replace(f[report+".tlog-proof"], []byte("extra "), []byte("extra AAAA"), 1)
		},
		"another index": func(f map[string][]byte) {
			f[report+".tlog-proof"] = bytes.Replace(f[report+".tlog-proof"], []byte("\nindex "), []byte("\nindex 1"), 1)
		},
		"an octet behind a proof": func(f map[string][]byte) { f[report+".tlog-proof"] = append(f[report+".tlog-proof"], '\n') },
		"records of another host": func(f map[string][]byte) {
			for n, b := range theirs {
				if strings.HasPrefix(n, "data/traceback-") { // its number may be another: of batches one or two may be before it
					f[traceback] = b
					for _, suffix := range []string{".record", ".key", ".tlog-proof"} {
						f["data/log/"+number(traceback)+suffix] = theirs["data/log/"+number(n)+suffix]
					}
				}
			}
		},
		"an empty directory of data": func(f map[string][]byte) {
			for n := range f {
				if strings.HasPrefix(n, "data/") {
					delete(f, n)
				}
			}
		},
		"a file more":           func(f map[string][]byte) { f["data/notes.txt"] = []byte("x") },
		"a tag file more":       func(f map[string][]byte) { f["fetch.txt"] = []byte("https://example.org/ 1 data/report.json\n") },
		"name in another case":  func(f map[string][]byte) { f["data/Report.json"] = f[reportName] },
		"name with a leading 0": func(f map[string][]byte) { f["data/log/007.record"] = f[report+".record"] },
		"another manifest":      func(f map[string][]byte) { f["manifest-md5.txt"] = []byte("x") },
		"a version of the form": func(f map[string][]byte) {
			f[infoName] = bytes.Replace(f[infoName], []byte("Version: 1"), []byte("Version: 2"), 1)
		},
		"another identifier": func(f map[string][]byte) {
			f[infoName] = bytes.Replace(f[infoName], []byte(token.String()), []byte(open2.Token.String()), 1)
		},
		"a tag more":  func(f map[string][]byte) { f[infoName] = append(f[infoName], "Contact-Name: x\n"...) },
		"a tag twice": func(f map[string][]byte) { f[infoName] = append(f[infoName], "Bagging-Date: 2026-11-23\n"...) },
		"a terminal in the tool": func(f map[string][]byte) {
			f[infoName] = bytes.Replace(f[infoName], []byte("stopctl test"), []byte("stop\x1b[2J"), 1)
		},
		"another bagit.txt": func(f map[string][]byte) {
			f[bagitName] = []byte("BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n")
		},
	} {
		files := map[string][]byte{}
		for n, b := range mine {
			files[n] = bytes.Clone(b)
		}
		change(files)
		if _, err := Open(repacked(t, files)); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v, want %v", name, err, ErrAltered)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	// As it is, and as it was at the redemption before, it is taken: that is what the records say.
	if _, err := Open(repacked(t, mine)); err != nil {
		t.Errorf("as it is: %v", err)
	}
	for _, name := range []string{manifestName, tagManifestName, bagitName, infoName, reportName} {
		files := maps.Clone(mine)
		files[name] = append(bytes.Clone(files[name]), ' ')
		var all []file
		for n, b := range files {
			all = append(all, file{n, b})
		}
		b, err := writeZip("bag", all, day)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(b); !errors.Is(err, ErrAltered) {
			t.Errorf("%s with a blank more: %v", name, err)
		}
	}
}

// packedBy packs files with headers that a function changes.
func packedBy(t testing.TB, files []file, change func(h *zip.FileHeader)) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(f.content),
			CompressedSize64: uint64(len(f.content)), UncompressedSize64: uint64(len(f.content))}
		change(h)
		w, err := z.CreateRaw(h)
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Zip files that two programs would read differently, that hold what is no file, or that are larger than they look are
// refused before anything is made of them.
func TestHostileZips(t *testing.T) {
	s := newSite(t, "stone.example", 0)
	var files []file
	good := s.bundle(s.keep("report one", ""))
	bag := filesIn(t, good)
	for _, n := range slices.Sorted(maps.Keys(bag)) {
		files = append(files, file{"bag/" + n, bag[n]})
	}
	same := func(*zip.FileHeader) {}
	first := func(change func(h *zip.FileHeader)) func(h *zip.FileHeader) {
		return func(h *zip.FileHeader) {
			if h.Name == files[0].name {
				change(h)
			}
		}
	}
	with := func(more ...file) []file { return append(slices.Clone(files), more...) }
	plain := packedBy(t, files, same)
	if _, err := Open(plain); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	replaced := func(old, fresh string, n int) []byte {
		b := bytes.Replace(plain, []byte(old), []byte(fresh), n)
		if bytes.Equal(b, plain) {
			t.Fatalf("%q is not in it", old)
		}
		return b
	}
	at := func(magic string, offset int, octets ...byte) []byte {
		b := bytes.Clone(plain)
		copy(b[bytes.Index(b, []byte(magic))+offset:], octets)
		return b
	}
	const central = "PK\x01\x02"
	end := bytes.LastIndex(plain, []byte(endMagic))
	extra := func(id uint16, content string) []byte {
		e := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, id), uint16(len(content)))
		return append(e, content...)
	}
	link := func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }
	// A bomb of zeros, in so many files, which say that they are of some size.
	var squeezed bytes.Buffer
	f, err := flate.NewWriter(&squeezed, flate.BestCompression)
	if err == nil {
		_, err = f.Write(make([]byte, 1<<20))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	bomb := func(n int, size uint64) []byte {
		all := slices.Clone(files)
		for i := range n {
			all = append(all, file{fmt.Sprintf("bag/%d", i), squeezed.Bytes()})
		}
		return packedBy(t, all, func(h *zip.FileHeader) {
			if c := h.Name[len("bag/")]; c >= '0' && c <= '9' {
				h.Method, h.UncompressedSize64 = zip.Deflate, size
			}
		})
	}
	for name, b := range map[string][]byte{
		"nothing":                  nil,
		"an empty zip":             packedBy(t, nil, same),
		"something before it":      append([]byte("#!/bin/sh\n"), plain...),
		"something behind it":      append(bytes.Clone(plain), 0),
		"another zip behind it":    append(bytes.Clone(plain), plain...),
		"another zip before it":    append(bytes.Clone(good), plain...),
		"something in between":     slices.Concat(plain[:bytes.Index(plain, []byte(central))], []byte("x"), plain[bytes.Index(plain, []byte(central)):]),
		"a comment":                append(append(bytes.Clone(plain[:end]), func() []byte { e := bytes.Clone(plain[end:]); e[20] = 1; return e }()...), 'x'),
		"two directories":          packedBy(t, with(file{"gab/x", nil}), same),
		"no directory":             packedBy(t, with(file{"x", nil}), same),
		"a path up":                packedBy(t, with(file{"bag/../../etc/passwd", nil}), same),
		"a path up and back":       packedBy(t, with(file{"bag/data/../x", nil}), same),
		"an absolute path":         packedBy(t, with(file{"/etc/passwd", nil}), same),
		"a drive":                  packedBy(t, with(file{`C:\x`, nil}), same),
		"a backslash":              packedBy(t, with(file{`bag\data\x`, nil}), same),
		"a NUL":                    packedBy(t, with(file{"bag/bagit.txt\x00", nil}), same),
		"dots":                     packedBy(t, with(file{"bag/./bagit.txt", nil}), same),
		"a name twice":             packedBy(t, with(files[0]), same),
		"a name in two cases":      packedBy(t, with(file{"bag/BAGIT.TXT", files[0].content}), same),
		"a directory up":           packedBy(t, with(file{"../", nil}), same),
		"an empty directory":       packedBy(t, with(file{"bag/data/more/", nil}), same),
		"a directory with content": bytes.ReplaceAll(packedBy(t, with(file{"bag/data_", []byte("x")}), same), []byte("bag/data_"), []byte("bag/data/")),
		"a link":                   packedBy(t, files, first(link)),
		"a link more": packedBy(t, with(file{"bag/x", []byte("/etc/passwd")}), func(h *zip.FileHeader) {
			if h.Name == "bag/x" {
				link(h)
			}
		}),
		"a link by another system":   packedBy(t, files, first(func(h *zip.FileHeader) { h.CreatorVersion, h.ExternalAttrs = 0, 0xa1ff0000 })),
		"a device":                   packedBy(t, files, first(func(h *zip.FileHeader) { h.SetMode(fs.ModeDevice) })),
		"encrypted":                  packedBy(t, files, first(func(h *zip.FileHeader) { h.Flags |= 1 })),
		"a patch":                    packedBy(t, files, first(func(h *zip.FileHeader) { h.Flags |= 1 << 5 })),
		"another method":             packedBy(t, files, first(func(h *zip.FileHeader) { h.Method = 12 })),
		"another name for some":      packedBy(t, files, first(func(h *zip.FileHeader) { h.Extra = extra(0x7075, "\x01\x00\x00\x00\x00bag/x") })),
		"sizes of 64 bits":           packedBy(t, files, first(func(h *zip.FileHeader) { h.Extra = extra(1, strings.Repeat("\x00", 16)) })),
		"an extra field that is cut": packedBy(t, files, first(func(h *zip.FileHeader) { h.Extra = []byte{0x55, 0x54, 0xff, 0xff} })),
		"a file's comment":           packedBy(t, files, first(func(h *zip.FileHeader) { h.Comment = "x" })),
		"a name in one list":         replaced("bag/bagit.txt", "bag/bagit.tx_", 1),
		"a size in one list":         at(localMagic, 18, 1),
		"a sum in one list":          at(localMagic, 14, 1, 2, 3),
		"a method in one list":       at(localMagic, 8, 8),
		"flags in one list":          at(localMagic, 6, 8),
		"an offset into another":     at(central, 42, 1),
		"two disks":                  append(bytes.Clone(plain[:end+4]), append([]byte{1}, plain[end+5:]...)...),
		"fewer files than there are": append(bytes.Clone(plain[:end+8]), append([]byte{1, 0, 1, 0}, plain[end+12:]...)...),
		"too large a file":           bomb(1, maxFile+1),
		"too large files":            bomb(5, maxFile-1),
		"a bomb":                     bomb(1, 100),
		"larger than it says": packedBy(t, with(file{"bag/x", make([]byte, 100)}), func(h *zip.FileHeader) {
			if h.Name == "bag/x" {
				h.UncompressedSize64 = 1
			}
		}),
	} {
		if _, err := Open(b); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v, want %v", name, err, ErrAltered)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if _, err := Open(make([]byte, MaxSize+1)); !errors.Is(err, ErrAltered) {
		t.Errorf("too large: %v", err)
	}
}
