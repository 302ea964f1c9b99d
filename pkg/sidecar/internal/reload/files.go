package reload

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"go.yaml.in/yaml/v3"
)

// maxConfigBytes bounds a configuration, unpacked: far above any that Prometheus would start with.
const maxConfigBytes = 64 << 20

// readConfig returns the content of a configuration file, unpacked when it is gzipped.
func readConfig(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	raw, err := readBounded(f)
	if err != nil {
		return "", fmt.Errorf("configuration %s: read: %w", path, err)
	}
	if !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return string(raw), nil
	}
	zr, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("configuration %s: unpack: %w", path, err)
	}
	defer zr.Close()
	if raw, err = readBounded(zr); err != nil {
		return "", fmt.Errorf("configuration %s: unpack: %w", path, err)
	}
	return string(raw), nil
}

func readBounded(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	if err == nil && len(raw) > maxConfigBytes {
		return nil, fmt.Errorf("has more than %d bytes", maxConfigBytes)
	}
	return raw, err
}

// checkConfig refuses what can't be a whole configuration: an empty file or one
// that is no YAML mapping, as files that are still being written are. What is
// in it Prometheus judges.
func checkConfig(path, text string) error {
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(doc) == 0 {
		return fmt.Errorf("configuration %s is empty", path)
	}
	return nil
}

// look returns a fingerprint of names, sizes and times of the watched files.
// It is cheap and may miss a change; what can't be looked at counts as absent.
func (c *Config) look() uint64 {
	h := xxhash.New()
	add := func(path string) {
		if st, err := os.Stat(path); err == nil {
			fmt.Fprintf(h, "%s\x00%d\x00%d\x00", path, st.Size(), st.ModTime().UnixNano())
		}
	}
	if c.ConfigFile != "" {
		add(c.ConfigFile)
	}
	for _, dir := range c.RuleDirs {
		// Errors show when the content is read.
		_ = walk(dir, func(path string) error { add(path); return nil })
	}
	return h.Sum64()
}

// hashRules adds names and contents of all rule files to h.
func (c *Config) hashRules(h hash.Hash) error {
	for _, dir := range c.RuleDirs {
		err := walk(dir, func(path string) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			fmt.Fprintf(h, "%s\x00", path)
			_, err = io.Copy(h, f)
			return err
		})
		if err != nil {
			return fmt.Errorf("rule folder %s: %w", dir, err)
		}
	}
	return nil
}

// walk calls f for each file below dir, in lexical order, following links as
// Kubernetes makes them for mounted ConfigMaps: dir itself and files may be links.
func walk(dir string, f func(path string) error) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			return err // a link to a folder holds other names of files seen elsewhere
		}
		return f(path)
	})
}
