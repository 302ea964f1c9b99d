package block

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

// hiddenAfterDone is how long the samples of a request stay hidden after it was
// done: a block that was replaced is served for a while, and a Prometheus may
// have its own copy for as long as it keeps data.
const hiddenAfterDone = 30 * 24 * time.Hour

// DeleteWatchConfig is how a reader of blocks learns of delete requests.
type DeleteWatchConfig struct {
	Interval model.Duration // between looks
}

// RegisterFlags sets the default and registers the flag.
func (c *DeleteWatchConfig) RegisterFlags(fs *flag.FlagSet) {
	c.Interval = model.Duration(30 * time.Second)
	fs.Var(&c.Interval, "delete-requests.interval", "Time between two looks into the bucket for requests to delete series, whose samples are hidden from then on. A look costs one listing.")
}

// Validate names the flag that can't be right.
func (c *DeleteWatchConfig) Validate() error {
	if c.Interval <= 0 {
		return fmt.Errorf("--delete-requests.interval=%s: give more than 0", c.Interval)
	}
	return nil
}

// DeleteWatcher keeps up with the delete requests of a bucket. A look costs one
// listing, and a GET for each request that is new or was changed.
type DeleteWatcher struct {
	cfg     DeleteWatchConfig
	bkt     Bucket
	log     *slog.Logger
	metrics *deleteMetrics
	now     func() time.Time

	hider atomic.Pointer[Hider]
	good  atomic.Int64 // when a look last went well, unix ms; 0: never

	mu struct {
		sync.Mutex // held during a look
		known      map[ulid.ULID]*watchedDelete
		err        error // of the last look
	}
}

// watchedDelete is what is known of a request's object.
type watchedDelete struct {
	version version
	since   time.Time      // when this version was first seen, by our clock
	settled bool           // it was read long enough after that
	request *DeleteRequest // the last that could be read, without Clean; nil: none yet
	err     error          // of the last reading
	missing int            // looks in a row that didn't find it
}

type deleteMetrics struct {
	requests   *prometheus.GaugeVec
	unreadable prometheus.Gauge
	failures   prometheus.Counter
	success    prometheus.Gauge
	reads      prometheus.Counter
}

func newDeleteMetrics(reg prometheus.Registerer) *deleteMetrics {
	f := promauto.With(reg)
	return &deleteMetrics{
		requests:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_delete_requests", Help: "Delete requests in the bucket by state."}, []string{"state"}),
		unreadable: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_delete_requests_unreadable", Help: "Delete requests that can't be read: what they ask for may show."}),
		failures:   f.NewCounter(prometheus.CounterOpts{Name: "firnline_delete_requests_look_failures_total", Help: "Looks for delete requests that failed; those known before stay in force."}),
		success:    f.NewGauge(prometheus.GaugeOpts{Name: "firnline_delete_requests_last_success_timestamp_seconds", Help: "When a look for delete requests last went well."}),
		reads:      f.NewCounter(prometheus.CounterOpts{Name: "firnline_delete_requests_reads_total", Help: "Delete requests read from the bucket."}),
	}
}

// NewDeleteWatcher wires a watcher and reads nothing; call Run.
func NewDeleteWatcher(cfg DeleteWatchConfig, bkt Bucket, log *slog.Logger, reg prometheus.Registerer) *DeleteWatcher {
	w := &DeleteWatcher{cfg: cfg, bkt: bkt, log: log, metrics: newDeleteMetrics(reg), now: time.Now}
	w.mu.known = map[ulid.ULID]*watchedDelete{}
	w.mu.err = errors.New("not looked yet")
	return w
}

// SetClock replaces time.Now, for tests. Call it before Run.
func (w *DeleteWatcher) SetClock(now func() time.Time) { w.now = now }

// Hider returns what is to be hidden now. Before the first good look that is nothing.
func (w *DeleteWatcher) Hider() *Hider { return w.hider.Load() }

// Ready returns nil once a look has gone well.
func (w *DeleteWatcher) Ready() error {
	if w.good.Load() != 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Errorf("looking for delete requests: %w", w.mu.err)
}

// lookTimeout bounds a look, so that one that hangs does not keep newer requests out.
const lookTimeout = time.Minute

// Run looks until ctx is done and then returns nil.
func (w *DeleteWatcher) Run(ctx context.Context) error {
	next := time.NewTicker(time.Duration(w.cfg.Interval))
	defer next.Stop()
	for {
		lookCtx, cancel := context.WithTimeout(ctx, lookTimeout)
		err := w.Look(lookCtx)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			w.log.Warn("look for delete requests failed; those known before stay in force", "err", err, "age", w.age())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
	}
}

// age tells how old what is known is, for a log line.
func (w *DeleteWatcher) age() string {
	good := w.good.Load()
	if good == 0 {
		return "never known"
	}
	return w.now().Sub(time.UnixMilli(good)).Round(time.Second).String()
}

// Look brings the Hider up to date with the bucket. Where that fails the one
// before stays.
func (w *DeleteWatcher) Look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.look(ctx)
	w.mu.err = err
	if err != nil {
		w.metrics.failures.Inc()
		return err
	}
	w.good.Store(w.now().UnixMilli())
	w.metrics.success.Set(float64(w.now().Unix()))
	return nil
}

func (w *DeleteWatcher) look(ctx context.Context) error {
	list, err := listDeletes(ctx, w.bkt)
	if err != nil {
		return err
	}
	err = w.read(ctx, w.stale(list))
	if hideErr := w.publish(); hideErr != nil {
		return errors.Join(err, hideErr)
	}
	return err
}

// clockStep is longer than the steps in which buckets tell when objects were written.
const clockStep = 2 * time.Second

// stale notes what the listing shows and returns the requests to read: those
// with another version than before, once more those that had changed just
// before, since two writes within a tick of the bucket's clock look alike, and
// those that the listing lacks.
func (w *DeleteWatcher) stale(list map[ulid.ULID]Object) []ulid.ULID {
	var ids []ulid.ULID
	for id, o := range list {
		k := w.mu.known[id]
		if k == nil {
			k = &watchedDelete{}
			w.mu.known[id] = k
		}
		if v := versionOf(o); k.version != v {
			k.version, k.since, k.settled = v, w.now(), false
		}
		if !k.settled || k.err != nil {
			ids = append(ids, id)
			k.settled = w.now().Sub(k.since) >= clockStep
		}
	}
	for id := range w.mu.known {
		if _, listed := list[id]; !listed {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, ulid.ULID.Compare)
	return ids
}

// read reads requests, several at once. One that can't be read keeps what was
// known of it; that fails the look only where it is the bucket's fault.
func (w *DeleteWatcher) read(ctx context.Context, ids []ulid.ULID) error {
	requests := make([]*DeleteRequest, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group // without a shared context: one that can't be read must not stop the others
	g.SetLimit(deleteReads)
	for i, id := range ids {
		g.Go(func() error {
			w.metrics.reads.Inc()
			requests[i], errs[i] = GetDelete(ctx, w.bkt, id)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	for i, id := range ids {
		if w.take(id, requests[i], errs[i]) {
			errs[i] = nil
		}
	}
	return FirstError(errs)
}

// take notes what reading a request gave. It is true unless the bucket could not be read.
func (w *DeleteWatcher) take(id ulid.ULID, r *DeleteRequest, err error) bool {
	k := w.mu.known[id]
	switch {
	case err == nil:
		r.Clean = nil // may be long, and readers don't need it
		k.request, k.err, k.missing = r, nil, 0
	case errors.Is(err, ErrNoDelete):
		// Gone for certain only when seen twice: a bucket may be late with either answer.
		if k.missing++; k.missing > 1 {
			delete(w.mu.known, id)
		}
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrUnknownVersion):
		if k.err == nil || k.err.Error() != err.Error() {
			w.log.Warn("delete request can't be read: what it asks for may show in answers", "request", id, "err", err)
		}
		k.err = err
	default:
		k.settled = false
		return false
	}
	return true
}

// publish makes the Hider of what is known.
func (w *DeleteWatcher) publish() error {
	var hide []*DeleteRequest
	states := map[DeleteState]int{DeletePending: 0, DeleteDone: 0, DeleteCancelled: 0}
	unreadable := 0
	for _, id := range slices.SortedFunc(maps.Keys(w.mu.known), ulid.ULID.Compare) {
		k := w.mu.known[id]
		if k.err != nil {
			unreadable++
		}
		if k.request == nil {
			continue
		}
		states[k.request.State]++
		if hides(k.request, w.now()) {
			hide = append(hide, k.request)
		}
	}
	for state, n := range states {
		w.metrics.requests.WithLabelValues(string(state)).Set(float64(n))
	}
	w.metrics.unreadable.Set(float64(unreadable))
	h, err := NewHider(hide...)
	if err != nil {
		return err
	}
	w.hider.Store(h)
	return nil
}

// hides tells whether a request's samples are hidden at the moment now.
func hides(r *DeleteRequest, now time.Time) bool {
	switch r.State {
	case DeletePending:
		return true
	case DeleteDone:
		return now.Sub(r.Finished) < hiddenAfterDone
	}
	return false
}
