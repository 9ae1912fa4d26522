//go:build !linux && !darwin && !freebsd

package evidence

import "net"

func peerUID(net.Conn) (uid int, known bool, err error) { return 0, false, nil }
