//go:build !linux

package tokens

import "testing"

func newPostgres(t *testing.T) string {
	t.Skip("its server runs in a lab, of Linux")
	return ""
}
