package evidence

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stopd/stopd"
)

// A report of six processes is 2.2 KB.
const benchReport = 2200

func BenchmarkKeep(b *testing.B) {
	for _, keepers := range []int{1, 64} {
		b.Run(fmt.Sprint("keepers=", keepers), func(b *testing.B) {
			s := openTest(b, Config{}, newIdentity(b))
			report := make([]byte, benchReport)
			rand.Read(report)
			b.SetBytes(benchReport)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var keeping sync.WaitGroup
			for range keepers {
				keeping.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := s.Keep(b.Context(), report, stop.Payer{}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			keeping.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
