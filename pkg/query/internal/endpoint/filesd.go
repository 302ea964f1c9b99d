package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// fileSD reads endpoints out of Prometheus' file-SD files. Not safe for concurrent use.
type fileSD struct {
	patterns []string
	interval time.Duration // between readings of a file that seems unchanged
	client   ClientConfig
	files    map[string]sdFile
}

// sdFile is a file as last read.
type sdFile struct {
	modTime   time.Time
	size      int64
	read      time.Time
	addresses []string
}

// refresh reads what is new or has changed. A file that can't be read or parsed
// keeps the endpoints it had; one that is gone takes them with it.
func (f *fileSD) refresh(now time.Time) error {
	var errs []error
	next := map[string]sdFile{}
	for _, pattern := range f.patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("--store.sd-files=%q: %w", pattern, err))
		}
		for _, path := range paths {
			file, err := f.load(path, now)
			if err != nil {
				errs = append(errs, err)
			}
			next[path] = file
		}
	}
	f.files = next
	return errors.Join(errs...)
}

// load returns the file at path, from memory where it is unchanged.
func (f *fileSD) load(path string, now time.Time) (sdFile, error) {
	old := f.files[path]
	stat, err := os.Stat(path)
	if err != nil {
		return old, fmt.Errorf("endpoints of file: %w", err)
	}
	if stat.ModTime().Equal(old.modTime) && stat.Size() == old.size && now.Sub(old.read) < f.interval {
		return old, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return old, fmt.Errorf("endpoints of file: %w", err)
	}
	addresses, err := parseFileSD(content)
	if err != nil {
		return old, fmt.Errorf("endpoints of file %s: %w", path, err)
	}
	return sdFile{modTime: stat.ModTime(), size: stat.Size(), read: now, addresses: addresses}, nil
}

// specs returns the endpoints of all files, by file and in its order.
func (f *fileSD) specs() []spec {
	var specs []spec
	for _, path := range slices.Sorted(maps.Keys(f.files)) {
		for _, a := range f.files[path].addresses {
			specs = append(specs, spec{address: a, client: f.client, file: true})
		}
	}
	return specs
}

// parseFileSD returns the targets of a file, which is JSON or YAML (the former
// is a part of the latter). Labels of targets mean nothing here.
func parseFileSD(content []byte) ([]string, error) {
	var groups []struct {
		Targets []string          `yaml:"targets"`
		Labels  map[string]string `yaml:"labels"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(&groups); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var addresses []string
	for _, g := range groups {
		for _, a := range g.Targets {
			if err := validateAddress(a); err != nil {
				return nil, err
			}
			addresses = append(addresses, a)
		}
	}
	return addresses, nil
}
