package server

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// lastGood holds a value made from files. It is made anew when one of the files
// has changed; a version that can't be used is reported once, and the value
// before it stays. Looking costs one stat a file.
type lastGood[T any] struct {
	name    string // for logs and metrics
	load    func() (value T, files []string, err error)
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	mu struct {
		sync.Mutex
		value T
		files []string
		seen  string // fingerprint of the files as they were last tried
	}
}

// newLastGood loads the value for the first time; here a bad one is an error.
func newLastGood[T any](name string, load func() (T, []string, error), log *slog.Logger, m *metrics) (*lastGood[T], error) {
	g := &lastGood[T]{name: name, load: load, log: log, metrics: m, now: time.Now}
	_, files, err := load()
	if err != nil {
		return nil, err
	}
	g.mu.seen = fingerprint(files) // before the load that counts, so that no change falls between
	if g.mu.value, g.mu.files, err = load(); err != nil {
		return nil, err
	}
	g.metrics.reloaded(name, nil, g.now())
	return g, nil
}

// get returns the newest good value.
func (g *lastGood[T]) get() T {
	g.mu.Lock()
	defer g.mu.Unlock()
	if print := fingerprint(g.mu.files); print != g.mu.seen {
		_ = g.tryLocked(print) // reported there
	}
	return g.mu.value
}

// reload loads the value whether or not the files have changed.
func (g *lastGood[T]) reload() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tryLocked(fingerprint(g.mu.files))
}

// tryLocked loads. The fingerprint was taken before, so that a change while
// loading is seen the next time.
func (g *lastGood[T]) tryLocked(print string) error {
	g.mu.seen = print
	value, files, err := g.load()
	g.metrics.reloaded(g.name, err, g.now())
	if err != nil {
		g.log.Warn("changed file can't be used, keeping what was before", "config", g.name, "err", err)
		return err
	}
	if !slices.Equal(files, g.mu.files) {
		g.mu.seen = "" // look at the new ones once more, at the next get
	}
	g.mu.value, g.mu.files = value, files
	g.log.Debug("loaded", "config", g.name, "files", files)
	return nil
}

// fingerprint tells versions of files apart by time and size.
func fingerprint(files []string) string {
	var sb strings.Builder
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			fmt.Fprintf(&sb, "%s: %v\n", f, err)
			continue
		}
		fmt.Fprintf(&sb, "%s %d %d\n", f, st.ModTime().UnixNano(), st.Size())
	}
	return sb.String()
}
