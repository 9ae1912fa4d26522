package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// stage is where the parts of the new root are put together, in the new mount namespace. It hides what
// the directory holds from then on, so it is one that holds neither the packages nor a lower layer.
const stage = "/sys"

// makeRoot gives this process, PID 1 of new namespaces, a root of its own: the machine's root file
// system without what is mounted on it, below the packages, below a tmpfs that takes the changes.
func makeRoot(s setup) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mount(s.Lab, stage, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work", "new"} {
		if err := os.Mkdir(filepath.Join(stage, dir), 0o755); err != nil {
			return err
		}
	}
	// Homes of the machine hold keys and start-up files: a host starts without them.
	for dir, mode := range map[string]os.FileMode{"root": 0o700, "home": 0o755} {
		if err := makeOpaque(filepath.Join(stage, "upper", dir), mode); err != nil {
			return err
		}
	}
	lower := "/"
	if s.Layer != "" {
		// Overlayfs refuses (ELOOP) a lower layer inside another, and all is inside "/": hence a copy.
		layer := filepath.Join(stage, "layer")
		if out, err := exec.Command("cp", "-a", s.Layer, layer).CombinedOutput(); err != nil {
			return fmt.Errorf("copy packages: %w: %s", err, out)
		}
		lower = layer + ":/"
	}
	root := filepath.Join(stage, "new")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, stage, stage)
	if err := mount(s.Lab, root, "overlay", 0, options); err != nil {
		return err
	}
	if err := populate(s, root); err != nil {
		return err
	}
	return enterRoot(root)
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %q: %w", fstype, target, err)
	}
	return nil
}

// makeOpaque makes a directory of the upper layer that hides the one below it.
// See Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
func makeOpaque(dir string, mode os.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	if err := syscall.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("make %q opaque: %w", dir, err)
	}
	return nil
}

// populate mounts what every system has mounted, and makes the directories which the machine may have
// filled, or hidden under a mount of its own.
func populate(s setup, root string) error {
	const nosuid, nodev, noexec = syscall.MS_NOSUID, syscall.MS_NODEV, syscall.MS_NOEXEC
	for _, m := range []struct {
		dir, fstype string
		flags       uintptr
		data        string
	}{
		{"proc", "proc", nosuid | nodev | noexec, ""},
		{"sys", "sysfs", nosuid | nodev | noexec | syscall.MS_RDONLY, ""},
		{"dev", "tmpfs", nosuid | noexec, "mode=0755"},
		{"dev/pts", "devpts", nosuid | noexec, "newinstance,ptmxmode=0666,mode=620,gid=5"},
		{"dev/shm", "tmpfs", nosuid | nodev, "mode=1777"},
		{"run", "tmpfs", nosuid | nodev, "mode=0755"},
		{"tmp", "tmpfs", nosuid | nodev, "mode=1777"},
	} {
		if err := mount(s.Lab, filepath.Join(root, m.dir), m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := makeDevices(filepath.Join(root, "dev")); err != nil {
		return err
	}
	state := filepath.Join(root, "var/lib/stopd")
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/hostname":    s.Hostname + "\n",
		"etc/resolv.conf": "",
		// No directory service or name server of the machine: neither can be reached from here.
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n",
	} {
		// Removed first: it may be a link to a file under /run.
		path := filepath.Join(root, name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func makeDevices(dev string) error {
	defer syscall.Umask(syscall.Umask(0))
	for name, minor := range map[string]int{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9, "tty": 0} {
		major := 1
		if name == "tty" {
			major = 5
		}
		// The encoding of makedev(3) for numbers below 256.
		if err := syscall.Mknod(filepath.Join(dev, name), syscall.S_IFCHR|0o666, major<<8|minor); err != nil {
			return fmt.Errorf("make device %q: %w", name, err)
		}
	}
	for name, target := range map[string]string{
		"ptmx":   "pts/ptmx",
		"fd":     "/proc/self/fd",
		"stdin":  "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot makes root this namespace's root, detaches the old one, and replaces the descriptors 0 to
// 2, which came from it.
func enterRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// Stacks the old root on the new one, pivot_root(2) "NOTES": no directory for it is needed.
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}
