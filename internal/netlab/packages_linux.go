package netlab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Packages returns a directory with the files of the named Debian packages, and of those they depend on
// and the machine lacks, unpacked. A package the machine has in the version apt knows adds nothing.
// Nothing is installed, and the packages' scripts are not run: what they would have made, such as users
// and the names of update-alternatives (nc, telnet), is absent.
//
// The directory is below [os.UserCacheDir], in stopd-netlab; its name tells the packages, the Debian
// release and the architecture. It is made once, by whichever process comes first, and not to be changed.
func Packages(ctx context.Context, names ...string) (string, error) {
	dir, err := packages(ctx, names)
	if err != nil {
		return "", fmt.Errorf("fetch packages %q: %w", names, err)
	}
	return dir, nil
}

func packages(ctx context.Context, names []string) (string, error) {
	for _, program := range []string{"apt-get", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", err
		}
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "stopd-netlab")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	key := fmt.Sprintf("%q %s %s", names, release, runtime.GOARCH)
	dir := filepath.Join(cache, fmt.Sprintf("%x", sha256.Sum256([]byte(key)))[:32])

	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	temp, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	archives := filepath.Join(temp, "archives")
	if err := download(ctx, archives, names); err != nil {
		return "", err
	}
	layer := filepath.Join(temp, "layer")
	if err := makeLayer(layer); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, layer); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(layer, dir)
}

// lockFile waits for an exclusive lock on a file, which the kernel frees if this process dies.
func lockFile(ctx context.Context, name string) (unlock func() error, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	// The holder may be fetching packages over a slow line.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	// Polled, as flock(2) itself cannot be cancelled.
	err = WaitFor(ctx, func() (bool, error) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", name, err), f.Close())
	}
	return f.Close, nil
}

// download has apt-get fetch what an installation of the packages would. The lists of packages are
// updated only when that fails, as it does when they are missing or outdated.
func download(ctx context.Context, dir string, names []string) error {
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return err
	}
	install := append([]string{
		"install", "--download-only", "--no-install-recommends", "-y",
		"-o", "Dir::Cache::archives=" + dir,
		"-o", "APT::Sandbox::User=root", // the cache may be in a home that user _apt cannot enter
		"-o", "Debug::NoLocking=true", // dpkg's state is only read
		"--",
	}, names...)
	first := aptGet(ctx, install...)
	if first == nil {
		return nil
	}
	if err := aptGet(ctx, "update"); err != nil {
		return errors.Join(first, err)
	}
	return aptGet(ctx, install...)
}

func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run apt-get %s: %w: %s", args[0], err, out)
	}
	return nil
}

// makeLayer makes an empty layer, with the machine's symbolic links from / into /usr: a package that
// has files below /lib would otherwise make a directory of it, and hide the link.
func makeLayer(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		target, err := os.Readlink("/" + name)
		if err != nil {
			continue // absent, or a directory on this machine
		}
		target = strings.TrimPrefix(target, "/")
		if err := os.MkdirAll(filepath.Join(dir, target), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// unpack adds the files of a package to a layer. Documentation is left out: every host copies the layer.
func unpack(ctx context.Context, deb, layer string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	var dpkgErr, tarErr strings.Builder
	dpkg := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	dpkg.Stdout, dpkg.Stderr = w, &dpkgErr
	tar := exec.CommandContext(ctx, "tar", "-x", "-p", "--keep-directory-symlink", "-C", layer,
		"--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale", "--exclude=./usr/share/lintian")
	tar.Stdin, tar.Stderr = r, &tarErr
	startErr := dpkg.Start()
	w.Close()
	if startErr != nil {
		r.Close()
		return startErr
	}
	err = tar.Run()
	r.Close()
	if err := errors.Join(dpkg.Wait(), err); err != nil {
		return fmt.Errorf("unpack %q: %w: %s%s", filepath.Base(deb), err, dpkgErr.String(), tarErr.String())
	}
	return nil
}
