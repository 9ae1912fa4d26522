package daemon

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stopd/stopd/internal/recorder"
)

// BenchmarkResident: what is resident of a process with a full history, as it makes and keeps 1 GB beside it; in MiB, and beside the memory that was given. What else
// the test program takes is some 10.
func BenchmarkResident(b *testing.B) {
	for _, memory := range []int{64 << 20, 256 << 20, 1 << 30} {
		b.Run(fmt.Sprint(memory>>20, "MiB"), func(b *testing.B) {
			for b.Loop() {
				h, err := recorder.New(memory, 0)
				if err != nil {
					b.Fatal(err)
				}
				defer debug.SetGCPercent(debug.SetGCPercent(growth(memory)))
				for i := range uint64(h.Fill().Room) {
					id := recorder.ID{PID: uint32(i%4_000_000 + 1), Start: i + 1}
					joint := recorder.Joint{Object: recorder.Object{Class: recorder.Pipe, Device: 1, Number: i / 8}, Mode: recorder.Reads}
					of := recorder.Process{ID: id}
					h.Apply(recorder.Event{Kind: recorder.Forked, At: i, Process: of}, recorder.Event{Kind: recorder.Held, At: i, Process: of, Joints: []recorder.Joint{joint}},
						recorder.Event{Kind: recorder.Established, At: i, Connection: recorder.Connection{Cookie: i + 1}},
						recorder.Event{Kind: recorder.Touched, At: i, Process: of, Connection: recorder.Connection{Cookie: i + 1}},
						recorder.Event{Kind: recorder.Closed, At: i, Process: of, Connection: recorder.Connection{Cookie: i + 1}}, recorder.Event{Kind: recorder.Exited, At: i, Process: of})
				}
				var some [100][]byte
				for i := range 16_000 {
					some[i%len(some)] = make([]byte, 64<<10)
				}
				if err := h.Keep(io.Discard, recorder.Seal{Key: make([]byte, recorder.KeySize)}, 1); err != nil {
					b.Fatal(err)
				}
				var pages, resident int
				s, err := os.ReadFile("/proc/self/statm") // proc(5): in pages
				if err == nil {
					_, err = fmt.Sscan(string(s), &pages, &resident)
				}
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(resident*os.Getpagesize())/(1<<20), "MiB-resident")
				b.ReportMetric(float64(resident*os.Getpagesize())/float64(memory), "of-memory")
				runtime.KeepAlive(h)
				runtime.KeepAlive(some)
			}
			debug.FreeOSMemory()
		})
	}
}
