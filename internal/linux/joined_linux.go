package linux

import (
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
)

// maxWith is how many processes at the other end of one joint a trace is told of.
const maxWith = 64

// joints are what is remembered that a process had.
func (s *snapshot) joints(all []recorder.Joined, gap func(format string, args ...any)) []host.Joint {
	var joints []host.Joint
	for _, j := range all {
		d := host.Joint{Descriptor: host.Descriptor{FDs: []int{}, Mode: jointMode(j.Mode), Object: s.recalledObject(j.Object), Peer: s.recalledObject(j.Peer),
			Named: j.Mode&recorder.Named != 0}}
		switch j.Object.Class {
		case recorder.Pipe:
			d.Kind, d.Inode = host.FIFO, j.Object.Number
			if userDevice(j.Object.Device) == s.pipeDev {
				d.Kind = host.Pipe
			}
		case recorder.Unix:
			d.Kind, d.Inode = host.Unix, j.Object.Number
		case recorder.Master, recorder.Slave:
			d.Kind, d.Side, d.Number = host.PTY, host.Slave, new(int(j.Object.Number))
			if j.Object.Class == recorder.Master {
				d.Side = host.Master
			}
		}
		for _, w := range j.With {
			d.With = append(d.With, host.Holder{ID: idOf(w.ID), FDs: []int{}, Mode: jointMode(w.Mode)})
		}
		if j.More {
			gap("bound: more than %d processes may have had the other end of its %s", maxWith, d.Object)
		}
		if j.Unsure {
			gap("several terminals had the number of its %s while it lived, and who had the other end of this one is not known", d.Object)
		}
		joints = append(joints, d)
	}
	return joints
}

func jointMode(m recorder.Mode) host.Mode { return modes[m&(recorder.Reads|recorder.Writes)] }

// recalledObject is an object as processes that are alive have it, but for FIFOs on file systems that show stat(2) another device than they have.
func (s *snapshot) recalledObject(o recorder.Object) host.Object {
	dev := userDevice(o.Device)
	switch o.Class {
	case recorder.Pipe:
		if dev == s.pipeDev {
			return object{pipeObject, 0, o.Number}.name()
		}
		return object{fifoObject, dev, o.Number}.name()
	case recorder.Unix:
		return object{socketObject, 0, o.Number}.name()
	case recorder.Master:
		return object{masterObject, dev, o.Number}.name()
	case recorder.Slave:
		return object{slaveObject, dev, o.Number}.name()
	}
	return ""
}
