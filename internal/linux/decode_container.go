package linux

import "strings"

// containerOf finds the container in a cgroup path, the innermost where one is in another: 64 hexadecimal digits
// are what container engines call theirs, whatever stands around them (docker, podman, containerd, cri-o, in
// kubepods or not). LXC and systemd-nspawn use names.
func containerOf(cgroup string) string {
	parts := strings.Split(cgroup, "/")
	for i := len(parts) - 1; i > 0; i-- {
		p, parent := parts[i], parts[i-1]
		if id := containerID(p); id != "" {
			return id
		}
		if name, ok := strings.CutPrefix(p, "lxc.payload."); ok && name != "" {
			return name
		}
		if name := strings.TrimSuffix(p, ".libvirt-lxc"); name != "" && (parent == "lxc" || name != p) {
			return name // /lxc/NAME (cgroup v1), /machine/NAME.libvirt-lxc
		}
		name, ok := strings.CutSuffix(p, ".scope")
		if name, ok2 := strings.CutPrefix(name, "machine-"); ok && ok2 && name != "" {
			return unescapeUnit(name)
		}
		name, ok = strings.CutSuffix(p, ".service")
		if name, ok2 := strings.CutPrefix(name, "systemd-nspawn@"); ok && ok2 && name != "" {
			return unescapeUnit(name)
		}
	}
	return ""
}

// containerID returns the 64 hexadecimal digits of one part of a path. What only prepares or watches a container
// (conmon, the log driver) is not in it.
func containerID(part string) string {
	if strings.HasPrefix(part, "libpod-conmon-") || strings.HasPrefix(part, "crio-conmon-") {
		return ""
	}
	run := 0
	for i := 0; i <= len(part); i++ {
		if i < len(part) && hexDigit(part[i]) {
			run++
			continue
		}
		if run == 64 {
			return part[i-64 : i]
		}
		run = 0
	}
	return ""
}

func hexDigit(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// unescapeUnit undoes the escapes of a systemd unit's name (systemd-escape(1)), of which the
// backslash is itself escaped in our text.
func unescapeUnit(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\\x`) && i+5 <= len(s) && hexDigit(s[i+3]) && hexDigit(s[i+4]) {
			out = append(out, nibble(s[i+3])<<4|nibble(s[i+4]))
			i += 4
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func nibble(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}
