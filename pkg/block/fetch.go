package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/relabel"
	"golang.org/x/sync/errgroup"
)

// Fetcher keeps track of the blocks in a bucket. A pass costs one listing, one
// GET for each meta.json and mark that is new or was written anew, and nothing
// for the others, whose content it keeps in memory and, for meta.json, on disk.
//
// A listing is believed when it shows a block and doubted when it doesn't; see judge.
type Fetcher struct {
	cfg     FetcherConfig
	rules   []*relabel.Config
	bkt     Bucket
	log     *slog.Logger
	metrics *fetchMetrics
	now     func() time.Time

	mu struct {
		sync.Mutex // held during a pass
		fetchState
	}
}

// fetchState is what passes hand on to one another.
type fetchState struct {
	started bool
	cache   metaCache
	metas   map[ulid.ULID]*Meta
	marks   map[ulid.ULID]Marks
	bad     map[ulid.ULID]error              // blocks whose meta.json can't be used
	have    map[ulid.ULID]map[string]version // what was read, by block and name
	partial map[ulid.ULID]time.Time
	missing sightings
}

type fetchMetrics struct {
	duration prometheus.Histogram
	failures prometheus.Counter
	faults   prometheus.Counter
	success  prometheus.Gauge
	blocks   *prometheus.GaugeVec
	reads    prometheus.Counter
}

func newFetchMetrics(reg prometheus.Registerer) *fetchMetrics {
	f := promauto.With(reg)
	return &fetchMetrics{
		duration: f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_fetcher_duration_seconds", Help: "Time of a pass over the bucket's blocks.", Buckets: prometheus.ExponentialBuckets(0.05, 3, 9)}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_failures_total", Help: "Passes that could not list the bucket or read every meta and mark."}),
		faults:   f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_listing_faults_total", Help: "Listings that lacked too many known blocks to be believed."}),
		success:  f.NewGauge(prometheus.GaugeOpts{Name: "firnline_fetcher_last_success_timestamp_seconds", Help: "When a pass last went well."}),
		blocks:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_fetcher_blocks", Help: "Blocks by state: used, partial, problem, missing, or left out by time, selector, fresh, marked, duplicate."}, []string{"state"}),
		reads:    f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_reads_total", Help: "Metas and marks read from the bucket."}),
	}
}

// NewFetcher wires a Fetcher and reads nothing from the bucket; the error is
// cfg's. dir is the component's data folder, where copies of each meta.json are
// kept in meta-syncer/; "" keeps none.
func NewFetcher(cfg FetcherConfig, bkt Bucket, dir string, log *slog.Logger, reg prometheus.Registerer) (*Fetcher, error) {
	rules, err := loadSelector(cfg.Selector, cfg.SelectorFile)
	if err != nil {
		return nil, err
	}
	f := &Fetcher{cfg: cfg, rules: rules, bkt: bkt, log: log, metrics: newFetchMetrics(reg), now: time.Now}
	f.mu.fetchState = fetchState{
		cache:   newMetaCache(dir),
		metas:   map[ulid.ULID]*Meta{},
		marks:   map[ulid.ULID]Marks{},
		bad:     map[ulid.ULID]error{},
		have:    map[ulid.ULID]map[string]version{},
		missing: sightings{},
	}
	return f, nil
}

// SetClock replaces time.Now, for tests. Call it before the first pass.
func (f *Fetcher) SetClock(now func() time.Time) { f.now = now }

// Fetch makes a pass and returns the blocks that the config asks for.
//
// The view is the best that is known, with an error too: after a listing that
// failed or lacks blocks (ErrListing) it is what was known before. Who only
// reads blocks goes on with it; who removes any must stop at an error.
func (f *Fetcher) Fetch(ctx context.Context) (View, error) {
	all, err := f.FetchAll(ctx)
	v := Select(all, f.cfg.at(f.now(), f.rules), f.now())
	for _, r := range []Reason{DroppedTime, DroppedSelector, DroppedFresh, DroppedMarked, DroppedDuplicate} {
		f.metrics.blocks.WithLabelValues(string(r)).Set(float64(v.Dropped[r]))
	}
	f.metrics.blocks.WithLabelValues("used").Set(float64(len(v.Metas)))
	return v, err
}

// FetchAll is Fetch without leaving any block out.
func (f *Fetcher) FetchAll(ctx context.Context) (View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := time.Now()
	err := f.pass(ctx, &f.mu.fetchState)
	f.metrics.duration.Observe(time.Since(start).Seconds())
	f.observe(&f.mu.fetchState, err)
	return f.mu.view(), err
}

func (f *Fetcher) observe(s *fetchState, err error) {
	if err != nil {
		f.metrics.failures.Inc()
	} else {
		f.metrics.success.Set(float64(f.now().Unix()))
	}
	f.metrics.blocks.WithLabelValues("partial").Set(float64(len(s.partial)))
	f.metrics.blocks.WithLabelValues("problem").Set(float64(len(s.bad)))
	f.metrics.blocks.WithLabelValues("missing").Set(float64(len(s.missing)))
}

func (s *fetchState) view() View {
	return View{Metas: s.metas, Marks: s.marks, Partial: s.partial, Problems: s.bad}.clone()
}

// pass brings s up to date with the bucket.
func (f *Fetcher) pass(ctx context.Context, s *fetchState) error {
	if err := f.start(s); err != nil {
		return err
	}
	l, err := list(ctx, f.bkt, f.cfg.Strategy, f.cfg.Concurrency)
	if err != nil {
		return err
	}
	readErr := f.read(ctx, s, l)
	s.takePartial(l)
	return errors.Join(readErr, f.settle(ctx, s, l))
}

// start takes what an earlier process knew from disk, once. Such a block was
// seen before; if it is missing now, that is the second time.
func (f *Fetcher) start(s *fetchState) error {
	if s.started {
		return nil
	}
	ids, err := s.cache.ids()
	if err != nil {
		return fmt.Errorf("read cached metas: %w", err)
	}
	for _, id := range ids {
		if m, v, ok := s.cache.get(id); ok {
			s.metas[id] = m
			s.have[id] = map[string]version{MetaFilename: v}
			s.missing[id] = time.Time{}
		}
	}
	s.started = true
	return nil
}

// task is an object to read.
type task struct {
	id   ulid.ULID
	name string
	v    version
}

// fetched is what reading it gave.
type fetched struct {
	task
	data []byte
	gone bool
}

// read gets every meta and mark that is new or was written anew. What can't be
// read stays as it was and comes up again in the next pass.
func (f *Fetcher) read(ctx context.Context, s *fetchState, l listing) error {
	var tasks []task
	for id, b := range l {
		for name, v := range b.small {
			if have, ok := s.have[id][name]; !ok || have != v {
				tasks = append(tasks, task{id, name, v})
			}
		}
	}
	results := make([]*fetched, len(tasks))
	errs := make([]error, len(tasks))
	var g errgroup.Group
	g.SetLimit(max(f.cfg.Concurrency, 1))
	for i, t := range tasks {
		g.Go(func() error {
			results[i], errs[i] = f.get(ctx, t)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs: one bad object must not stop the others
	for _, r := range results {
		if r != nil && !r.gone {
			f.take(s, *r)
		}
	}
	s.dropMarks(l)
	return summary(errs)
}

func (f *Fetcher) get(ctx context.Context, t task) (*fetched, error) {
	f.metrics.reads.Inc()
	data, err := getAll(ctx, f.bkt, Name(t.id, t.name), maxMetaBytes)
	if err != nil && f.bkt.IsObjNotFoundErr(err) {
		return &fetched{task: t, gone: true}, nil // listed and gone since: the next listing will tell
	}
	if err != nil {
		return nil, fmt.Errorf("block %s: read %s: %w", t.id, t.name, err)
	}
	if int64(len(data)) < t.v.sizeBytes {
		return nil, fmt.Errorf("block %s: read %s: %d bytes of %d came", t.id, t.name, len(data), t.v.sizeBytes)
	}
	return &fetched{task: t, data: data}, nil
}

// take parses what was read and puts it into s. A meta.json that is corrupt is
// read again in the next pass: its bytes may have been broken on their way.
func (f *Fetcher) take(s *fetchState, r fetched) {
	if r.name != MetaFilename {
		marks := s.marks[r.id]
		if err := marks.set(r.id, r.name, r.data); err != nil {
			f.log.Warn("mark can't be used; the block is taken as not marked so", "block", r.id, "err", err)
		}
		s.marks[r.id] = marks
		s.noteVersion(r.task)
		return
	}
	m, err := ParseMeta(r.id, r.data)
	if !errors.Is(err, ErrCorrupt) {
		s.noteVersion(r.task)
	}
	if err != nil {
		if old := s.bad[r.id]; old == nil || old.Error() != err.Error() {
			f.log.Warn("block is left out", "block", r.id, "err", err)
		}
		s.bad[r.id] = err
		delete(s.metas, r.id)
		return
	}
	delete(s.bad, r.id)
	s.metas[r.id] = m
	if err := s.cache.put(r.id, r.data, r.v); err != nil {
		f.log.Warn("meta is not kept on disk; it is read again after a restart", "block", r.id, "err", err)
	}
}

func (s *fetchState) noteVersion(t task) {
	if s.have[t.id] == nil {
		s.have[t.id] = map[string]version{}
	}
	s.have[t.id][t.name] = t.v
}

// set reads one of the three marks.
func (m *Marks) set(id ulid.ULID, filename string, data []byte) error {
	switch filename {
	case DeletionMarkFilename:
		return assign(&m.Deletion, id, filename, data)
	case NoCompactMarkFilename:
		return assign(&m.NoCompact, id, filename, data)
	default:
		return assign(&m.NoDownsample, id, filename, data)
	}
}

func assign[T any](to **T, id ulid.ULID, filename string, data []byte) error {
	mark := new(T)
	if err := parseMark(id, filename, data, mark); err != nil {
		*to = nil
		return err
	}
	*to = mark
	return nil
}

// dropMarks forgets marks that have been removed from blocks that are still
// listed. Those of missing blocks stay: they say why the block is missing.
func (s *fetchState) dropMarks(l listing) {
	for id, marks := range s.marks {
		b := l[id]
		if b == nil || !b.has(MetaFilename) {
			continue
		}
		if !b.has(DeletionMarkFilename) {
			marks.Deletion = nil
			delete(s.have[id], DeletionMarkFilename)
		}
		if !b.has(NoCompactMarkFilename) {
			marks.NoCompact = nil
			delete(s.have[id], NoCompactMarkFilename)
		}
		if !b.has(NoDownsampleMarkFilename) {
			marks.NoDownsample = nil
			delete(s.have[id], NoDownsampleMarkFilename)
		}
		s.marks[id] = marks
		if marks == (Marks{}) {
			delete(s.marks, id)
		}
	}
}

// takePartial notes the blocks that are listed without a meta.json and aren't known.
func (s *fetchState) takePartial(l listing) {
	s.partial = map[ulid.ULID]time.Time{}
	for id, b := range l {
		if !b.has(MetaFilename) && s.metas[id] == nil {
			s.partial[id] = b.newest
		}
	}
	maps.DeleteFunc(s.bad, func(id ulid.ULID, _ error) bool {
		gone := l[id] == nil || !l[id].has(MetaFilename)
		if gone {
			delete(s.have, id)
		}
		return gone
	})
}

// settle gives up the blocks that are gone for certain.
func (f *Fetcher) settle(ctx context.Context, s *fetchState, l listing) error {
	j := judge(s.metas, s.marks, l, s.missing, f.now(), time.Duration(f.cfg.GoneDelay))
	gone, err := f.probe(ctx, j.probe)
	for _, id := range append(j.drop, gone...) {
		delete(s.metas, id)
		delete(s.marks, id)
		delete(s.have, id)
		delete(s.missing, id)
		if err := s.cache.remove(id); err != nil {
			f.log.Warn("cached meta stays on disk", "block", id, "err", err)
		}
	}
	if kept := j.keep + len(j.probe) - len(gone); j.fault && kept > 0 {
		f.metrics.faults.Inc()
		err = errors.Join(err, fmt.Errorf("%w: %d of %d; they are kept until they are missing again in %s and can't be read either",
			ErrListing, kept, len(s.metas), f.cfg.GoneDelay))
	}
	return err
}

// probe asks for each meta.json directly and returns the blocks that have none.
func (f *Fetcher) probe(ctx context.Context, ids []ulid.ULID) ([]ulid.ULID, error) {
	there := make([]bool, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(max(f.cfg.Concurrency, 1))
	for i, id := range ids {
		g.Go(func() error {
			there[i], errs[i] = f.bkt.Exists(ctx, Name(id, MetaFilename))
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	var gone []ulid.ULID
	for i, id := range ids {
		if errs[i] == nil && !there[i] {
			gone = append(gone, id)
		}
	}
	return gone, summary(errs)
}

// summary makes one error of many, which in a storm are all the same.
func summary(errs []error) error {
	var first error
	n := 0
	for _, err := range errs {
		if err == nil {
			continue
		}
		if n++; first == nil {
			first = err
		}
	}
	if n > 1 {
		return fmt.Errorf("%w (and %d more)", first, n-1)
	}
	return first
}
