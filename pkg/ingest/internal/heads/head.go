package heads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/firnline/firnline/pkg/tenant"
)

// Folders of a TSDB.
const (
	walDir    = "wal"
	wblDir    = "wbl"
	chunksDir = "chunks_head"
)

// Sizes for many TSDBs in one process: with the module's defaults, eight times as much, an
// idle tenant costs 3 MiB, and 4 more once a chunk was written. The stripes are those of the map that each
// sample's series is looked up in: a large tenant takes a sixth less CPU with the default. So
// the tenants that are opened first have it.
const (
	stripeSize       = 2048
	chunkWriteBuffer = 512 << 10
	defaultStripes   = 16 // tenants
)

// head is one tenant's open TSDB.
type head struct {
	id       tenant.ID
	dir      string
	heads    *Heads
	log      *slog.Logger
	db       *tsdb.DB
	counters *counters
	census   *census
	sessions *sessions
	families *families
	syncer   *syncer // nil: --ingest.sync=none
	shipping *shipping
	notes    *tenantNotes // nil: none are kept

	startTimestamps bool // as opened
	startedFrom     string
	openedAt        time.Time
	window          atomic.Int64 // out of order, ms
	offered         atomic.Int64 // when a write began last, ns; 0: none since the opening
	appended        atomic.Int64 // when one last came to its commit's end, ns
	broken          atomic.Pointer[error]

	// cutting is held by appends for reading, and for writing while the whole
	// head is cut into blocks: what came meanwhile would be truncated away. And
	// while settings change, which the TSDB does not guard.
	cutting sync.RWMutex

	// offering is held for reading while samples are offered to the TSDB, and for
	// writing to compare its counters with ours. After cutting.
	offering           sync.RWMutex
	floats, histograms ledger

	mu struct {
		sync.Mutex
		uses    int
		closing bool
		idle    chan struct{} // closed when closing and no use is left
	}

	stop context.CancelFunc // of the syncer
	done sync.WaitGroup
}

// options are the TSDB's for this tenant.
func (h *head) options(lim Limits) *tsdb.Options {
	cfg := &h.heads.cfg
	o := tsdb.DefaultOptions()
	o.RetentionDuration = time.Duration(cfg.Retention).Milliseconds()
	o.MinBlockDuration = time.Duration(cfg.MinBlockDuration).Milliseconds()
	o.MaxBlockDuration = time.Duration(cfg.MaxBlockDuration).Milliseconds()
	o.OutOfOrderTimeWindow = h.windowOf(lim)
	o.OutOfOrderCapMax = int64(cfg.OutOfOrderCapMax)
	o.EnableOverlappingCompaction = false // the compactor's work
	o.HeadChunksWriteBufferSize = chunkWriteBuffer
	if h.heads.tenants() > defaultStripes {
		o.StripeSize = stripeSize
	}
	o.BlockReloadInterval = h.heads.reload
	o.EnableExemplarStorage, o.MaxExemplars = cfg.MaxExemplars > 0, int64(cfg.MaxExemplars)
	o.SeriesLifecycleCallback = h.census
	o.BlocksToDelete = h.shipping.deletable
	if cfg.WALCompression {
		o.WALCompression = compression.Snappy
	}
	if lim.StartTimestamps {
		o.EnableSTStorage, o.EnableHistogramSTEncoding = true, true
		o.FloatChunkEncoding = chunkenc.EncXOR2
	}
	return o
}

// tenants is how many there are, also those that are being opened or could not be.
func (hs *Heads) tenants() int {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return len(hs.mu.slots)
}

// windowOf is the out-of-order window of a tenant in ms.
func (h *head) windowOf(lim Limits) int64 {
	if lim.OutOfOrderWindow != nil {
		return time.Duration(*lim.OutOfOrderWindow).Milliseconds()
	}
	return time.Duration(h.heads.cfg.OutOfOrderWindow).Milliseconds()
}

// newHead wires a head and opens nothing.
func (hs *Heads) newHead(id tenant.ID) *head {
	h := &head{
		id: id, dir: filepath.Join(hs.cfg.Dir, string(id)), heads: hs,
		log:      hs.log.With("tenant", string(id)),
		counters: newCounters(hs.sums.shown),
		sessions: newSessions(hs.cfg.MaxSessions, hs.now),
	}
	h.census = newCensus(func() Limits { return hs.limits(id) }, h.room(), hs.crowded)
	h.mu.idle = make(chan struct{})
	h.shipping = newShipping(h)
	return h
}

// open opens the TSDB, mending what is damaged, and starts what belongs to it.
func (h *head) open(stats *tsdb.DBStats) error {
	lim := h.heads.limits(h.id)
	var err error
	if h.families, err = openFamilies(h.dir, h.heads.cfg.MaxFamilies, h.heads.metrics.families); err != nil {
		return err
	}
	if h.db, err = h.openTSDB(lim, stats); err != nil {
		return err
	}
	h.notes = h.openNotes()
	// Cuts are ours to make: a few tenants at a time. The TSDB's loop looks at that without the lock that
	// guards it, but not before it has taken the one of its blocks, which orders the two.
	h.db.DisableCompactions()
	_ = h.db.Blocks()
	h.window.Store(h.windowOf(lim))
	h.startTimestamps, h.openedAt = lim.StartTimestamps, h.heads.now()
	h.floats.open(h.counters.drops(), "float")
	h.histograms.open(h.counters.drops(), "histogram")
	h.census.enforce.Store(true)
	if h.heads.cfg.Sync != SyncBatched {
		return nil
	}
	if h.syncer, err = newSyncer(h.dir, time.Duration(h.heads.cfg.SyncInterval), h.heads.fault, h.heads.metrics); err != nil {
		return errors.Join(err, h.db.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.done.Go(func() { h.syncer.run(ctx) })
	return nil
}

// close closes the TSDB once nobody uses it. When ctx ends first it stays open.
func (h *head) close(ctx context.Context) error {
	h.mu.Lock()
	h.mu.closing = true
	if h.mu.uses == 0 {
		h.endUse()
	}
	h.mu.Unlock()
	h.mu.Lock()
	idle := h.mu.idle
	h.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		return fmt.Errorf("tenant %s: close: %w: %w", h.id, errInUse, context.Cause(ctx))
	}
	if h.stop != nil {
		h.stop()
		h.done.Wait()
	}
	h.heads.sums.retire(h.counters)
	h.notes.close()
	inOrder := h.startedFrom != startedByTSDB && h.failure() == nil && h.keepReferences() == nil
	series, chunks := int(h.db.Head().NumSeries()), int(h.counters.value(headChunks))
	err := errors.Join(h.families.save(), h.db.Close())
	h.letGo()
	if err == nil && inOrder {
		err = h.noteEnd(series, chunks)
	}
	if err != nil {
		return fmt.Errorf("tenant %s: close: %w", h.id, err)
	}
	return nil
}

// letGo drops the TSDB, which is closed: whoever opens it anew has h until then, and what it holds would
// count as in use.
func (h *head) letGo() {
	h.db = nil
	h.counters.forget() // they look into it
}

// errInUse is a head that can't be closed, since reads or writes go on for long.
var errInUse = errors.New("in use")

// reuse takes back a close that failed with errInUse.
func (h *head) reuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.closing, h.mu.idle = false, make(chan struct{})
}

// retain takes a use of the head, which release gives back. False: it is being closed.
func (h *head) retain() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closing {
		return false
	}
	h.mu.uses++
	return true
}

func (h *head) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.uses--
	if h.mu.closing && h.mu.uses == 0 {
		h.endUse()
	}
}

// endUse lets close go on. Close may be called again after it gave up.
func (h *head) endUse() {
	select {
	case <-h.mu.idle:
	default:
		close(h.mu.idle)
	}
}

// apply puts a changed out-of-order window in force. Nothing is appended
// meanwhile: the TSDB may open its second log.
func (h *head) apply(lim Limits) error {
	window := h.windowOf(lim)
	if h.window.Load() == window {
		return nil
	}
	h.cutting.Lock()
	defer h.cutting.Unlock()
	if h.window.Load() == window {
		return nil // another write was first
	}
	cfg := config.Config{StorageConfig: config.StorageConfig{
		TSDBConfig:      &config.TSDBConfig{OutOfOrderTimeWindow: window},
		ExemplarsConfig: &config.ExemplarsConfig{MaxExemplars: int64(h.heads.cfg.MaxExemplars)},
	}}
	if err := h.db.ApplyConfig(&cfg); err != nil {
		return fmt.Errorf("tenant %s: change the out-of-order window: %w", h.id, err)
	}
	h.window.Store(window)
	h.log.Info("out-of-order window changed", "window", time.Duration(window)*time.Millisecond)
	return nil
}

// errTorn is a log in which a write has failed, nobody can say why: records that follow
// would be cut off with it at the next start.
var errTorn = errors.New("a write to the log has failed")

// passes tells a failure that ends when the log is cut and opened anew. Descriptors are lacking before
// anything is written or synced.
func passes(err error) bool {
	return isDiskFull(err) || errors.Is(err, errTorn) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// fail notes that the log can't be trusted any more. The first reason stays,
// unless a later one is worse.
func (h *head) fail(err error) {
	for {
		old := h.broken.Load()
		if old != nil && (passes(err) || !passes(*old)) {
			return
		}
		if h.broken.CompareAndSwap(old, &err) {
			break
		}
	}
	until := "the next start"
	if passes(err) {
		until = "there is space, there are descriptors, and the log is opened anew"
	}
	h.log.Error("log can't be written; the tenant is read only", "err", err, "until", until)
}

// failure is why nothing can be appended, or nil.
func (h *head) failure() error {
	if err := h.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// bounds are the times of all samples, ms; ok is false if there are none.
func (h *head) bounds() (mint, maxt int64, ok bool) {
	mint, maxt = math.MaxInt64, math.MinInt64
	for _, b := range h.db.Blocks() {
		mint, maxt = min(mint, b.MinTime()), max(maxt, b.MaxTime()-1)
	}
	hd := h.db.Head()
	if hd.NumSeries() > 0 && hd.MinTime() != math.MaxInt64 {
		mint, maxt = min(mint, hd.MinTime()), max(maxt, hd.MaxTime())
	}
	if hd.MinOOOTime() != math.MaxInt64 && hd.MinOOOTime() <= hd.MaxOOOTime() {
		mint, maxt = min(mint, hd.MinOOOTime()), max(maxt, hd.MaxOOOTime())
	}
	return mint, maxt, mint <= maxt
}
