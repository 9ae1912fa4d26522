package recorder

import "hash/maphash"

// MaxPath is the longest path of a program that is kept, in octets.
const MaxPath = 254

// pathSize is what one path takes.
const pathSize = MaxPath + 2

// paths keeps each path once, for as long as somebody has it.
type paths struct {
	seed  maphash.Seed
	bytes []byte // of each path its length and itself
	refs  []uint32
	slots slots
	index chain
}

func newPaths(n int, seed maphash.Seed) paths {
	return paths{seed, make([]byte, (n+1)*pathSize), make([]uint32, n+1), newSlots(n), newChain(n, n)}
}

// pathsBytes is what newPaths takes.
func pathsBytes(n int) int { return (n+1)*(pathSize+4+4) + chainBytes(n, n) }

// add returns the number of a path, for which drop has to be called; 0, which is unknown, where there is no place for it.
func (p *paths) add(path []byte) uint32 {
	if len(path) == 0 || len(path) > MaxPath {
		return 0
	}
	h := maphash.Bytes(p.seed, path)
	for n := p.index.first(h); n != 0; n = p.index.next[n] {
		if string(p.at(n)) == string(path) {
			p.refs[n]++
			return n
		}
	}
	n := p.slots.take()
	if n == 0 {
		return 0
	}
	p.refs[n] = 1
	p.bytes[n*pathSize] = byte(len(path))
	copy(p.bytes[n*pathSize+1:], path)
	p.index.insert(h, n)
	return n
}

// at returns a path; it is not to be changed, nor kept.
func (p *paths) at(n uint32) []byte {
	b := p.bytes[n*pathSize:]
	return b[1 : 1+int(b[0])]
}

func (p *paths) drop(n uint32) {
	if n == 0 {
		return
	}
	if p.refs[n]--; p.refs[n] == 0 {
		p.index.remove(maphash.Bytes(p.seed, p.at(n)), n)
		p.slots.give(n)
	}
}
