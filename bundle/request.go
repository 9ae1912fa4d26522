package bundle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/sshsig"
)

// RequestNamespace is what requests are signed for: `ssh-keygen -Y sign -n redemption@stopd`.
const RequestNamespace = "redemption@stopd"

// CheckRequest checks that a request which names the token of a redemption, whole, was signed: a request for one token is
// none for another. It gives the key's fingerprint. Whose key that is, the signers say: by them r.By may sign at that time.
// Nil signers say nothing.
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

// names tells whether one of the words of a text is a token. A part of one is none: others can be found that begin the same.
func names(text string, t stop.Token) bool {
	notToken := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }
	return slices.Contains(strings.FieldsFunc(text, notToken), t.String())
}

// requests checks the signed requests in a bundle, at the times of the redemptions. It gives the keys of those that are
// good, and what is wrong with others, by the number of the redemption.
func (b *Bundle) requests(signers sshsig.Signers) (good map[uint64]string, bad map[uint64]error) {
	good, bad = map[uint64]string{}, map[uint64]error{}
	for _, c := range b.Custody {
		if c.Request == "" && c.Signature == "" {
			continue
		}
		r := evidence.Redemption{Token: b.Token, By: c.By, Request: c.Request, Signature: c.Signature}
		fingerprint, err := CheckRequest(r, signers, c.Time)
		if err != nil {
			bad[c.Number] = err
			continue
		}
		good[c.Number] = fingerprint
	}
	return good, bad
}
