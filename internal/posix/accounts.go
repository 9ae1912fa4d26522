package posix

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// Accounts turns user ids into accounts by getent(1), so that directory services (LDAP, sssd) count as well.
type Accounts struct {
	mu    sync.Mutex
	known map[uint32]name
}

type name struct {
	Account // none where the name is empty
	until   time.Time
}

// How long a name is believed, and that there is none; how long one look-up may take; how many names are kept.
const (
	nameAge     = 5 * time.Minute
	noNameAge   = 10 * time.Second
	nameTimeout = time.Second
	maxNames    = 4096
)

// NewAccounts makes one that knows none yet.
func NewAccounts() *Accounts { return &Accounts{known: map[uint32]name{}} }

// KnownAccounts makes one that knows these for good.
func KnownAccounts(as map[uint32]Account) *Accounts {
	n := NewAccounts()
	for uid, a := range as {
		n.known[uid] = name{a, time.Now().AddDate(100, 0, 0)}
	}
	return n
}

// Of returns the account of a user; none where the system knows none or does not answer in time.
func (n *Accounts) Of(ctx context.Context, uid uint32) Account {
	n.mu.Lock()
	k, ok := n.known[uid]
	n.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.Account
	}
	found, asked := lookUp(ctx, uid)
	if !asked {
		return Account{} // which says nothing of the next time
	}
	k = name{found, time.Now().Add(nameAge)}
	if k.Name == "" {
		k.until = time.Now().Add(noNameAge)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	n.known[uid] = k
	return k.Account
}

// lookUps bounds how many look-ups wait for a directory service that does not answer.
var lookUps = make(chan struct{}, 8)

// lookUp asks for an account. It returns false where the system could not be asked: too many look-ups wait, or there is no
// room for a process or its descriptors.
func lookUp(ctx context.Context, uid uint32) (a Account, asked bool) {
	select {
	case lookUps <- struct{}{}:
		defer func() { <-lookUps }()
	default:
		return Account{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "getent", "passwd", strconv.FormatUint(uint64(uid), 10))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = 100 * time.Millisecond
	out, err := cmd.Output()
	if err != nil {
		return Account{}, cmd.Process != nil || errors.Is(err, exec.ErrNotFound) // it ran, or there is none to run
	}
	a, _ = parsePasswd(out, uid) // what does not parse is none
	return a, true
}

// UserName returns the name of a user; empty where it is not known.
func (n *Accounts) UserName(ctx context.Context, uid uint32) string {
	return Text([]byte(n.Of(ctx, uid).Name))
}
