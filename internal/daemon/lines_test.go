package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logLine has the supervisor write a line of a process.
func logLine(t *testing.T, s *supervisor, r role, l logged) {
	t.Helper()
	b, err := json.Marshal(l)
	if err == nil {
		_, err = s.said(r)(t.Context(), callLog, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever makes every request fail, and whatever a process in a stranger's hands writes, the log has room for the rest.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s := &supervisor{log: slog.New(slog.NewTextHandler(&log, nil))}
		for i := range 5000 {
			logLine(t, s, collector, logged{Level: slog.LevelError, Message: "examine", Attrs: [][2]string{{"error", fmt.Sprint("failed ", i)}}})
			logLine(t, s, front, logged{Level: slog.LevelInfo, Message: fmt.Sprint("made up ", i)})
			logLine(t, s, keeper, logged{Level: slog.LevelInfo, Message: "evidence asked for"})
		}
		logLine(t, s, keeper, logged{Level: slog.LevelError, Message: "store failed"})
		counts := func() map[string]int {
			n := map[string]int{}
			for line := range strings.Lines(log.String()) {
				for _, m := range []string{"examine", "made up", "evidence asked for", "store failed", "left out"} {
					if strings.Contains(line, `msg=`+m) || strings.Contains(line, `msg="`+m) || m == "left out" && strings.Contains(line, m) {
						n[m]++
					}
				}
			}
			return n
		}
		// Of 5000 messages one was the collector's, so 63 were known, and the others were one more.
		want := map[string]int{"examine": linesPerMessage, "made up": maxMessages - 1 + linesPerMessage, "evidence asked for": 5000, "store failed": 1}
		if d := cmp.Diff(want, counts()); d != "" {
			t.Errorf("lines by message (-want +got):\n%s", d)
		}
		time.Sleep(lineWindow)
		synctest.Wait()
		for _, what := range []string{
			fmt.Sprintf("process=collector message=examine lines=%d", 5000-linesPerMessage),
			fmt.Sprintf(`process=front message="" lines=%d`, 5000-(maxMessages-1)-linesPerMessage),
		} {
			if !strings.Contains(log.String(), what) {
				t.Errorf("the log has no %q", what)
			}
		}
		logLine(t, s, collector, logged{Level: slog.LevelError, Message: "examine"})
		for range linesPerMessage {
			logLine(t, s, collector, logged{Level: slog.LevelError, Message: "examine"})
		}
		want["examine"], want["left out"] = 2*linesPerMessage, 2
		if d := cmp.Diff(want, counts()); d != "" {
			t.Errorf("a minute later lines by message (-want +got):\n%s", d)
		}
		s.lines.flush(s.log)
		if !strings.Contains(log.String(), "message=examine lines=1\n") {
			t.Errorf("what was left out last is not said")
		}
	})
}
