package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
)

// redemptionPayload is the plaintext of a redemption record, which carries the report's locator.
type redemptionPayload struct {
	By      string `json:"by"`
	Reason  string `json:"reason"`
	Outcome string `json:"outcome"` // "exported", "not found", "altered" or "failed"
}

// Export records durably that r.By asked for the evidence of r.Token, whether it is found or not,
// and then gives its records, still sealed, as an export that [Unseal] opens. A token without a
// report is [ErrNotFound].
//
// Where damage may hide trace-backs of a token whose report is sound, Export gives the sound
// records together with an error that wraps [ErrAltered]. With any other error there are none.
func (s *Store) Export(ctx context.Context, r Redemption) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if err := s.failure(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	export, found := s.collect(r.Token)
	if err := s.recordRedemption(ctx, r, found); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if found != nil {
		return export, fmt.Errorf("export evidence: %w", found)
	}
	return export, nil
}

func (s *Store) recordRedemption(ctx context.Context, r Redemption, found error) error {
	outcome := "exported"
	switch {
	case errors.Is(found, ErrNotFound):
		outcome = "not found"
	case errors.Is(found, ErrAltered):
		outcome = "altered"
	case found != nil:
		outcome = "failed"
	}
	plaintext, err := json.Marshal(redemptionPayload{By: r.By, Reason: r.Reason, Outcome: outcome})
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	packed, err := pack(plaintext, step)
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	err = s.append(ctx, &entering{kind: typeRedemption, locator: locate(reportLabel, r.Token), content: packed})
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	s.logger.Info("evidence asked for", "by", r.By, "reason", r.Reason, "outcome", outcome)
	return nil
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
