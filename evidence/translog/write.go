package translog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/torchwood"
)

const (
	checkpointName = "checkpoint"
	cosignedName   = "cosigned"
	tempSuffix     = ".tmp"
)

// writeTiles writes tiles, and returns when they are durable.
func writeTiles(dir string, tiles []tile) error {
	changed := map[string]bool{} // directories
	for _, t := range tiles {
		path := filepath.Join(dir, filepath.FromSlash(torchwood.TilePath(t.Tile)))
		if err := makeDirs(dir, filepath.Dir(path), changed); err != nil {
			return err
		}
		if err := writeFile(path, t.data); err != nil {
			return err
		}
		changed[filepath.Dir(path)] = true
	}
	for d := range changed {
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes a directory below top and the parents that it lacks, and notes the directories that changed.
func makeDirs(top, dir string, changed map[string]bool) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && dir != top {
		if err := makeDirs(top, filepath.Dir(dir), changed); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	changed[filepath.Dir(dir)] = true
	return err
}

// replaceFile puts a file in the place of another, at once and durably.
func replaceFile(path string, b []byte) error {
	if err := writeFile(path, b); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeFile writes a file so that its name never stands for a part of it. The name is durable when its
// directory is synced.
func writeFile(path string, b []byte) (err error) {
	temp := path + tempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
