package posix

import "github.com/stopd/stopd/host"

// A List lists the descriptors of one process, those that are alike as one. The zero List is empty.
type List struct {
	All   []host.Descriptor
	known map[alike]int
}

// alike is what descriptors that are listed as one have in common.
type alike struct {
	kind       host.Kind
	object     host.Object
	mode       host.Mode
	path, name string
}

// Add adds a descriptor. What is not known to be one thing is listed by itself, but for files without an identity.
func (l *List) Add(d host.Descriptor) {
	key := alike{d.Kind, d.Object, d.Mode, d.Path, d.Name}
	if i, ok := l.known[key]; ok && (d.Object != "" || d.Kind == host.File) {
		l.All[i].FDs = append(l.All[i].FDs, d.FDs...)
		return
	}
	if l.known == nil {
		l.known = map[alike]int{}
	}
	l.known[key] = len(l.All)
	l.All = append(l.All, d)
}
