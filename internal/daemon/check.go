package daemon

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/stopd/stopd/evidence"
)

// Check says what a daemon with this configuration would do and see on this machine. The error, before a word
// is written, is why it would not start.
func Check(cfg Config, w io.Writer) error {
	c, err := storeConfig(cfg, nil)
	if err != nil {
		return err
	}
	if err := evidence.Check(cfg.Store, c); err != nil {
		return err
	}
	fmt.Fprintf(w, "listen: %s\n", list(cfg.Listen))
	fmt.Fprintf(w, "store: %s, sealed to %d recipient(s), at most %d octets\n", cfg.Store, len(cfg.Recipients), cfg.Limits.StoreBytes)
	if _, err := os.Stat(filepath.Dir(filepath.Clean(cfg.Store))); err != nil {
		fmt.Fprintf(w, "store: its directory cannot be read yet: %v\n", err)
	}
	fmt.Fprintf(w, "log: %s\n", cfg.vouching())
	if evidence.KeysErased {
		fmt.Fprintln(w, "keys: a batch's key and what is derived from it are erased from memory when the batch closes")
	} else {
		fmt.Fprintln(w, "keys: a batch's key is erased when the batch closes, but not what was derived from it: this build has not GOEXPERIMENT=runtimesecret")
	}
	fmt.Fprintf(w, "on behalf of other hosts: %s\n", whom(cfg.OnBehalf, "nobody may ask"))
	fmt.Fprintf(w, "previous hosts: asked on port %d in %s, at most %d a request; where this host connected itself: %s\n",
		cfg.Traceback.Port, whom(cfg.Traceback.To, "no network"), cfg.Traceback.MaxPrevious, whom(cfg.Traceback.OutboundTo, "never"))
	for _, a := range abilities() {
		fmt.Fprintln(w, a)
	}
	return nil
}

// vouching says who would notice that the store was changed.
func (c Config) vouching() string {
	n := c.Quorum
	if n == 0 {
		n = len(c.Witnesses)
	}
	if n == 0 {
		return "shown to no witness: who has its key can write it anew, and only reports that others hold speak against it"
	}
	return fmt.Sprintf("shown to %d witness(es), of which %d have to cosign it", len(c.Witnesses), n)
}

func whom(ps []netip.Prefix, none string) string {
	if len(ps) == 0 {
		return none
	}
	return list(ps)
}
