package heads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Heads are the TSDBs of all tenants of this ingester. All methods are safe for concurrent use.
type Heads struct {
	cfg      Config
	external labels.Labels
	bkt      block.Bucket // nil: nothing is shipped
	log      *slog.Logger
	metrics  *metrics
	notes    *notes.Metrics
	sums     *sums
	now      func() time.Time
	limits   func(tenant.ID) Limits
	ring     func(tenant.ID) labels.Labels
	fault    func(step string) error
	memory   Memory
	gc       collector
	crowded  func() fmt.Stringer
	disk     *disk
	replays  chan struct{} // a place in it is the right to open a TSDB
	beside   sync.RWMutex  // held for writing by an opening that wants all memory for itself
	cuts     chan struct{} // and that to cut a head
	every    func(ctx context.Context, interval time.Duration, f func(context.Context))
	reload   time.Duration // between two looks of a TSDB at its blocks and full chunks

	mu struct {
		sync.Mutex
		state   state
		slots   map[tenant.ID]*slot
		folders int // to be opened before we are ready
		opened  int
	}
}

type state int

const (
	starting state = iota
	serving
	stopping
)

// slot is a tenant's place: its head, or that it is being opened or closed.
type slot struct {
	done  chan struct{} // closed when head or err is set
	head  *head
	err   error
	tries int           // that failed in a row, with this one
	retry time.Time     // not before: the next try, after err
	stats *tsdb.DBStats // how far its log was read
}

// Parts are what Heads work with.
type Parts struct {
	Bucket  block.Bucket // nil: ship nothing
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time // nil: time.Now

	// Limits are a tenant's; they may change while it is open. nil: none.
	Limits func(tenant.ID) Limits
	// RingLabels are external labels that come with a tenant's hashring. nil: none.
	RingLabels func(tenant.ID) labels.Labels

	// Fault is called before each step that touches the disk; its error is
	// taken for that step's. nil in production.
	Fault func(step string) error
	// FreeBytes tells the free space of a file system. nil: the system's answer.
	FreeBytes func(dir string) (int64, error)
	// Memory is what may be taken to open TSDBs.
	Memory Memory
	// Crowded tells why there is no memory for more series; nil while there is memory. nil: there always is.
	Crowded func() fmt.Stringer
}

// New wires Heads and starts nothing; call Run. The Config must be valid.
func New(cfg Config, p Parts) *Heads {
	hs := &Heads{
		cfg: cfg, bkt: p.Bucket, log: p.Log, metrics: newMetrics(p.Metrics), notes: notes.NewMetrics(p.Metrics),
		now: p.Now, limits: p.Limits, ring: p.RingLabels, fault: p.Fault, memory: p.Memory.withDefaults(), crowded: p.Crowded,
		replays: make(chan struct{}, cfg.replays()),
		cuts:    make(chan struct{}, cfg.CutConcurrency),
		every:   every,
		reload:  time.Minute,
	}
	if hs.now == nil {
		hs.now = time.Now
	}
	if hs.limits == nil {
		hs.limits = func(tenant.ID) Limits { return Limits{} }
	}
	if hs.ring == nil {
		hs.ring = func(tenant.ID) labels.Labels { return labels.EmptyLabels() }
	}
	if hs.crowded == nil {
		hs.crowded = func() fmt.Stringer { return nil }
	}
	if hs.fault == nil {
		hs.fault = func(string) error { return nil }
	}
	if p.FreeBytes == nil {
		p.FreeBytes = freeBytes
	}
	hs.external, _ = cfg.external() // Validate has looked at them
	hs.disk = &disk{dir: cfg.Dir, least: int64(cfg.MinFree), free: p.FreeBytes, now: hs.now, log: hs.log, metrics: hs.metrics}
	hs.sums = newSums(hs.openCounters)
	p.Metrics.MustRegister(hs.sums, hs.limitUsage(), newSeriesByTenant(hs))
	hs.mu.slots = map[tenant.ID]*slot{}
	return hs
}

// Run opens the tenants that have a folder, then ships and tends to all until
// ctx is done. Then it closes them and returns nil; what reads or writes by then
// may end first, for closeTimeout. An error means that the folder can't be used.
func (hs *Heads) Run(ctx context.Context) error {
	folder, err := openFolder(hs.cfg.Dir)
	if err != nil {
		return err
	}
	defer folder.close()
	if err := hs.openAll(ctx, folder); err != nil {
		return err
	}
	var g errgroup.Group // without a shared context: no job ends the others
	g.Go(func() error { hs.every(ctx, tendInterval, hs.tend); return nil })
	if hs.bkt != nil {
		g.Go(func() error { hs.every(ctx, time.Duration(hs.cfg.Shipper.Interval), hs.shipAll); return nil })
	}
	<-ctx.Done()
	_ = g.Wait() // they end with ctx and return nil
	hs.closeAll(context.WithoutCancel(ctx))
	return nil
}

// tendInterval is the time between looks at each tenant.
const tendInterval = 5 * time.Second

// closeTimeout bounds the wait for reads and writes when Run ends.
const closeTimeout = 30 * time.Second

// every calls f at once and then each interval until ctx is done.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// openAll opens the tenants found on disk, a few at a time. One that can't be
// opened is tried again later and does not keep the others from serving.
func (hs *Heads) openAll(ctx context.Context, f *folder) error {
	ids, err := f.tenants()
	if err != nil {
		return err
	}
	hs.mu.Lock()
	hs.mu.folders = len(ids)
	hs.mu.Unlock()
	hs.gc.seldom()
	defer hs.gc.asBefore()
	var g errgroup.Group
	g.SetLimit(hs.cfg.replays())
	for _, id := range ids {
		g.Go(func() error {
			if ctx.Err() == nil {
				hs.openFound(id)
				hs.gc.asBefore() // the next ones have others beside them
			}
			return nil
		})
	}
	_ = g.Wait() // failures are in the slots
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.mu.state = serving
	return nil
}

// openFound opens a tenant that was found on disk.
func (hs *Heads) openFound(id tenant.ID) {
	hs.mu.Lock()
	s := hs.addSlot(id)
	hs.mu.Unlock()
	hs.fill(s, id)
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.mu.opened++
}

// errStopping is told at the end of Run.
var errStopping = errors.New("the ingester is stopping")

// Ready tells what is waited for before samples are taken, or nil. It names how
// far the logs have been read.
func (hs *Heads) Ready() error {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	switch hs.mu.state {
	case serving:
		return nil
	case stopping:
		return errStopping
	}
	var under []string
	for id, s := range hs.mu.slots {
		if s.head == nil && s.err == nil && s.stats != nil {
			p := s.stats.Head.WALReplayStatus.GetWALReplayStatus()
			under = append(under, fmt.Sprintf("%s: segment %d of %d..%d", id, p.Current, p.Min, p.Max))
		}
	}
	return fmt.Errorf("reading the logs of tenants, %d of %d done (%s)", hs.mu.opened, hs.mu.folders, strings.Join(under, "; "))
}

// Tenants are those that are open.
func (hs *Heads) Tenants() []tenant.ID {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	var ids []tenant.ID
	for id, s := range hs.mu.slots {
		if s.head != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// acquire returns a tenant's head, opened if need be. The caller releases it.
func (hs *Heads) acquire(ctx context.Context, id tenant.ID) (*head, error) {
	for {
		s, mine, err := hs.slot(id)
		if err != nil {
			return nil, err
		}
		if mine {
			hs.fill(s, id)
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, unavailable(id, fmt.Errorf("wait for its TSDB to open: %w", context.Cause(ctx)))
		}
		if s.err != nil {
			return nil, unavailable(id, s.err)
		}
		if s.head.retain() {
			return s.head, nil
		}
	}
}

// slot returns a tenant's slot. mine: it is new, and the caller has to fill it.
func (hs *Heads) slot(id tenant.ID) (s *slot, mine bool, err error) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.mu.state == stopping {
		return nil, false, refuse.Errorf(refuse.NotReady, id, "%s", errStopping)
	}
	s = hs.mu.slots[id]
	if s != nil && (s.err == nil || hs.now().Before(s.retry)) {
		return s, false, nil
	}
	if s == nil && hs.cfg.MaxTenants > 0 && len(hs.mu.slots) >= hs.cfg.MaxTenants {
		return nil, false, refuse.Errorf(refuse.Overloaded, id, "tenant %s can't be opened: %d are, the most there may be (%s)", id, len(hs.mu.slots), flagTenants)
	}
	if parsed, err := tenant.Parse(string(id)); err != nil || parsed != id {
		return nil, false, refuse.Errorf(refuse.BadTenant, id, "%s", err)
	}
	return hs.addSlot(id), true, nil
}

// addSlot makes a slot to be filled. Heads.mu is held.
func (hs *Heads) addSlot(id tenant.ID) *slot {
	s := &slot{done: make(chan struct{}), stats: tsdb.NewDBStats()}
	if old := hs.mu.slots[id]; old != nil && old.err != nil {
		s.tries = old.tries
	}
	hs.mu.slots[id] = s
	return s
}

// retryOpening is how long a TSDB that could not be opened is left alone at first; from time to time
// it is twice as long. For want of memory it is the longest at once: each try takes what there is, and
// the TSDB leaves the files of a failed one open.
const (
	retryOpening = time.Minute
	retryLongest = 16 * retryOpening
	retryNoRoom  = time.Hour
)

// retryAfter is how long a TSDB is left alone after so many tries that failed, the last with err.
func retryAfter(tries int, err error) time.Duration {
	if errors.Is(err, errNoRoom) {
		return retryNoRoom
	}
	wait := retryOpening
	for i := 1; i < tries && wait < retryLongest; i++ {
		wait *= 2
	}
	return wait
}

// fill opens a tenant's TSDB into its slot. It is not bound to the request that
// asked for it: others wait for the same.
func (hs *Heads) fill(s *slot, id tenant.ID) {
	hs.replays <- struct{}{}
	defer func() { <-hs.replays }()
	hs.metrics.opening.Inc()
	defer hs.metrics.opening.Dec()
	start := time.Now()
	h := hs.newHead(id)
	err := h.open(s.stats)
	if err != nil {
		err = fmt.Errorf("open the TSDB: %w", withRemedy(err))
		hs.log.Error("tenant can't be opened; it is tried again", "tenant", string(id), "after", retryAfter(s.tries+1, err), "err", err)
	}
	if errors.Is(err, errNoRoom) {
		hs.memory.Collect() // else others are refused for it until garbage is collected
	}
	hs.metrics.openSeconds.Observe(time.Since(start).Seconds())
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if err != nil {
		s.tries++
		s.err, s.retry = err, hs.now().Add(retryAfter(s.tries, err))
	} else {
		s.head = h
		hs.metrics.opened.WithLabelValues(h.startedFrom).Inc()
	}
	close(s.done)
	hs.count()
}

// count brings the gauges of tenants up to date. Heads.mu is held.
func (hs *Heads) count() {
	open, failed := 0, 0
	for _, s := range hs.mu.slots {
		switch {
		case s.head != nil:
			open++
		case s.err != nil:
			failed++
		}
	}
	hs.metrics.tenants.Set(float64(open))
	hs.metrics.unopened.Set(float64(failed))
}

// openCounters returns the metrics of all open TSDBs.
func (hs *Heads) openCounters() []*counters {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	var out []*counters
	for _, s := range hs.mu.slots {
		if s.head != nil {
			out = append(out, s.head.counters)
		}
	}
	return out
}

// retained returns the open heads, each to be released by the caller.
func (hs *Heads) retained() []*head {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	var out []*head
	for _, s := range hs.mu.slots {
		if s.head != nil && s.head.retain() {
			out = append(out, s.head)
		}
	}
	return out
}

// replace closes a tenant's head and then does what then says: opens the tenant
// anew (again), or leaves it closed. Who asks for the tenant meanwhile waits. A
// head that is in use for longer than closeTimeout stays as it is.
func (hs *Heads) replace(ctx context.Context, h *head, then func() (again bool, err error)) error {
	hs.mu.Lock()
	old := hs.mu.slots[h.id]
	if old == nil || old.head != h || hs.mu.state != serving {
		hs.mu.Unlock()
		return nil // somebody else sees to it
	}
	s := hs.addSlot(h.id)
	hs.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, closeTimeout, errors.New("it is in use"))
	defer cancel()
	again, err := true, h.close(ctx)
	if errors.Is(err, errInUse) {
		h.reuse()
		hs.mu.Lock()
		defer hs.mu.Unlock()
		s.head = h
		close(s.done)
		return err
	}
	if err == nil {
		again, err = then()
	}
	if again {
		hs.fill(s, h.id)
		return err
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	delete(hs.mu.slots, h.id)
	s.err = errClosed
	close(s.done)
	hs.count()
	return err
}

// errClosed is told those who waited for a tenant that is gone now.
var errClosed = errors.New("it has been closed for having sent nothing; send again")

// closeAll closes all tenants at the end of Run.
func (hs *Heads) closeAll(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, closeTimeout, errStopping)
	defer cancel()
	hs.mu.Lock()
	hs.mu.state = stopping
	slots := make([]*slot, 0, len(hs.mu.slots))
	for _, s := range hs.mu.slots {
		slots = append(slots, s)
	}
	hs.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(max(hs.cfg.replays(), 4))
	for _, s := range slots {
		g.Go(func() error {
			<-s.done
			if s.head == nil {
				return nil
			}
			if hs.bkt != nil {
				s.head.shipping.end(ctx)
			}
			if err := s.head.close(ctx); err != nil {
				hs.log.Warn("tenant is not closed in order; its log tells at the next start", "err", err)
			}
			hs.metrics.closed.WithLabelValues("stop").Inc()
			return nil
		})
	}
	_ = g.Wait() // failures are logged
}

// remove takes a tenant's folder away, its data being in the bucket. The name it gets
// before is no tenant's, so that what a crash leaves is known for what it is.
func (hs *Heads) remove(id tenant.ID) error {
	root, err := os.OpenRoot(hs.cfg.Dir)
	if err != nil {
		return fmt.Errorf("remove tenant %s: %w", id, err)
	}
	defer root.Close()
	gone := removingPrefix + string(id)
	err = errors.Join(root.RemoveAll(gone), root.Rename(string(id), gone))
	if err == nil {
		err = errors.Join(block.SyncDir(filepath.Clean(hs.cfg.Dir)), root.RemoveAll(gone))
	}
	if err != nil {
		return fmt.Errorf("remove tenant %s: %w", id, err)
	}
	return nil
}
