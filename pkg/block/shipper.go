package block

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	randv2 "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// Shipper sends the blocks of a TSDB's folder to a bucket as they are cut, the
// oldest first. Killed at any moment it goes on where it was when started again.
type Shipper struct {
	cfg     ShipperConfig
	dir     string
	bkt     Bucket
	labels  func() labels.Labels
	source  string
	log     *slog.Logger
	metrics *shipMetrics

	notes func(ctx context.Context, m *Meta) error // nil: none
	now   func() time.Time
	rand  func() float64          // in [0, 1)
	fault func(step string) error // see Uploader.Fault

	state      *shipState // nil before Prepare
	leases     *shipLeases
	quarantine map[ulid.ULID]setAside
	noteTries  map[ulid.ULID]int // how often the notes of a block could not be sent
	warned     bool              // that leases don't work here

	mu struct {
		sync.Mutex
		status ShipperStatus
	}
}

// ShipperStatus is what a shipper shows of itself.
type ShipperStatus struct {
	Err         error               // of the last pass; nil: it went well
	HeldBy      *HeldError          // who ships under our labels in our place; nil: nobody
	Unleased    bool                // the bucket can't keep a second shipper with our labels away
	Pending     int                 // blocks to be shipped
	Quarantined map[ulid.ULID]error // blocks that can't be shipped, and why
	LastSuccess time.Time           // end of the last pass that left nothing to do
}

// setAside is a block that can't be shipped.
type setAside struct {
	err   error
	since time.Time
}

type shipMetrics struct {
	uploads     prometheus.Counter
	failures    prometheus.Counter
	bytes       prometheus.Counter
	pending     prometheus.Gauge
	success     prometheus.Gauge
	held        prometheus.Gauge
	unleased    prometheus.Gauge
	quarantined prometheus.Gauge
	unannounced prometheus.Counter
	noteless    prometheus.Counter
}

func newShipMetrics(reg prometheus.Registerer) *shipMetrics {
	f := promauto.With(reg)
	return &shipMetrics{
		uploads:     f.NewCounter(prometheus.CounterOpts{Name: "firnline_shipper_uploads_total", Help: "Blocks sent to the bucket and verified there."}),
		failures:    f.NewCounter(prometheus.CounterOpts{Name: "firnline_shipper_upload_failures_total", Help: "Blocks that could not be sent; they are tried again."}),
		bytes:       f.NewCounter(prometheus.CounterOpts{Name: "firnline_shipper_upload_bytes_total", Help: "Bytes of objects sent to the bucket."}),
		pending:     f.NewGauge(prometheus.GaugeOpts{Name: "firnline_shipper_pending_blocks", Help: "Local blocks that are yet to be shipped."}),
		success:     f.NewGauge(prometheus.GaugeOpts{Name: "firnline_shipper_last_success_timestamp_seconds", Help: "When a pass last left nothing to be shipped."}),
		held:        f.NewGauge(prometheus.GaugeOpts{Name: "firnline_shipper_held", Help: "1 while another shipper with the same external labels keeps this one from shipping."}),
		unleased:    f.NewGauge(prometheus.GaugeOpts{Name: "firnline_shipper_unleased", Help: "1 if the bucket has no conditional writes, so that nothing keeps a second shipper with the same external labels away."}),
		quarantined: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_shipper_quarantined_blocks", Help: "Local blocks that are corrupt and can't be shipped."}),
		unannounced: f.NewCounter(prometheus.CounterOpts{Name: "firnline_shipper_announce_failures_total", Help: "Blocks that were shipped and could not be announced for the bucket's manifest; readers find them later."}),
		noteless:    f.NewCounter(prometheus.CounterOpts{Name: "firnline_shipper_noteless_blocks_total", Help: "Blocks that were shipped without exemplars and metadata, since these could not be sent."}),
	}
}

// ShipperParts are what a Shipper works with.
type ShipperParts struct {
	Dir     string // of the TSDB
	Bucket  Bucket
	Labels  func() labels.Labels // the external ones; asked in each pass, and empty as long as they aren't known
	Source  string               // who sends the blocks, for their meta.json
	Log     *slog.Logger
	Metrics prometheus.Registerer

	// Notes, where not nil, sends what is kept beside a block of level 1. It is
	// called when all of the block but its meta.json is in the bucket. An error
	// fails the upload, which is tried again; the third one ships the block without.
	Notes func(ctx context.Context, m *Meta) error
}

// NewShipper wires a Shipper and starts nothing; call Prepare before Prometheus
// compacts anything, then Run.
func NewShipper(cfg ShipperConfig, parts ShipperParts) *Shipper {
	return &Shipper{
		cfg: cfg, dir: parts.Dir, bkt: parts.Bucket, labels: parts.Labels, source: parts.Source, log: parts.Log, notes: parts.Notes,
		metrics:    newShipMetrics(parts.Metrics),
		now:        time.Now,
		rand:       randv2.Float64,
		quarantine: map[ulid.ULID]setAside{}, noteTries: map[ulid.ULID]int{},
	}
}

// SetClock replaces time.Now, for tests. Call it before anything else.
func (s *Shipper) SetClock(now func() time.Time) { s.now = now }

// SetFault sets the hook at the steps of an upload, for tests. Call it before anything else.
func (s *Shipper) SetFault(fault func(step string) error) { s.fault = fault }

// StateFile is the path of the file that Prometheus' delay-compact flag should name.
func (s *Shipper) StateFile() string { return filepath.Join(s.dir, s.cfg.MetaFileName) }

// Prepare reads the state files and, where the list of shipped blocks is missing
// or torn, writes an empty one: without it Prometheus compacts at once. Sync
// calls it too; whoever has other work to do first calls it before that.
func (s *Shipper) Prepare() error {
	if s.state != nil {
		return nil
	}
	state, err := readState(s.dir, s.cfg.MetaFileName, newOwner)
	if err != nil {
		return err
	}
	if state.own.Rebuild {
		s.log.Info("list of shipped blocks is rebuilt from the bucket", "file", s.StateFile())
	}
	if err := os.RemoveAll(uploadDir(s.dir)); err != nil {
		return fmt.Errorf("remove what an earlier upload left: %w", err)
	}
	s.state = state
	s.leases = &shipLeases{bkt: s.bkt, owner: state.own.Owner, ttl: time.Duration(s.cfg.LeaseTTL), now: s.now, byName: map[string]*Lease{}}
	return nil
}

// newOwner makes up a name for a data folder's owner that an operator can find.
func newOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
			return r
		}
		return '-'
	}, host)
	return clean + "-" + strings.ToLower(rand.Text()[:10])
}

// Run ships until ctx is done and then returns nil, having given up its leases.
// A pass that fails is logged and tried again, later each time.
func (s *Shipper) Run(ctx context.Context) error {
	failures := 0
	for {
		_, err := s.Sync(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			failures++
			s.log.Warn("shipping blocks failed; it is tried again", "err", err, "pending", s.Status().Pending)
		} else {
			failures = 0
		}
		timer := time.NewTimer(backoff(failures, time.Duration(s.cfg.Interval), time.Duration(s.cfg.MaxBackoff), s.rand()))
		select {
		case <-ctx.Done():
		case <-timer.C:
			continue
		}
		timer.Stop()
		break
	}
	return s.close(ctx)
}

// releaseTimeout bounds what Run does after its context has ended.
const releaseTimeout = 5 * time.Second

func (s *Shipper) close(ctx context.Context) error {
	if s.leases == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := s.leases.release(ctx); err != nil {
		s.log.Warn("lease is not given up; another shipper has to wait until it lapses", "err", err)
	}
	return nil
}

// backoff is the wait before the next pass: interval after a good one, then
// doubling to most, the last quarter of it by chance (r in [0, 1)), so that many
// shippers don't come back all at once.
func backoff(failures int, interval, most time.Duration, r float64) time.Duration {
	wait := interval
	for range failures - 1 {
		if wait *= 2; wait >= most {
			break
		}
	}
	wait = min(wait, max(most, interval))
	return wait*3/4 + time.Duration(r*float64(wait)/4)
}

// Status tells how shipping goes.
func (s *Shipper) Status() ShipperStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.mu.status
	st.Quarantined = maps.Clone(st.Quarantined)
	return st
}

// Held tells why nothing is shipped, naming who is in the way; nil while
// shipping goes on. A bucket that fails is no reason: blocks wait on disk.
func (s *Shipper) Held() error {
	st := s.Status()
	switch {
	case st.HeldBy != nil:
		return fmt.Errorf("another shipper has the same external labels; blocks stay local: give each Prometheus its own external_labels, or stop the other (--shipper.ignore-other-owner overrides): %w", st.HeldBy)
	case errors.Is(st.Err, ErrNoExternalLabels):
		return st.Err
	}
	return nil
}

// Sync makes one pass: looks for blocks, and ships what is missing from the
// bucket. It returns how many blocks it sent. A block that fails is in the error
// and does not stop the others; a corrupt one is set aside and is not (see
// ShipperStatus.Quarantined).
func (s *Shipper) Sync(ctx context.Context) (int, error) {
	p := pass{Shipper: s}
	err := p.run(ctx)
	s.report(&p, err)
	return p.uploaded, err
}

// report publishes what a pass came to.
func (s *Shipper) report(p *pass, err error) {
	st := ShipperStatus{Err: err, Unleased: s.warned, Pending: p.pending, Quarantined: map[ulid.ULID]error{}}
	for id, q := range s.quarantine {
		st.Quarantined[id] = q.err
	}
	errors.As(err, &st.HeldBy)
	s.mu.Lock()
	st.LastSuccess = s.mu.status.LastSuccess
	if err == nil {
		st.LastSuccess = s.now()
		s.metrics.success.Set(float64(st.LastSuccess.Unix()))
	}
	s.mu.status = st
	s.mu.Unlock()
	s.metrics.pending.Set(float64(st.Pending))
	s.metrics.quarantined.Set(float64(len(st.Quarantined)))
	s.metrics.held.Set(oneIf(st.HeldBy != nil))
	s.metrics.unleased.Set(oneIf(st.Unleased))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
