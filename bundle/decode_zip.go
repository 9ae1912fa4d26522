package bundle

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Bounds of what is read, in octets and files.
const (
	MaxSize  = 64 << 20 // of a bundle
	maxFile  = 34 << 20 // of a file in it: a record of the store holds at most 32 MiB
	maxTotal = 128 << 20
	maxFiles = 40000
)

// Signatures and sizes of the structures of a zip file (APPNOTE.TXT 6.3, section 4.3).
const (
	localMagic      = "PK\x03\x04"
	descriptorMagic = "PK\x07\x08"
	endMagic        = "PK\x05\x06"
	localSize       = 30
	centralSize     = 46
	endSize         = 22
)

// readZip gives the files of a zip file by their names. There are two lists of files in one, and programs differ in which
// they read and what they look for where; here only a file of which there is one reading is read: local headers
// that say what the directory says, one behind the other from the first octet to the directory, and nothing behind that.
// Names of directories are left out. Names are as they are written: the caller compares them with those that he expects.
func readZip(b []byte) (map[string][]byte, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("read zip: more than %d octets", MaxSize)
	}
	if !bytes.HasPrefix(b, []byte(localMagic)) {
		return nil, errors.New("read zip: it does not begin as a zip file does")
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("read zip: %w", err)
	}
	files, err := extract(b, z)
	if err != nil {
		return nil, fmt.Errorf("read zip: %w", err)
	}
	return files, nil
}

func extract(b []byte, z *zip.Reader) (map[string][]byte, error) {
	if len(z.File) > maxFiles {
		return nil, fmt.Errorf("more than %d files", maxFiles)
	}
	members, err := membersOf(b, z)
	if err != nil {
		return nil, err
	}
	total := uint64(0)
	for _, m := range members {
		if total += m.UncompressedSize64; m.UncompressedSize64 > maxFile || total > maxTotal {
			return nil, fmt.Errorf("%q: the files are larger than %d octets, or all together than %d", m.Name, maxFile, maxTotal)
		}
	}
	files := map[string][]byte{}
	seen := map[string]bool{}
	var directories []string
	for _, m := range members {
		if seen[m.Name] {
			return nil, fmt.Errorf("%q is there twice", m.Name)
		}
		seen[m.Name] = true
		content, err := m.content()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", m.Name, err)
		}
		if strings.HasSuffix(m.Name, "/") {
			if len(content) > 0 {
				return nil, fmt.Errorf("%q: a directory with content", m.Name)
			}
			directories = append(directories, m.Name)
			continue
		}
		files[m.Name] = content
	}
	for _, d := range directories {
		if !slices.ContainsFunc(members, func(m member) bool { return m.Name != d && strings.HasPrefix(m.Name, d) }) {
			return nil, fmt.Errorf("%q: a directory of nothing", d)
		}
	}
	return files, nil
}

// A member is a file of a zip file, with its octets as they are stored.
type member struct {
	*zip.File
	stored []byte
}

// membersOf finds the stored octets of each file that the directory names, in their order.
func membersOf(b []byte, z *zip.Reader) ([]member, error) {
	offsets := map[*zip.File]int64{}
	directory := 0
	for _, f := range z.File {
		off, err := f.DataOffset()
		if err == nil {
			err = checkEntry(f)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		offsets[f] = off
		directory += centralSize + len(f.Name) + len(f.Extra) + len(f.Comment)
	}
	inOrder := slices.Clone(z.File)
	slices.SortStableFunc(inOrder, func(x, y *zip.File) int { return cmp.Compare(offsets[x], offsets[y]) })
	var all []member
	at := 0
	for _, f := range inOrder {
		off, stored, err := readLocal(b[at:], f)
		if err == nil && offsets[f] != int64(at+off) {
			err = errors.New("it is not where the directory says")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		all = append(all, member{f, stored})
		at += off + len(stored)
		n, err := readDescriptor(b[at:], f)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		at += n
	}
	return all, checkEnd(b, at, directory, len(all))
}

// extras are the kinds of extra fields that change nothing of a file's name, size or content: times and owners (NTFS,
// extended timestamp, old and new Info-ZIP UNIX).
var extras = []uint16{0x000a, 0x5455, 0x5855, 0x7855, 0x7875}

// flags that a file may have: two of how it was compressed, that its sizes follow it, that its name is UTF-8.
const (
	flagSizesFollow = 1 << 3
	flagsAllowed    = 1<<1 | 1<<2 | flagSizesFollow | 1<<11
)

// checkEntry refuses what readers of zip files take differently, or what no bundle has.
func checkEntry(f *zip.File) error {
	const typeBits, regular, directory = 0xf000, 0x8000, 0x4000 // of UNIX modes, in the upper half of the attributes
	kind := f.ExternalAttrs >> 16 & typeBits
	switch isDir := strings.HasSuffix(f.Name, "/"); {
	case kind != 0 && kind != regular && (kind != directory || !isDir):
		return errors.New("it is no regular file")
	case isDir != f.Mode().IsDir() || f.Mode().Type()&^fs.ModeDir != 0:
		return errors.New("it is no regular file")
	case f.Flags&^flagsAllowed != 0:
		return fmt.Errorf("flags %#x", f.Flags)
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return fmt.Errorf("compression method %d", f.Method)
	case f.Method == zip.Store && f.CompressedSize64 != f.UncompressedSize64:
		return errors.New("it is stored in another size than it has")
	case f.Comment != "":
		return errors.New("it has a comment")
	}
	return checkExtra(f.Extra)
}

func checkExtra(b []byte) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return errors.New("an extra field is cut")
		}
		id, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		if len(b) < 4+n || !slices.Contains(extras, id) {
			return fmt.Errorf("an extra field of kind %#04x", id)
		}
		b = b[4+n:]
	}
	return nil
}

// readLocal holds the local header that b begins with against a file's entry in the directory. It gives the offset of
// the stored octets, and these.
func readLocal(b []byte, f *zip.File) (int, []byte, error) {
	le := binary.LittleEndian
	if len(b) < localSize || string(b[:4]) != localMagic {
		return 0, nil, errors.New("no local header is where it has to be")
	}
	name, extra := int(le.Uint16(b[26:])), int(le.Uint16(b[28:]))
	off := localSize + name + extra
	if uint64(len(b)) < uint64(off)+f.CompressedSize64 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	crc, stored, size := le.Uint32(b[14:]), uint64(le.Uint32(b[18:])), uint64(le.Uint32(b[22:]))
	same := crc == f.CRC32 && stored == f.CompressedSize64 && size == f.UncompressedSize64
	later := f.Flags&flagSizesFollow != 0 && crc == 0 && stored == 0 && size == 0
	switch {
	case string(b[localSize:localSize+name]) != f.Name:
		return 0, nil, fmt.Errorf("its local header names %q", b[localSize:localSize+name])
	case le.Uint16(b[6:]) != f.Flags || le.Uint16(b[8:]) != f.Method || !same && !later:
		return 0, nil, errors.New("its local header says otherwise than the directory")
	}
	if err := checkExtra(b[localSize+name : off]); err != nil {
		return 0, nil, err
	}
	return off, b[off : off+int(f.CompressedSize64)], nil
}

// readDescriptor reads what follows a file whose sizes follow it. It gives how long that is.
func readDescriptor(b []byte, f *zip.File) (int, error) {
	if f.Flags&flagSizesFollow == 0 {
		return 0, nil
	}
	n := 12
	if bytes.HasPrefix(b, []byte(descriptorMagic)) {
		n = 16
	}
	if len(b) < n {
		return 0, io.ErrUnexpectedEOF
	}
	le, d := binary.LittleEndian, b[n-12:n]
	if le.Uint32(d) != f.CRC32 || uint64(le.Uint32(d[4:])) != f.CompressedSize64 || uint64(le.Uint32(d[8:])) != f.UncompressedSize64 {
		return 0, errors.New("what follows it says otherwise than the directory")
	}
	return n, nil
}

// checkEnd sees to it that the directory follows the files, that the end record follows the directory, and that nothing
// follows that.
func checkEnd(b []byte, at, directory, files int) error {
	if len(b) != at+directory+endSize || string(b[at+directory:][:4]) != endMagic {
		return errors.New("there is something before, between or behind its files")
	}
	le, e := binary.LittleEndian, b[at+directory:]
	if le.Uint32(e[4:]) != 0 || int(le.Uint16(e[8:])) != files || int(le.Uint16(e[10:])) != files ||
		int(le.Uint32(e[12:])) != directory || int(le.Uint32(e[16:])) != at || le.Uint16(e[20:]) != 0 {
		return errors.New("its directory is not what its end says")
	}
	return nil
}

// content gives a file as it was before it was stored.
func (m member) content() ([]byte, error) {
	content := m.stored
	if m.Method == zip.Deflate {
		stored := bytes.NewReader(m.stored)
		var err error
		content, err = io.ReadAll(io.LimitReader(flate.NewReader(stored), int64(m.UncompressedSize64)+1))
		if err != nil {
			return nil, err
		}
		if stored.Len() > 0 && uint64(len(content)) <= m.UncompressedSize64 {
			return nil, errors.New("it ends before what is stored does")
		}
	}
	if uint64(len(content)) != m.UncompressedSize64 || crc32.ChecksumIEEE(content) != m.CRC32 {
		return nil, errors.New("it has another size or checksum than the directory says")
	}
	return content, nil
}
