//go:build !linux

package evidence

func socketAddress(path string) (address string, done func(), err error) {
	return path, func() {}, nil
}
