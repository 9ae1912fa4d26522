package linux

import (
	"bytes"
	"strconv"
)

// parseNamespace parses what a link of /proc/PID/ns says: net:[4026531840].
func parseNamespace(b []byte) (uint64, bool) {
	b, ok := bytes.CutPrefix(b, []byte("net:["))
	b, ok2 := bytes.CutSuffix(b, []byte("]"))
	if !ok || !ok2 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

// parseNamespaceMount parses a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)): where a network namespace
// is mounted.
func parseNamespaceMount(line []byte) (uint64, string, bool) {
	f := bytes.Fields(line)
	if len(f) < 5 {
		return 0, "", false
	}
	inode, ok := parseNamespace(f[3])
	return inode, unescapeMount(f[4]), ok
}

// unescapeMount undoes the octal escapes of blanks and backslashes.
func unescapeMount(b []byte) string {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
