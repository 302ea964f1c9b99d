// Package indexheader keeps, for a block in the bucket, what is needed to plan
// reads of its index in a small local file: the symbols and where each postings
// list is. It is built by three ranged reads of the index, loaded when first
// used, unloaded when idle, and built again whenever it turns out damaged.
//
// A Header is safe for concurrent use.
package indexheader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/semaphore"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// FileName is the name of the file in a block's local folder.
const FileName = "index-header"

// Metrics are shared by all headers.
type Metrics struct {
	builds, buildFailures, damaged, loads, unloads prometheus.Counter
	loaded                                         prometheus.Gauge
	buildSeconds                                   prometheus.Histogram
}

// NewMetrics registers the metrics of headers.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "firnline_store_index_header_" + name, Help: help})
	}
	return &Metrics{
		builds:        counter("builds_total", "Index headers built from an index in the bucket."),
		buildFailures: counter("build_failures_total", "Index headers that could not be built."),
		damaged:       counter("damaged_total", "Local index headers found torn, flipped or of another version, and built again."),
		loads:         counter("loads_total", "Index headers loaded for a query."),
		unloads:       counter("unloads_total", "Index headers unloaded because nobody used them."),
		loaded: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
			Name: "firnline_store_index_header_loaded", Help: "Index headers that are loaded."}),
		buildSeconds: promauto.With(reg).NewHistogram(prometheus.HistogramOpts{
			Name: "firnline_store_index_header_build_duration_seconds", Help: "Time to build an index header.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 8)}),
	}
}

// Source says which index a header is of and where its file goes.
type Source struct {
	Bucket     objstore.BucketReader
	Object     string // name of the index
	IndexBytes int64  // its size
	Folder     string // local, created when missing
}

// maxOps is far above the number of operations at the same time on a header;
// taking all of them is how a load keeps others out.
const maxOps = 1 << 20

// Header is the header of one index.
type Header struct {
	src     Source
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time

	// lock guards reader: one unit to use it, all maxOps to change it. A
	// semaphore and not a mutex, so that waiting ends with the context.
	lock   *semaphore.Weighted
	reader *reader
	used   atomic.Int64 // when last, unix ns
}

// New makes a Header and reads nothing.
func New(src Source, log *slog.Logger, m *Metrics, now func() time.Time) *Header {
	return &Header{src: src, log: log, metrics: m, now: now, lock: semaphore.NewWeighted(maxOps)}
}

func (h *Header) path() string { return filepath.Join(h.src.Folder, FileName) }

// Ensure makes sure that there is a file on disk, but doesn't load it.
func (h *Header) Ensure(ctx context.Context) error {
	if err := h.lock.Acquire(ctx, maxOps); err != nil {
		return err
	}
	defer h.lock.Release(maxOps)
	if h.reader != nil {
		return nil
	}
	err := check(h.path(), h.src.IndexBytes)
	if err == nil {
		return nil
	}
	return h.rebuild(ctx, err)
}

// rebuild builds the file because of why. The caller holds the lock.
func (h *Header) rebuild(ctx context.Context, why error) error {
	if errors.Is(why, errDamaged) {
		h.metrics.damaged.Inc()
		h.log.Warn("index header is built again", "file", h.path(), "err", why)
	} else if !errors.Is(why, fs.ErrNotExist) {
		return fmt.Errorf("open index header: %w", why)
	}
	h.metrics.builds.Inc()
	began := h.now()
	err := h.write(ctx)
	if errors.Is(err, storeapi.ErrCorrupt) { // perhaps only on the way: once more
		err = h.write(ctx)
	}
	h.metrics.buildSeconds.Observe(h.now().Sub(began).Seconds())
	if err != nil {
		h.metrics.buildFailures.Inc()
		return fmt.Errorf("build index header: %w", err)
	}
	return nil
}

// write builds the file; until it is whole and on disk the old one stays.
func (h *Header) write(ctx context.Context) error {
	if err := os.MkdirAll(h.src.Folder, 0o755); err != nil {
		return err
	}
	return block.CreateFile(h.path(), func(w io.Writer) error {
		return build(ctx, source{bkt: h.src.Bucket, name: h.src.Object, size: h.src.IndexBytes}, w)
	})
}

// do runs op with the loaded reader. Where that finds the file damaged, the
// file is built again and op runs a second time: op must start from scratch.
func (h *Header) do(ctx context.Context, op func(*reader) error) error {
	r, err := h.acquire(ctx)
	if err != nil {
		return err
	}
	err = op(r)
	h.lock.Release(1)
	if !errors.Is(err, errDamaged) {
		return err
	}
	if err := h.replace(ctx, r, err); err != nil {
		return err
	}
	if r, err = h.acquire(ctx); err != nil {
		return err
	}
	defer h.lock.Release(1)
	return op(r)
}

// acquire returns the reader with one unit of lock held, loading it if need be.
func (h *Header) acquire(ctx context.Context) (*reader, error) {
	h.used.Store(h.now().UnixNano())
	for {
		if err := h.lock.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		if h.reader != nil {
			return h.reader, nil
		}
		h.lock.Release(1)
		if err := h.load(ctx); err != nil {
			return nil, err
		}
	}
}

// replace builds the file again after bad was found damaged, unless somebody has done so.
func (h *Header) replace(ctx context.Context, bad *reader, damage error) error {
	if err := h.lock.Acquire(ctx, maxOps); err != nil {
		return err
	}
	defer h.lock.Release(maxOps)
	if h.reader != bad {
		return nil
	}
	h.drop()
	return h.rebuild(ctx, damage)
}

// load opens the file, and builds it first where it is missing or damaged.
func (h *Header) load(ctx context.Context) error {
	if err := h.lock.Acquire(ctx, maxOps); err != nil {
		return err
	}
	defer h.lock.Release(maxOps)
	if h.reader != nil {
		return nil
	}
	r, err := openReader(h.path(), h.src.IndexBytes)
	if err != nil {
		if err := h.rebuild(ctx, err); err != nil {
			return err
		}
		if r, err = openReader(h.path(), h.src.IndexBytes); err != nil {
			return fmt.Errorf("open index header: %w", err)
		}
	}
	h.reader = r
	h.metrics.loads.Inc()
	h.metrics.loaded.Inc()
	return nil
}

func (h *Header) drop() {
	if h.reader != nil {
		h.reader.close()
		h.reader = nil
		h.metrics.loaded.Dec()
	}
}

// UnloadIdle lets go of the memory and the file when nobody has used the header
// since before, and nobody does now.
func (h *Header) UnloadIdle(before time.Time) {
	if h.used.Load() >= before.UnixNano() || !h.lock.TryAcquire(maxOps) {
		return
	}
	defer h.lock.Release(maxOps)
	if h.reader != nil {
		h.drop()
		h.metrics.unloads.Inc()
	}
}

// Close lets go of the memory and the file. The caller makes sure that no call
// but UnloadIdle comes at the same time or later.
func (h *Header) Close() {
	// The error could only be the context's. UnloadIdle, which may have the
	// lock, does not keep it for long.
	_ = h.lock.Acquire(context.Background(), maxOps)
	defer h.lock.Release(maxOps)
	h.drop()
}

// Symbols calls f for each of ids, which are sorted and unique; f may be called
// for one id a second time.
func (h *Header) Symbols(ctx context.Context, ids []uint32, f func(id uint32, symbol string)) error {
	return h.do(ctx, func(r *reader) error { return r.symbols(ids, f) })
}

// Posting is a value of a label name and where the list of its series lies in the index.
type Posting struct {
	Value string
	Span  fetch.Span
}

// Postings finds the lists of values of a label name. Values that there are no
// series of are left out. The result is sorted by value.
func (h *Header) Postings(ctx context.Context, name string, values []string) (out []Posting, err error) {
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	err = h.do(ctx, func(r *reader) error {
		found, err := r.postings(name, values)
		out = make([]Posting, len(found))
		for i, p := range found {
			out[i] = Posting{p.value, p.span}
		}
		return err
	})
	return out, err
}

// All is the list of all series; ok is false when there are none.
func (h *Header) All(ctx context.Context) (p Posting, ok bool, err error) {
	all, err := h.Postings(ctx, "", []string{""})
	if err != nil || len(all) == 0 {
		return Posting{}, false, err
	}
	return all[0], true, nil
}

// Match finds the lists of the values of a label name which begin with prefix
// and for which match, unless it is nil, says yes. The result is sorted by value.
func (h *Header) Match(ctx context.Context, name, prefix string, match func(string) bool) (out []Posting, err error) {
	err = h.do(ctx, func(r *reader) error {
		out = out[:0]
		n := 0
		err := r.walk(name, prefix, func(p posting) bool {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return false
			}
			if match == nil || match(p.value) {
				out = append(out, Posting{p.value, p.span})
			}
			return true
		})
		return errors.Join(err, ctx.Err())
	})
	return out, err
}

// Names are the label names of the block, sorted.
func (h *Header) Names(ctx context.Context) (names []string, err error) {
	err = h.do(ctx, func(r *reader) error {
		names = make([]string, 0, len(r.dir.names))
		for _, n := range r.dir.names {
			if n.name != "" {
				names = append(names, n.name)
			}
		}
		return nil
	})
	return names, err
}

// HasName tells whether any series of the block has a label of that name.
func (h *Header) HasName(ctx context.Context, name string) (has bool, err error) {
	err = h.do(ctx, func(r *reader) error {
		has = r.dir.find(name) != nil
		return nil
	})
	return has, err
}

// SeriesSection is where the index keeps its series.
func (h *Header) SeriesSection(ctx context.Context) (s fetch.Span, err error) {
	err = h.do(ctx, func(r *reader) error {
		s = r.dir.series
		return nil
	})
	return s, err
}
