package bundle

import (
	"errors"
	"fmt"
	"time"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/sshsig"
	"github.com/stopd/stopd/report"
)

// A Result is what a verification comes to.
type Result string

// Results.
const (
	Met        Result = "policy met"      // for the report and its trace-backs
	Unmet      Result = "policy not met"  // nobody whom it asks for vouches
	Consistent Result = "self-consistent" // it fits together, and there is no policy to hold it against
	Wrong      Result = "wrong"           // a signature that it stands on is not good, or not there
)

// A Verdict is what a bundle proves, to who trusts the keys of a policy.
type Verdict struct {
	Bundle *Bundle
	Result Result
	Why    string // of Unmet and Wrong

	// These are of a policy.
	Witnessed bool // it asks for witnesses
	Witnesses int  // that it names
	// Standing is what the signatures on each record's proof are worth, by the record's number. A record without a proof has none.
	Standing map[uint64]translog.Standing

	// These are by the number of a redemption: the key that its request was signed with; and what is wrong with a request whose
	// signature is not good, or not allowed.
	Signed  map[uint64]string
	Bad     map[uint64]error
	Allowed bool // the keys were held against a list of who may sign
}

// Verify says what a bundle proves. The policy is a text as c2sp.org/tlog-policy has it, from elsewhere than the bundle;
// nil where there is none. Signers are who may ask for redemptions; nil where nobody knows. Of the requests, that of the
// redemption which let the bundle out counts: what was handed in with earlier ones takes nothing from the evidence. It fails
// where the policy is none.
func (b *Bundle) Verify(policy []byte, signers sshsig.Signers) (Verdict, error) {
	v := Verdict{Bundle: b, Result: Consistent, Standing: map[uint64]translog.Standing{}, Allowed: signers != nil}
	v.Signed, v.Bad = b.requests(signers)
	if policy != nil {
		if err := v.weigh(policy); err != nil {
			return Verdict{}, fmt.Errorf("verify bundle: %w", err)
		}
	}
	if err := v.asked(); err != nil && v.Result != Wrong {
		v.Result, v.Why = Wrong, err.Error()
	}
	return v, nil
}

// asked says what is wrong with the request of the redemption that let the bundle out.
func (v *Verdict) asked() error {
	last := v.Bundle.last().Number
	if err := v.Bad[last]; err != nil {
		return fmt.Errorf("record %d: %w", last, err)
	}
	if _, signed := v.Signed[last]; v.Allowed && !signed {
		return fmt.Errorf("record %d, the redemption that let it out, was asked for by no signed request", last)
	}
	return nil
}

func (v *Verdict) weigh(text []byte) error {
	p, err := translog.ParsePolicyOf(v.Bundle.Log, text)
	switch unknown := errors.Is(err, translog.ErrUnknownLog); {
	case unknown && v.Bundle.Log == "":
		v.Result, v.Why = Unmet, "it comes without a proof that its records are in a log: the host could not make one, or somebody took it off"
		return nil
	case unknown:
		v.Result, v.Why = Unmet, fmt.Sprintf("the policy does not name its log, %q", v.Bundle.Log)
		return nil
	case err != nil:
		return err
	}
	v.Witnessed, v.Witnesses = p.Witnessed(), len(p.Witnesses)
	v.Result = Met
	for _, r := range v.Bundle.Records {
		if r.Proof == nil {
			if evidenceOf(r) {
				v.Result, v.Why = Unmet, fmt.Sprintf("record %d, a %s, has no proof", r.Number, r.Type)
			}
			continue
		}
		s, err := p.Weigh(*r.Proof)
		if err != nil {
			v.Result, v.Why = Wrong, fmt.Sprintf("record %d: %v", r.Number, err)
			return nil
		}
		v.Standing[r.Number] = s
		if !s.Met && evidenceOf(r) && v.Result == Met {
			v.Result, v.Why = Unmet, fmt.Sprintf("record %d, a %s, is under no checkpoint that as many witnesses have signed as the policy asks for", r.Number, r.Type)
		}
	}
	return nil
}

// evidenceOf tells whether a record has to be vouched for: custody is as young as the bundle.
func evidenceOf(r Record) bool { return r.Type == "report" || r.Type == "traceback" }

// Short is the verdict in a line.
func (v *Verdict) Short() string {
	switch v.Result {
	case Met:
		return string(Met)
	case Consistent:
		return "self-consistent only: nobody outside vouches for it"
	}
	return report.Printable(string(v.Result) + ": " + v.Why)
}

// By is when records of a type existed, at the latest, by the clocks of the witnesses: zero where that is not known of one
// of them, or there is none.
func (v *Verdict) By(kind string) time.Time {
	var by time.Time
	for _, r := range v.Bundle.Records {
		if r.Type != kind {
			continue
		}
		s := v.Standing[r.Number]
		if !s.Met || s.By.IsZero() {
			return time.Time{}
		}
		if s.By.After(by) {
			by = s.By
		}
	}
	return by
}
