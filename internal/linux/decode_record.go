package linux

import "github.com/stopd/stopd/internal/linux/bpf"

// Types of file systems whose stat(2) shows device and inode number as the kernel keeps them, although they
// have a function of their own for it (linux/magic.h): ext2 to ext4, XFS, tmpfs, anonymous files.
var plainMagic = map[uint64]bool{0xef53: true, 0x58465342: true, 0x01021994: true, 0x09041934: true}

// Types of inodes, of inode(7).
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeRegular = 0o100000
	typeDevice  = 0o020000
	typeFIFO    = 0o010000
)

// recordObject tells what a channel could be made of, like objectOf; class 0 for anything else. It is not
// sure where stat(2) may show another device and inode number, as on btrfs and overlayfs; the object is then
// to be looked up by the inode's address.
func recordObject(r *bpf.Record, pipeDev uint64) (o object, sure bool) {
	major, minor := r.Rdev>>20, r.Rdev&(1<<20-1)
	dev := userDevice(r.Device)
	switch {
	case r.Kind == bpf.Master:
		if r.Device == 0 {
			return object{class: masterObject}, false
		}
		return object{masterObject, dev, r.Number}, true
	}
	sure = r.Plain || plainMagic[r.Magic]
	switch r.Type & typeMask {
	case typeSocket:
		return object{socketObject, 0, r.Number}, true
	case typeFIFO:
		if dev == pipeDev {
			return object{pipeObject, 0, r.Number}, true
		}
		return object{fifoObject, dev, r.Number}, sure
	case typeRegular:
		return object{fileObject, dev, r.Number}, sure
	case typeDevice:
		switch {
		case major >= 136 && major <= 143:
			return object{slaveObject, dev, uint64(major-136)<<20 | uint64(minor)}, sure
		case major != 1:
			return object{deviceObject, uint64(major), uint64(minor)}, true
		}
	case 0:
		return object{anonObject, dev, r.Number}, sure
	}
	return object{}, true
}

// userDevice makes a device number as stat(2) and makedev(3) have it of the kernel's.
func userDevice(dev uint32) uint64 {
	major, minor := uint64(dev>>20), uint64(dev&(1<<20-1))
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}
