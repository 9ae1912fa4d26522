package evidence

import (
	"crypto/sha256"
	"time"

	"github.com/stopd/stopd/evidence/translog"
)

// leaf is what the log keeps of the record: its time, and hashes of its locator and of all of it but the checksum.
func (r record) leaf() translog.Leaf {
	h := sha256.New()
	h.Write([]byte(contentLabel))
	h.Write(r.header())
	h.Write(r.payload)
	l := translog.Leaf{Time: time.Unix(0, r.time).UTC(), Locator: sha256.Sum256(append([]byte(leafLabel), r.locator[:]...))}
	h.Sum(l.Content[:0])
	return l
}
