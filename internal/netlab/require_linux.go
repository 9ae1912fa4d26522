package netlab

import (
	"context"
	"os"
	"sync"
)

// available returns nil if a lab can be made here, or why not. The answer is that of a lab made for
// this, with one host; it is remembered.
var available = sync.OnceValue(func() error {
	ctx := context.Background()
	l, err := New(ctx)
	if err != nil {
		return err
	}
	if _, err := l.AddHost(ctx, "probe"); err != nil {
		l.Close()
		return err
	}
	return l.Close()
})

// TB is what [Require] needs of a [testing.TB]. With that type in its place stopctl would contain the
// testing package.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Require skips a test where no lab can be made. With STOPD_REQUIRE_NETNS=1 in the environment the
// test fails there: where labs have to work, such as in CI, their absence must not pass for a success.
func Require(t TB) {
	t.Helper()
	err := available()
	switch {
	case err == nil:
	case os.Getenv("STOPD_REQUIRE_NETNS") == "1":
		t.Fatalf("STOPD_REQUIRE_NETNS=1 and no lab: %v", err)
	default:
		t.Skipf("no lab: %v", err)
	}
}
