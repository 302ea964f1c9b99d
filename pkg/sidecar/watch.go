package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/storeapi"
)

// state is what the sidecar knows of its Prometheus.
type state struct {
	labels  labels.Labels
	mint    int64 // of the oldest sample, ms; 0 when Prometheus can't tell
	version string
	started time.Time // of Prometheus' process
}

// errNoExternalLabels says why nothing works without external labels.
var errNoExternalLabels = fmt.Errorf("%w: Prometheus has no external labels, by which its data is told apart from others': set global.external_labels in its configuration", storeapi.ErrUnavailable)

// errNotAsked is the state before the first answer.
var errNotAsked = fmt.Errorf("%w: waiting for Prometheus to answer", storeapi.ErrUnavailable)

// watcher keeps asking Prometheus for its configuration, and remembers.
type watcher struct {
	prom    *promapi.Client
	cfg     PrometheusConfig
	source  *source // nil: nothing is shipped
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	poke  chan struct{} // holds one: ask again now
	known chan struct{} // closed when external labels have been seen; by run

	mu struct {
		sync.Mutex
		state state // of the latest answer
		err   error // of the latest attempt
		known bool  // there was an answer
	}
	findings []string // of the latest check of flags, so that each is logged once; of run alone
}

// current returns the state, and why it can't be served from when it can't.
func (w *watcher) current() (state, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.state, w.mu.err
}

// labels returns the external labels last seen, also while Prometheus is down:
// its blocks are still its blocks. Empty ones mean that nothing may be shipped.
func (w *watcher) labels() labels.Labels {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.state.labels
}

// suspect makes run ask again soon.
func (w *watcher) suspect() {
	select {
	case w.poke <- struct{}{}:
	default: // it will
	}
}

// Pauses between attempts while Prometheus does not answer, and least pause between any two.
const (
	minPause = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// run asks until ctx is done.
func (w *watcher) run(ctx context.Context) {
	begun, pause := w.now(), minPause
	for {
		st, err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		w.take(st, err, w.now().Sub(begun))
		wait := time.Duration(w.cfg.ConfigInterval)
		if err != nil {
			wait, pause = min(wait, pause), min(2*pause, maxRetry)
		} else {
			begun, pause = w.now(), minPause
		}
		if !w.sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, less long when poked. It returns false when ctx is done.
func (w *watcher) sleep(ctx context.Context, d time.Duration) bool {
	least, most := time.NewTimer(min(d, minPause)), time.NewTimer(d)
	defer least.Stop()
	defer most.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-least.C:
	}
	select {
	case <-ctx.Done():
		return false
	case <-w.poke:
	case <-most.C:
	}
	return true
}

// ask gets everything there is to know.
func (w *watcher) ask(ctx context.Context) (state, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(w.cfg.ConfigTimeout),
		fmt.Errorf("%w: no answer for %s (--prometheus.get_config_timeout)", storeapi.ErrUnavailable, w.cfg.ConfigTimeout))
	defer cancel()
	var st state
	var err error
	if st.labels, err = w.prom.ExternalLabels(ctx); err != nil {
		return st, err
	}
	if st.mint, err = w.prom.LowestTimestamp(ctx); errors.Is(err, promapi.ErrNoTimestamp) {
		st.mint = math.MinInt64 // so that nothing is missed
	} else if err != nil {
		return st, err
	}
	if st.version, err = w.prom.Version(ctx); err != nil {
		return st, err
	}
	rt, err := w.prom.Runtime(ctx)
	if err != nil {
		return st, err
	}
	st.started = rt.StartTime
	if err := w.checkFlags(ctx, rt.WorkDir); err != nil {
		return st, err
	}
	if st.labels.IsEmpty() {
		return st, errNoExternalLabels
	}
	return st, nil
}

// take remembers an answer and tells about changes. waited is the time since
// Prometheus last answered.
func (w *watcher) take(st state, err error, waited time.Duration) {
	w.mu.Lock()
	old, oldErr, first := w.mu.state, w.mu.err, !w.mu.known
	switch {
	case err == nil:
		w.mu.state, w.mu.known = st, true
	case errors.Is(err, errNoExternalLabels):
		w.mu.state.labels = labels.EmptyLabels()
	}
	w.mu.err = err
	w.mu.Unlock()

	if err != nil {
		w.metrics.up.Set(0)
		w.complain(err, oldErr, waited)
		return
	}
	w.metrics.up.Set(1)
	w.metrics.lastUp.Set(float64(w.now().Unix()))
	if first {
		close(w.known)
	}
	switch {
	case oldErr != nil, first:
		w.log.Info("Prometheus answers", "url", w.prom.URL(), "version", st.version, "external_labels", st.labels.String())
	case !old.started.Equal(st.started):
		w.log.Info("Prometheus was restarted", "started", st.started, "version", st.version)
	}
	if !first && !labels.Equal(old.labels, st.labels) {
		w.metrics.labelSets.Inc()
		w.log.Warn("Prometheus' external labels have changed; blocks shipped from now on carry the new ones",
			"old", old.labels.String(), "new", st.labels.String())
	}
}

// complain logs a failure: what is new as a warning, what lasts longer than
// Prometheus may take to start as an error.
func (w *watcher) complain(err, oldErr error, waited time.Duration) {
	switch {
	case waited > time.Duration(w.cfg.ReadyTimeout):
		w.log.Error("Prometheus can't be used; still trying", "err", err, "duration", waited)
	case oldErr == nil || oldErr.Error() != err.Error():
		w.log.Warn("Prometheus can't be used; trying again", "err", err)
	}
}

// checkFlags compares Prometheus' flags with ours and logs what is new.
func (w *watcher) checkFlags(ctx context.Context, workDir string) error {
	flags, err := w.prom.Flags(ctx)
	if err != nil {
		return err
	}
	var found []string
	if w.source != nil {
		found = w.source.mismatches(flags, workDir)
	}
	w.metrics.mismatches.Set(float64(len(found)))
	for _, f := range found {
		if !slices.Contains(w.findings, f) {
			w.log.Warn(f)
		}
	}
	w.findings = found
	return nil
}

// source is where blocks are shipped from.
type source struct {
	dir        string // of the TSDB, absolute
	stateFile  string // of the shipper, absolute
	ignoreSize bool   // compaction by Prometheus is wanted (--shipper.ignore-unequal-block-size)
}

// mismatches says in what Prometheus' flags don't go with shipping its blocks.
// Relative paths of Prometheus are below workDir. None of it stops the shipper:
// paths may differ between two containers that share a volume.
func (s *source) mismatches(f promapi.Flags, workDir string) []string {
	var out []string
	theirs := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(workDir, path)
	}
	if f.StoragePath != "" && theirs(f.StoragePath) != s.dir {
		out = append(out, fmt.Sprintf("Prometheus' --storage.tsdb.path is %s, the sidecar's --tsdb.path %s: blocks are shipped only if both are the same folder", theirs(f.StoragePath), s.dir))
	}
	switch {
	case f.DelayCompactFile != "" && theirs(f.DelayCompactFile) != s.stateFile:
		out = append(out, fmt.Sprintf("Prometheus' --storage.tsdb.delay-compact-file.path is %s, the sidecar writes %s: if they are not the same file, Prometheus compacts blocks before they are shipped", theirs(f.DelayCompactFile), s.stateFile))
	case f.DelayCompactFile == "" && f.MinBlockDuration != f.MaxBlockDuration && !s.ignoreSize:
		out = append(out, fmt.Sprintf("Prometheus may compact blocks before they are shipped, as its --storage.tsdb.min-block-duration (%s) and --storage.tsdb.max-block-duration (%s) differ: start it with --storage.tsdb.delay-compact-file.path=%s (3.9 or later), or make the two durations equal", f.MinBlockDuration, f.MaxBlockDuration, s.stateFile))
	}
	return out
}
