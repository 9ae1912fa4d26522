package bundle

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/sshsig"
)

// RequestNamespace is what requests are signed for: `ssh-keygen -Y sign -n redemption@stopd`.
const RequestNamespace = "redemption@stopd"

// CheckRequest checks that a redemption was asked for by a signed request that names its token, as whole or by as many
// characters as a token can be looked up by: a request for one token is none for another. It gives the key's fingerprint.
// Whose key that is, the signers say: by them r.By may sign at that time. Nil signers say nothing.
func CheckRequest(r evidence.Redemption, signers sshsig.Signers, at time.Time) (fingerprint string, err error) {
	s, err := sshsig.Parse(r.Signature)
	if err == nil {
		err = s.Check([]byte(r.Request), RequestNamespace)
	}
	if err == nil && !names(r.Request, r.Token) {
		err = fmt.Errorf("it does not name the token %s", r.Token)
	}
	if err == nil && signers != nil {
		err = signers.Allow(r.By, RequestNamespace, s.Key, at)
	}
	if err != nil {
		return "", fmt.Errorf("check signed request: %w", err)
	}
	return s.Fingerprint(), nil
}

// names tells whether one of the words of a text is a token, or the beginning of one.
func names(text string, t stop.Token) bool {
	notToken := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }
	for _, word := range strings.FieldsFunc(text, notToken) {
		if len(word) >= evidence.MinPrefix && strings.HasPrefix(t.String(), word) {
			return true
		}
	}
	return false
}

// requests checks the signed requests in a bundle, at the times of the redemptions.
func (b *Bundle) requests(signers sshsig.Signers) (good map[uint64]string, wrong []error) {
	good = map[uint64]string{}
	for _, c := range b.Custody {
		if c.Request == "" && c.Signature == "" {
			continue
		}
		r := evidence.Redemption{Token: b.Token, By: c.By, Request: c.Request, Signature: c.Signature}
		fingerprint, err := CheckRequest(r, signers, c.Time)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("record %d: %w", c.Number, err))
			continue
		}
		good[c.Number] = fingerprint
	}
	if signers != nil && len(good)+len(wrong) == 0 {
		wrong = append(wrong, errors.New("no redemption in it was asked for by a signed request"))
	}
	return good, wrong
}
