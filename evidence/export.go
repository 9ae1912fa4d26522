package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
)

// An export is its magic and version, then records as they are in the store: the batches, then what they seal, each in
// the order of numbers. Behind them is a record of type proof for each that a checkpoint covers, which no store holds:
// it has the number of what it proves, and its payload is a c2sp.org/tlog-proof.
const (
	exportMagic   = "stopd export\n"
	exportVersion = 3
	exportHeader  = len(exportMagic) + 4
)

func appendExportHeader(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, exportMagic...), exportVersion)
}

// redemptionPayload is the plaintext of a redemption record, which carries the report's locator.
type redemptionPayload struct {
	By      string `json:"by"`
	Reason  string `json:"reason"`
	Outcome string `json:"outcome"` // "exported", "not found", "altered" or "failed"
	// HandedOut is what went out with it, so that nothing can be left out of that unseen; nil where nothing did.
	HandedOut *handedOut `json:"handed_out,omitempty"`
	Request   string     `json:"request,omitempty"`
	Signature string     `json:"signature,omitempty"`
}

// handedOut is the records of a token that went out, without the redemption that let them out.
type handedOut struct {
	Records int `json:"records"`
	// SHA256 is that of their leaves, 72 octets each, in the order of numbers; hexadecimal.
	SHA256 string `json:"sha256"`
}

func handOut(records []record) *handedOut {
	if len(records) == 0 {
		return nil
	}
	h := sha256.New()
	for _, r := range records {
		h.Write(r.leaf().Append(nil))
	}
	return &handedOut{len(records), hex.EncodeToString(h.Sum(nil))}
}

// Export records durably that r.By asked for the evidence of r.Token, whether it is found or not,
// and then gives its records, still sealed, as an export that [Unseal] and [Disclose] open: the report, its
// trace-backs, and its custody, this redemption among it. A token without a report is [ErrNotFound].
//
// Where damage may hide records of a token whose report is sound, Export gives the sound
// records together with an error that wraps [ErrAltered]. With any other error there are none.
func (s *Store) Export(ctx context.Context, r Redemption) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if err := s.failure(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	g, found := s.collect(r.Token)
	own, err := s.recordRedemption(ctx, r, g.records, found)
	if err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if len(g.records) == 0 {
		return nil, fmt.Errorf("export evidence: %w", found)
	}
	if s.log != nil {
		if err := s.log.Checkpoint(); err != nil {
			s.logger.Error("the log cannot be signed: what is new in it is handed out without a proof", "error", err)
		}
	}
	if err := g.gather(func(n uint64) bool { return n == own }); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	export := g.append(appendExportHeader(nil))
	if g.damage != nil {
		return export, fmt.Errorf("export evidence: %w", g.damage)
	}
	return export, nil
}

// recordRedemption records a redemption, and gives the number of its record.
func (s *Store) recordRedemption(ctx context.Context, r Redemption, records []record, found error) (uint64, error) {
	outcome := "exported"
	switch {
	case errors.Is(found, ErrNotFound):
		outcome = "not found"
	case errors.Is(found, ErrAltered):
		outcome = "altered"
	case found != nil:
		outcome = "failed"
	}
	plaintext, err := json.Marshal(redemptionPayload{r.By, r.Reason, outcome, handOut(records), r.Request, r.Signature})
	if err != nil {
		return 0, fmt.Errorf("record redemption: %w", err)
	}
	packed, err := pack(plaintext, step)
	if err != nil {
		return 0, fmt.Errorf("record redemption: %w", err)
	}
	e := &entering{kind: typeRedemption, locator: locate(reportLabel, r.Token), content: packed}
	if err := s.append(ctx, e); err != nil {
		return 0, fmt.Errorf("record redemption: %w", err)
	}
	s.logger.Info("evidence asked for", "by", r.By, "reason", r.Reason, "outcome", outcome, "signed", r.Signature != "")
	return e.number, nil
}

// Export exports from the store in dir as [Store.Export] does: through the stopd that has it open,
// and where none runs, by opening it. Only then c is used. It makes no store.
func Export(ctx context.Context, dir string, r Redemption, c Config) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	export, err := viaStopd(ctx, dir, c, controlRequest{Export: controlAct(r)}, func(s *Store) ([]byte, error) { return s.Export(ctx, r) })
	return export, err
}

// viaStopd has the stopd that runs act on the store in dir, and where none runs acts itself.
func viaStopd(ctx context.Context, dir string, c Config, q controlRequest, act func(*Store) ([]byte, error)) ([]byte, error) {
	conn, err := dialControl(ctx, dir)
	if err == nil {
		defer conn.Close()
		return ask(ctx, conn, q)
	}
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, err
	}
	s, err := openStore(ctx, dir, c, false)
	if err != nil {
		return nil, err
	}
	b, err := act(s)
	if closing := s.Close(); closing != nil && err == nil {
		return nil, closing
	}
	return b, err
}
