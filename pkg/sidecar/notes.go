package sidecar

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
)

// NotesConfig says how exemplars and metadata get from Prometheus to the bucket.
type NotesConfig struct {
	MetadataInterval  model.Duration // 0: metadata is not kept
	ExemplarsInterval model.Duration // 0: exemplars are not kept
	Log               notes.Config
}

func (c *NotesConfig) registerFlags(fs *flag.FlagSet) {
	c.MetadataInterval, c.ExemplarsInterval = model.Duration(5*time.Minute), model.Duration(time.Minute)
	fs.Var(&c.MetadataInterval, "notes.metadata-interval", "How often Prometheus is asked for types, helps and units of metrics, to be kept with blocks: it forgets those of targets that are gone. 0: they are not kept.")
	fs.Var(&c.ExemplarsInterval, "notes.exemplars-interval", "How often Prometheus is asked for exemplars, to be kept with blocks: it keeps a fixed number of them in memory. 0: they are not kept.")
	c.Log.RegisterFlags("", fs)
}

// validate names each flag that can't be right.
func (c *NotesConfig) validate() error {
	errs := []error{c.Log.Validate("")}
	for name, v := range map[string]model.Duration{"notes.metadata-interval": c.MetadataInterval, "notes.exemplars-interval": c.ExemplarsInterval} {
		if v != 0 && time.Duration(v) < time.Second {
			errs = append(errs, fmt.Errorf("--%s=%s: give 0 or at least 1s", name, v))
		}
	}
	return errors.Join(errs...)
}

// notesDirname is where they wait, in the TSDB's folder, which Prometheus passes by.
const notesDirname = "firnline.notes"

// exemplarOverlap is how much of the time that was asked for is asked for again:
// an exemplar's own time may lie before that of the scrape that brings it.
const exemplarOverlap = 5 * time.Minute

const (
	askTimeout = time.Minute      // of one answer of Prometheus
	askRetry   = 15 * time.Second // after one that failed, at most
)

// noteKeeper asks Prometheus for exemplars and metadata, keeps them on disk and
// gives each block its part when it is shipped. Whatever it fails at, blocks are shipped.
type noteKeeper struct {
	prom    *promapi.Client
	cfg     NotesConfig
	dir     string
	bkt     block.Bucket
	log     *slog.Logger
	metrics *metrics
	notes   *notes.Metrics
	now     func() time.Time

	mu struct {
		sync.Mutex            // held while Prometheus is asked, so that one at a time does
		log        *notes.Log // nil: not open yet
		nextMeta   time.Time  // when metadata is due; zero: never asked
		nextEx     time.Time
		noStorage  bool             // Prometheus keeps no exemplars
		newest     map[uint64]int64 // by series of the last answer, ms
		complained string
	}
}

func newNoteKeeper(cfg Config, prom *promapi.Client, bkt block.Bucket, log *slog.Logger) *noteKeeper {
	return &noteKeeper{prom: prom, cfg: cfg.Notes, dir: filepath.Join(cfg.TSDBPath, notesDirname), bkt: bkt, log: log, now: time.Now}
}

func (k *noteKeeper) register(m *metrics, reg prometheus.Registerer) *noteKeeper {
	k.metrics, k.notes = m, notes.NewMetrics(reg)
	return k
}

// off tells that nothing is to be kept.
func (k *noteKeeper) off() bool { return k.cfg.MetadataInterval == 0 && k.cfg.ExemplarsInterval == 0 }

// run asks until ctx is done.
func (k *noteKeeper) run(ctx context.Context) {
	if k.off() {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		k.keep(ctx)
		select {
		case <-ctx.Done():
			k.close()
			return
		case <-tick.C:
		}
	}
}

// keep asks for what is due. What fails is counted, logged once, and soon due again.
func (k *noteKeeper) keep(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if err := k.open(now); err != nil {
		k.complain(ctx, err)
		return
	}
	asked := !now.Before(k.mu.nextMeta) || !now.Before(k.mu.nextEx)
	meta := k.due(&k.mu.nextMeta, k.cfg.MetadataInterval, now, func() error {
		return errors.Join(k.askMetadata(ctx, now), k.mu.log.Forget(now))
	})
	ex := k.due(&k.mu.nextEx, k.cfg.ExemplarsInterval, now, func() error { return k.askExemplars(ctx, now) })
	if asked {
		k.complain(ctx, errors.Join(meta, ex))
	}
}

// due asks if it is time to, and sets when it is next.
func (k *noteKeeper) due(next *time.Time, interval model.Duration, now time.Time, ask func() error) error {
	if interval == 0 || now.Before(*next) {
		return nil
	}
	wait := time.Duration(interval)
	err := ask()
	if err != nil {
		wait = min(wait, askRetry)
	}
	*next = now.Add(wait)
	return err
}

// open opens the log, once there is a folder for it.
func (k *noteKeeper) open(now time.Time) error {
	if k.mu.log != nil {
		return nil
	}
	if err := checkFolder(filepath.Dir(k.dir)); err != nil {
		return err
	}
	l, err := notes.OpenLog(k.dir, k.cfg.Log, k.notes, now)
	if err != nil {
		return err
	}
	k.mu.log = l
	return nil
}

func (k *noteKeeper) complain(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		k.mu.complained = ""
		return
	}
	k.metrics.noteFailures.Inc()
	if text := err.Error(); text != k.mu.complained {
		k.mu.complained = text
		k.log.Warn("exemplars and metadata can't be kept for blocks; it is tried again", "err", err)
	}
}

// askMetadata takes over what targets say of their metrics.
func (k *noteKeeper) askMetadata(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	flags, err := k.prom.Flags(ctx)
	if err != nil {
		return err
	}
	k.mu.noStorage = flags.NoExemplars
	byMetric, _, err := k.prom.Metadata(ctx, "", -1)
	if err != nil {
		return err
	}
	var families []notes.Family
	for name, list := range byMetric {
		for _, m := range list {
			families = append(families, notes.Family{Name: name, Type: m.Type, Help: m.Help, Unit: m.Unit})
		}
	}
	return k.mu.log.Mention(families, now)
}

// askExemplars takes over those that have come since the last time.
func (k *noteKeeper) askExemplars(ctx context.Context, now time.Time) error {
	if k.mu.noStorage {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	since := now.Add(-time.Duration(k.cfg.Log.Keep)).UnixMilli()
	if latest, ok := k.mu.log.Latest(); ok {
		// One from the future must not hide what comes meanwhile.
		since = max(since, min(latest, now.UnixMilli())-exemplarOverlap.Milliseconds())
	}
	got, _, err := k.prom.Exemplars(ctx, `{__name__=~".+"}`, since, now.Add(exemplarOverlap).UnixMilli())
	if err != nil {
		return err
	}
	newest := make(map[uint64]int64, len(got))
	var fresh []notes.Series
	for _, s := range got {
		id := s.SeriesLabels.Hash()
		last, known := k.mu.newest[id]
		one := notes.Series{Labels: s.SeriesLabels}
		for _, e := range s.Exemplars {
			if !known || e.Ts > last {
				one.Exemplars = append(one.Exemplars, exemplar.Exemplar{Labels: e.Labels, Value: e.Value, Ts: e.Ts, HasTs: true})
			}
			newest[id] = max(newest[id], e.Ts)
		}
		if len(one.Exemplars) > 0 {
			fresh = append(fresh, one)
		}
	}
	if err := k.mu.log.Add(fresh); err != nil {
		return err // newest stays as it was: they are asked for again
	}
	k.mu.newest = newest
	return nil
}

// send sends the note on a block. Before Prometheus has been asked for the first
// time it is asked now: after a start there may be blocks to be shipped at once.
func (k *noteKeeper) send(ctx context.Context, m *block.Meta) error {
	k.mu.Lock()
	first := k.mu.nextMeta.IsZero() && k.mu.nextEx.IsZero()
	k.mu.Unlock()
	if first {
		k.keep(ctx)
	}
	k.mu.Lock()
	l := k.mu.log
	k.mu.Unlock()
	if l == nil {
		return nil // keep has said why
	}
	return notes.Upload(ctx, k.bkt, m.ULID, l.Cut(m.MinTime, m.MaxTime))
}

func (k *noteKeeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.log == nil {
		return
	}
	if err := k.mu.log.Close(); err != nil {
		k.log.Warn("exemplars kept for blocks", "err", err)
	}
}
