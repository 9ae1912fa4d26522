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

// A token that was redeemed before is redeemed again: its custody, of which each record has its proof in the log, goes with it.
func BenchmarkRedeem(b *testing.B) {
	for _, before := range []int{0, 80} {
		b.Run(fmt.Sprint("before=", before), func(b *testing.B) {
			id := newIdentity(b)
			s := openTest(b, Config{LogKey: new(newLogKey(b))}, id)
			report := make([]byte, benchReport)
			rand.Read(report)
			token, err := s.Keep(b.Context(), report, stop.Payer{})
			if err != nil {
				b.Fatal(err)
			}
			for range before {
				export(b, s, token)
			}
			for b.Loop() {
				if _, err := Unseal(export(b, s, token), id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
