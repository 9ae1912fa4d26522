package bundle

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/evidence"
)

// Names in a bag. Those of records have their numbers in the log.
const (
	bagitName       = "bagit.txt"
	infoName        = "bag-info.txt"
	manifestName    = "manifest-sha256.txt"
	tagManifestName = "tagmanifest-sha256.txt"
	reportName      = "data/report.json"
	recordName      = "data/log/%d.record"
	keyName         = "data/log/%d.key"
	proofName       = "data/log/%d.tlog-proof"
)

// bagitText is what RFC 8493, section 2.1.1, asks for.
const bagitText = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

// formVersion is that of the form of bundles, in bag-info.txt.
const formVersion = "1"

// A file is one of a bag, by its name below the bag's directory.
type file struct {
	name    string
	content []byte
}

// A packing is what a bag says of its making, which nothing else tells.
type packing struct {
	agent string // program and version
	day   string // 2006-01-02
}

// bagOf makes the files of the bag of records, which were assembled to a: the payload, then what lists it. It is all that decides what a
// bundle holds: a reader makes them again.
func bagOf(ds []evidence.Disclosed, a evidence.Assembled, p packing) []file {
	data := []file{{reportName, a.Report}}
	acts := map[uint64]evidence.Custody{}
	for _, c := range a.Custody {
		acts[c.Number] = c
	}
	for i, c := range a.Contents {
		said := fmt.Sprintf("data/%s-%d.json", c.Type, c.Number)
		switch c.Type {
		case "report":
		case "traceback": // behind its token
			data = append(data, file{said, c.Plaintext[len(a.Token):]})
		default:
			data = append(data, file{said, c.Plaintext})
		}
		if act := acts[c.Number]; act.Signature != "" {
			request := fmt.Sprintf("data/%s-%d.request", c.Type, c.Number)
			data = append(data, file{request, []byte(act.Request)}, file{request + ".sig", []byte(act.Signature)})
		}
		data = append(data,
			file{fmt.Sprintf(recordName, c.Number), ds[i].Record},
			file{fmt.Sprintf(keyName, c.Number), []byte(hex.EncodeToString(ds[i].Key[:]) + "\n")})
		if ds[i].Proof != nil {
			data = append(data, file{fmt.Sprintf(proofName, c.Number), ds[i].Proof})
		}
	}
	sortFiles(data)
	octets := 0
	for _, f := range data {
		octets += len(f.content)
	}
	tags := []file{
		{infoName, fmt.Appendf(nil, "Bag-Software-Agent: %s\nBagging-Date: %s\nExternal-Identifier: %s\nPayload-Oxum: %d.%d\nStop-Bundle-Version: %s\n",
			p.agent, p.day, a.Token, octets, len(data), formVersion)},
		{bagitName, []byte(bagitText)},
		{manifestName, manifest(data)},
	}
	return append(data, append(tags, file{tagManifestName, manifest(tags)})...)
}

// sortFiles sorts by name, which is the order of a manifest.
func sortFiles(files []file) {
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
}

// parseInfo reads of bag-info.txt what [bagOf] cannot know.
func parseInfo(b []byte) (packing, error) {
	tags := map[string]string{}
	for line := range strings.Lines(string(b)) {
		label, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if _, twice := tags[label]; !ok || twice {
			return packing{}, fmt.Errorf("read %s: line %.80q", infoName, line)
		}
		tags[label] = value
	}
	if v := tags["Stop-Bundle-Version"]; v != formVersion {
		return packing{}, fmt.Errorf("read %s: version %.20q of the form is not known", infoName, v)
	}
	p := packing{tags["Bag-Software-Agent"], tags["Bagging-Date"]}
	if _, err := time.Parse(time.DateOnly, p.day); err != nil || !printable(p.agent) {
		return packing{}, fmt.Errorf("read %s: packed by %.80q on %.20q", infoName, p.agent, p.day)
	}
	return p, nil
}

// printable tells whether a text is a line of ASCII, not empty and not long.
func printable(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// manifest lists files as RFC 8493, section 2.1.3, says and `sha256sum -c` reads.
func manifest(files []file) []byte {
	var b []byte
	for _, f := range files {
		b = fmt.Appendf(b, "%x  %s\n", sha256.Sum256(f.content), f.name)
	}
	return b
}

// writeZip packs files below one directory.
func writeZip(directory string, files []file, day time.Time) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: directory + "/" + f.name, Method: zip.Deflate, Modified: day}
		h.SetMode(0o644)
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			return nil, fmt.Errorf("write zip: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write zip: %w", err)
	}
	return b.Bytes(), nil
}
