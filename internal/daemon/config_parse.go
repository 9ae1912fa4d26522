package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/internal/settings"
	"github.com/stopd/stopd/server"
)

// Load reads a configuration file. Errors name line and column.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("read configuration: %w (stopctl init writes one, -config names another)", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads a configuration. A key that nobody knows is an error: a rule that is spelled wrong must not
// be a rule that is not there. On failure the configuration is zero.
func Parse(b []byte) (Config, error) {
	c := Defaults()
	if err := settings.Decode(b, &c); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func (c *Config) check() error {
	oneOf := func(key, v string, allowed ...string) error {
		if slices.Contains(allowed, v) {
			return nil
		}
		return fmt.Errorf("%s is %q: none of %s", key, v, strings.Join(allowed, ", "))
	}
	var errs []error
	errs = append(errs,
		oneOf("reply.errors", c.Reply.Errors, server.ErrorsStandard, server.ErrorsUnknown, server.ErrorsToken),
		oneOf("limits.over", c.Limits.Over, server.OverDecoy, server.OverError),
		oneOf("recorder.mode", c.Recorder.Mode, recorderAuto, recorderOff, recorderRequire),
		oneOf("save.arguments", c.Save.Arguments, examine.ArgumentsOff, examine.ArgumentsRedact, examine.ArgumentsFull))
	errs = append(errs, c.checkNumbers()...)
	if c.Traceback.Port < 1 || c.Traceback.Port > 65535 {
		errs = append(errs, fmt.Errorf("traceback.port is %d: not a port", c.Traceback.Port))
	}
	if c.Recorder.Memory < recorder.Smallest || c.Recorder.Memory > maxRecorder {
		errs = append(errs, fmt.Errorf("recorder.memory is %d: from %d to %d octets", c.Recorder.Memory, recorder.Smallest, maxRecorder))
	}
	if len(c.Listen) == 0 {
		errs = append(errs, errors.New("listen is empty"))
	}
	for _, l := range c.Listen {
		if _, err := netip.ParseAddrPort(l); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q is not an address and port such as \"[::]:113\"", l))
		}
	}
	lists := []struct {
		key string
		ns  []Network
	}{{"on_behalf", c.OnBehalf}, {"traceback.to", c.Traceback.To}, {"traceback.outbound_to", c.Traceback.OutboundTo}, {"peer.hosts", nil}}
	for _, p := range c.Peers {
		lists[3].ns = append(lists[3].ns, p.Hosts...)
	}
	for _, l := range lists {
		for _, n := range l.ns {
			if n.Addr().Is4In6() { // no address would ever be in it
				errs = append(errs, fmt.Errorf("%s: %q is IPv4 written as IPv6: write it as IPv4", l.key, n))
			}
		}
	}
	if m := c.Metrics.Listen; m != "" {
		if err := prom.Check(m); err != nil {
			errs = append(errs, fmt.Errorf("metrics.listen: %w", err))
		}
	}
	if c.Syslog.To != "" {
		_, err := parseLogServer(c.Syslog.To)
		errs = append(errs, err)
	}
	if c.Store == "" {
		errs = append(errs, errors.New("store is empty"))
	}
	errs = append(errs, c.checkPeers()...)
	_, err := c.AgeRecipients()
	errs = append(errs, err)
	_, err = c.witnesses()
	return joined(append(errs, err))
}

// maxRecorder is the most memory of the recorder.
const maxRecorder = 1 << 30

// maxSlot is the longest slot of replies: those who ask do not wait for ever.
const maxSlot = 5 * time.Second

// checkNumbers returns which numbers and durations are out of bounds: nothing is bounded by 0 or less. The quorum and the
// port are held to more elsewhere.
func (c *Config) checkNumbers() (errs []error) {
	for _, k := range keys(reflect.ValueOf(*c), "") {
		if k.name == "quorum" || k.name == "traceback.port" {
			continue
		}
		v := k.value
		if d, is := v.Interface().(Duration); is {
			v = reflect.ValueOf(d.Duration)
		}
		switch {
		case !v.CanInt():
		case v.Int() <= 0:
			errs = append(errs, fmt.Errorf("%s must be more than 0", k.name))
		case v.Int() > int64(maxSlot) && strings.HasPrefix(k.name, "reply.slots."):
			errs = append(errs, fmt.Errorf("%s must be at most %s", k.name, maxSlot))
		}
	}
	return errs
}

// joined is errors.Join on one line.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}
