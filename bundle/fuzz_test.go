package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stopd/stopd"
)

func FuzzOpen(f *testing.F) {
	s := newSite(f, "stone.example", 1)
	token := s.keep("report one", "[]")
	s.cosign()
	b := s.bundle(token)
	f.Add(b)
	f.Add([]byte(localMagic))
	f.Add([]byte(nil))
	policy := s.policyOf("all", s.key.Public())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readZip(b); err != nil {
			return
		}
		o, err := Open(b)
		if err != nil {
			if o != nil || !errors.Is(err, ErrAltered) {
				t.Fatalf("%v, %v", o, err)
			}
			return
		}
		if stop.TokenOf(o.Report) != o.Token {
			t.Fatal("the token is not the report's")
		}
		v, err := o.Verify(policy, nil)
		if err != nil {
			t.Fatal(err)
		}
		v.Text()
		o.Redeemed()
	})
}

// FuzzReadZip reads zip files alone.
func FuzzReadZip(f *testing.F) {
	for _, files := range [][]file{nil, {{"a", nil}}, {{"bag/", nil}, {"bag/a", []byte("aaaaaaaaaaaaaaaaaaaa")}}} {
		b, err := writeZip("bag", files, day)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(packedBy(f, files, func(*zip.FileHeader) {}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := readZip(b)
		if err != nil {
			return
		}
		// Whoever reads from the front finds the same names as who reads from the end.
		for name := range files {
			if bytes.Count(b, []byte(name)) < 2 {
				t.Fatalf("%q is not in both lists", name)
			}
		}
	})
}

// FuzzBag reads bags whose manifests fit, so that what is in them is looked at.
func FuzzBag(f *testing.F) {
	s := newSite(f, "stone.example", 1)
	bag := filesIn(f, s.bundle(s.keep("report one", "[]")))
	for name, content := range bag {
		f.Add(name, content)
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if name == "" || strings.HasSuffix(name, "/") || len(name) > 1<<15 {
			return // a directory, or more than a zip has room for: such a file cannot be packed
		}
		files := map[string][]byte{}
		for n, b := range bag {
			files[n] = b
		}
		files[name] = content
		o, err := Open(repacked(t, files))
		if err == nil && !bytes.Equal(o.Report, bag[reportName]) {
			t.Fatal("another report")
		}
		if _, there := bag[name]; err == nil && !there {
			t.Fatalf("%q is taken", name)
		}
	})
}
