package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// heldBehind is how long behind its report a trace-back may be. A hold keeps what was written until then, since
// nothing on the disk says which trace-back is a report's.
const heldBehind = 10 * time.Minute

// holdPayload is the content of hold and release records, which carry the report's locator.
type holdPayload struct {
	By      string `json:"by"`
	Reason  string `json:"reason"`
	Outcome string `json:"outcome"` // "held", "released", "not found", "as before" or "failed"
}

// ErrAsBefore says that evidence is held already, or was not held.
var ErrAsBefore = errors.New("nothing to change")

// Hold keeps the evidence of r.Token from expiring, until it is released: the legal hold. It is recorded, and
// so is who asked for one that is refused. A token without a report is [ErrNotFound], one that is held
// already [ErrAsBefore].
func (s *Store) Hold(ctx context.Context, r Redemption) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("hold evidence: %w", err)
	}
	l := locate(reportLabel, r.Token)
	sources, offsets, err := s.find(l)
	var from, to time.Time
	for i, in := range sources {
		for _, off := range offsets[i] {
			if rec, e := in.at(off); e == nil && rec.kind == typeReport {
				t := time.Unix(0, rec.time)
				if from.IsZero() || t.Before(from) {
					from = t
				}
				if t.After(to) {
					to = t
				}
			} else if err == nil && e != nil {
				err = e
			}
		}
		in.file.Close()
	}
	if from.IsZero() {
		if err == nil {
			err = ErrNotFound
		}
		return errors.Join(fmt.Errorf("hold evidence: %w", err), s.recordHold(ctx, typeHold, r, err, nil))
	}
	err = s.recordHold(ctx, typeHold, r, nil, func(st *state) error {
		if len(st.Holds) >= maxHolds {
			return fmt.Errorf("%d tokens are held", maxHolds)
		}
		if !st.hold(l, from, to.Add(heldBehind)) {
			return fmt.Errorf("%w: it is held already", ErrAsBefore)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("hold evidence: %w", err)
	}
	return nil
}

// Release ends a hold. Evidence that is past its retention expires. A token that is not held
// is [ErrAsBefore].
func (s *Store) Release(ctx context.Context, r Redemption) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("release evidence: %w", err)
	}
	err := s.recordHold(ctx, typeRelease, r, nil, func(st *state) error {
		if !st.release(locate(reportLabel, r.Token)) {
			return fmt.Errorf("%w: it is not held", ErrAsBefore)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("release evidence: %w", err)
	}
	s.expireNow(ctx)
	return nil
}

// recordHold records an act and changes the state with it. Where the state refuses, that is what is recorded.
func (s *Store) recordHold(ctx context.Context, kind recordType, r Redemption, refused error, change func(*state) error) error {
	outcome := map[recordType]string{typeHold: "held", typeRelease: "released"}[kind]
	switch {
	case errors.Is(refused, ErrNotFound):
		outcome = "not found"
	case errors.Is(refused, ErrAsBefore):
		outcome = "as before"
	case refused != nil:
		outcome = "failed"
	}
	content, err := json.Marshal(holdPayload{r.By, r.Reason, outcome})
	if err != nil {
		return err
	}
	packed, err := pack(content, step)
	if err != nil {
		return err
	}
	err = s.append(ctx, &entering{kind: kind, locator: locate(reportLabel, r.Token), content: packed, change: change})
	if change != nil && err != nil && !errors.Is(err, ErrStore) && ctx.Err() == nil {
		return errors.Join(err, s.recordHold(ctx, kind, r, err, nil))
	}
	if err == nil {
		s.logger.Info("legal hold", "act", kind, "by", r.By, "reason", r.Reason, "outcome", outcome)
	}
	return err
}

// Hold holds evidence in the store in dir, or releases it: through the stopd that has it open, and where none runs,
// by opening it. Only then c is used.
func Hold(ctx context.Context, dir string, release bool, r Redemption, c Config) error {
	q, act := controlRequest{Hold: controlAct(r)}, (*Store).Hold
	if release {
		q, act = controlRequest{Release: controlAct(r)}, (*Store).Release
	}
	_, err := viaStopd(ctx, dir, c, q, func(s *Store) ([]byte, error) { return nil, act(s, ctx, r) })
	return err
}
