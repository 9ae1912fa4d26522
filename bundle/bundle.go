package bundle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/report"
)

// ErrAltered is wrapped by what says that a bundle is not one that was made from a store's records.
var ErrAltered = evidence.ErrAltered

// A Bundle is what one token stands for, with what speaks for it. All of it fits together; whether anybody vouches for
// it is for [Bundle.Verify] to say.
type Bundle struct {
	evidence.Evidence
	Custody []evidence.Custody // in the order of the log; the last let the bundle out
	Records []Record           // in the order of the log
	Log     string             // the log that the proofs are of; empty where there is no proof
	Agent   string             // the program that packed it, by its own word
	Day     string             // when, by that program's clock: 2006-01-02
}

// A Record is a record of the store that the bundle was made from.
type Record struct {
	Number uint64
	Type   string    // "report", "traceback", "redemption", "hold" or "release"
	Time   time.Time // by the host's clock, UTC
	Proof  *translog.Proof
}

// Make makes a bundle of what was disclosed: all records of one token. The agent is the program that makes it, with its version.
func Make(ds []evidence.Disclosed, agent string, now time.Time) ([]byte, error) {
	b, err := pack(ds, packing{agent, now.UTC().Format(time.DateOnly)})
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if _, err := Open(b); err != nil {
		return nil, fmt.Errorf("make bundle: nobody could read it: %v", err) // the evidence is not altered
	}
	return b, nil
}

func pack(ds []evidence.Disclosed, p packing) ([]byte, error) {
	a, err := evidence.Assemble(ds)
	if err != nil {
		return nil, err
	}
	day, err := time.Parse(time.DateOnly, p.day)
	if err != nil {
		return nil, err
	}
	return writeZip(a.Token.String(), bagOf(ds, a, p), day)
}

// Open reads a bundle, and refuses with [ErrAltered] whatever is not, octet by octet, the bag of the records in it.
// How the bag is packed is free, so far as all readers of zip files read the same: other programs may have packed it again.
func Open(b []byte) (*Bundle, error) {
	bundle, err := open(b)
	switch {
	case errors.Is(err, ErrAltered):
		return nil, fmt.Errorf("open bundle: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open bundle: %w: %w", ErrAltered, err)
	}
	return bundle, nil
}

func open(b []byte) (*Bundle, error) {
	packed, err := readZip(b)
	if err != nil {
		return nil, err
	}
	files, err := below(packed)
	if err != nil {
		return nil, err
	}
	p, err := parseInfo(files[infoName])
	if err != nil {
		return nil, err
	}
	ds, err := disclosedIn(files)
	if err != nil {
		return nil, err
	}
	a, err := evidence.Assemble(ds)
	if err != nil {
		return nil, err
	}
	if err := compare(files, bagOf(ds, a, p)); err != nil {
		return nil, err
	}
	bundle := &Bundle{Evidence: a.Evidence, Custody: a.Custody, Agent: p.agent, Day: p.day}
	for i, c := range a.Contents {
		r := Record{Number: c.Number, Type: c.Type, Time: c.Time}
		if ds[i].Proof != nil {
			proof, err := translog.ParseProof(ds[i].Proof)
			switch {
			case err != nil:
				return nil, fmt.Errorf("record %d: %w", c.Number, err)
			case proof.Leaf != c.Leaf || uint64(proof.Index) != c.Number:
				return nil, fmt.Errorf("record %d: the proof is of another record", c.Number)
			case bundle.Log != "" && bundle.Log != proof.Checkpoint.Origin:
				return nil, fmt.Errorf("record %d: the proof is of the log %q, others are of %q", c.Number, proof.Checkpoint.Origin, bundle.Log)
			}
			r.Proof, bundle.Log = &proof, proof.Checkpoint.Origin
		}
		bundle.Records = append(bundle.Records, r)
	}
	return bundle, nil
}

// directoryName is what the one directory of a bundle may be called: it is the token's name, unless somebody packed the
// bag again.
var directoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// below takes the one directory off the names of files.
func below(packed map[string][]byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	directory := ""
	for name, content := range packed {
		d, rest, ok := strings.Cut(name, "/")
		if !ok || !directoryName.MatchString(d) || directory != "" && d != directory {
			return nil, fmt.Errorf("%q: all files have to be in one directory", name)
		}
		directory = d
		files[rest] = content
	}
	return files, nil
}

// disclosedIn finds the records in a bag.
func disclosedIn(files map[string][]byte) ([]evidence.Disclosed, error) {
	var numbers []uint64
	for name := range files {
		if n, ok := numberOf(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var ds []evidence.Disclosed
	for _, n := range numbers {
		d := evidence.Disclosed{Record: files[fmt.Sprintf(recordName, n)], Proof: files[fmt.Sprintf(proofName, n)]}
		key, err := hex.DecodeString(strings.TrimSuffix(string(files[fmt.Sprintf(keyName, n)]), "\n"))
		if err != nil || copy(d.Key[:], key) != len(d.Key) || len(key) != len(d.Key) {
			return nil, fmt.Errorf(keyName+": it is no key of a record", n)
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// numberOf gives the number of a record by its file's name.
func numberOf(name string) (uint64, bool) {
	text := strings.TrimSuffix(strings.TrimPrefix(name, "data/log/"), ".record")
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && name == fmt.Sprintf(recordName, n)
}

// compare holds the files of a bag against those that it has to have, which come with the payload first: what is wrong with
// that makes its lists wrong, too.
func compare(got map[string][]byte, want []file) error {
	known := map[string]bool{}
	for _, f := range want {
		known[f.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if !known[name] {
			return fmt.Errorf("%q is no file of a bundle", name)
		}
	}
	for _, f := range want {
		if content, ok := got[f.name]; !ok {
			return fmt.Errorf("%q is missing", f.name)
		} else if !bytes.Equal(content, f.content) {
			return fmt.Errorf("%q is not what the records make it", f.name)
		}
	}
	return nil
}

// last is the redemption that let the bundle out.
func (b *Bundle) last() Record { return b.Records[len(b.Records)-1] }

// Is tells a bundle from a redeemed report by how a file begins.
func Is(b []byte) bool { return bytes.HasPrefix(b, []byte(localMagic)) }

// Redeemed gives what `stopctl redeem -format json` would have printed. It fails where this program does not know the form of the report.
func (b *Bundle) Redeemed() (r report.Redeemed, unreadable, further int, err error) {
	r.Token = b.Token.String()
	if r.Report, err = report.Decode(b.Report); err != nil {
		return report.Redeemed{}, 0, 0, err
	}
	r.Traceback, unreadable, further = report.FirstTraceback(b.Tracebacks)
	return r, unreadable, further, nil
}
