package linux

import (
	"testing"

	"github.com/stopd/stopd/internal/linux/bpf"
)

const testPipeDev = 15

func TestRecordObject(t *testing.T) {
	const btrfs = 0x9123683e
	for _, c := range []struct {
		name string
		r    bpf.Record
		want object
		sure bool
	}{
		{"socket", bpf.Record{Type: typeSocket | 0o777, Device: 8, Number: 5}, object{socketObject, 0, 5}, true},
		{"pipe", bpf.Record{Type: typeFIFO, Device: testPipeDev, Number: 6}, object{pipeObject, 0, 6}, true},
		{"FIFO", bpf.Record{Type: typeFIFO, Device: 8<<20 | 1, Number: 7, Magic: 0xef53}, object{fifoObject, 0x801, 7}, true},
		{"file on ext4", bpf.Record{Type: typeRegular, Device: 254 << 20, Number: 8, Magic: 0xef53}, object{fileObject, 0xfe00, 8}, true},
		{"file on btrfs", bpf.Record{Type: typeRegular, Device: 40, Number: 9, Magic: btrfs}, object{fileObject, 40, 9}, false},
		{"file of a file system without a function", bpf.Record{Type: typeRegular, Device: 41, Number: 9, Plain: true}, object{fileObject, 41, 9}, true},
		{"slave", bpf.Record{Type: typeDevice, Device: 24, Rdev: 136<<20 | 3, Number: 6, Plain: true}, object{slaveObject, 24, 3}, true},
		{"master", bpf.Record{Kind: bpf.Master, Type: typeDevice, Device: 24, Rdev: 5<<20 | 2, Number: 3}, object{masterObject, 24, 3}, true},
		{"master without a slave", bpf.Record{Kind: bpf.Master, Type: typeDevice}, object{class: masterObject}, false},
		{"null", bpf.Record{Type: typeDevice, Rdev: 1<<20 | 3}, object{}, true},
		{"device", bpf.Record{Type: typeDevice, Rdev: 10<<20 | 229}, object{deviceObject, 10, 229}, true},
		{"anonymous", bpf.Record{Device: 16, Number: 11, Magic: 0x09041934}, object{anonObject, 16, 11}, true},
		{"directory", bpf.Record{Type: 0o040755}, object{}, true},
		{"large numbers", bpf.Record{Type: typeRegular, Device: 0xabc<<20 | 0xdef12, Plain: true}, object{fileObject, 0xdefabc12, 0}, true},
	} {
		if got, sure := recordObject(&c.r, testPipeDev); got != c.want || sure != c.sure {
			t.Errorf("%s: %+v, sure %v; want %+v, %v", c.name, got, sure, c.want, c.sure)
		}
	}
}

func FuzzRecordObject(f *testing.F) {
	f.Add(uint8(0), uint16(typeSocket), uint32(8), uint32(0), uint64(5), uint64(0), true)
	f.Add(uint8(1), uint16(typeDevice), uint32(24), uint32(5<<20|2), uint64(3), uint64(0), false)
	f.Add(uint8(0), uint16(typeRegular), uint32(1<<32-1), uint32(0), uint64(1<<64-1), uint64(0xef53), false)
	f.Fuzz(func(t *testing.T, kind uint8, typ uint16, device, rdev uint32, number, magic uint64, plain bool) {
		r := bpf.Record{Kind: bpf.Kind(kind), Type: typ, Device: device, Rdev: rdev, Number: number, Magic: magic, Plain: plain}
		o, sure := recordObject(&r, testPipeDev)
		if o.class == 0 || o == (object{class: masterObject}) && !sure {
			return
		}
		if back, ok := parseObject(o.name()); !ok || back != o {
			t.Errorf("%+v is the object %+v, whose name %q is %+v", r, o, o.name(), back)
		}
		if r.Kind == bpf.Master != (o.class == masterObject) {
			t.Errorf("%+v is %+v", r, o)
		}
	})
}
