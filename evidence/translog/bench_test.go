package translog

import "testing"

// Leaves that are appended 256 at a time, as a batch of records is, with a checkpoint for every 100,000.
func BenchmarkAppend(b *testing.B) {
	l := create(b, newKey(b))
	leaves := leavesOf(0, 256)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if err := l.Append(leaves); err != nil {
			b.Fatal(err)
		}
		if n%400 == 399 {
			if err := l.Checkpoint(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "leaves/s")
}

// The last checkpoint of a log of 10^5 leaves that grew by one: what every 10 seconds of a quiet host cost.
func BenchmarkCheckpoint(b *testing.B) {
	l := create(b, newKey(b))
	grow(b, l, 100000)
	leaf := leavesOf(0, 1)
	for b.Loop() {
		if err := l.Append(leaf); err != nil {
			b.Fatal(err)
		}
		if err := l.Checkpoint(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key := newKey(b)
	l := create(b, key)
	const size = 200000
	grow(b, l, size)
	for b.Loop() {
		if v := verify(b, l.dir, key.policy()); len(v.Findings) > 0 {
			b.Fatal(v.Findings)
		}
	}
	b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "leaves/s")
}
