// Package sidecar stands beside one Prometheus: it answers storeapi from it,
// ships its blocks to the bucket, and keeps its configuration current.
//
// It keeps nothing that a restart would lose: what was shipped stands in the
// state file in the TSDB's folder and in the bucket. The three jobs don't
// depend on each other. While Prometheus is down blocks are shipped; whatever is
// wrong with the bucket, Prometheus is served from.
//
// All of Sidecar is safe for concurrent use but Run, which is called once.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/sidecar/internal/reload"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Sidecar serves and ships one Prometheus.
type Sidecar struct {
	cfg      Config
	prom     *promapi.Client
	watcher  *watcher
	reloader *reload.Reloader
	shipping *shipping   // nil: nothing is shipped
	notes    *noteKeeper // nil: as shipping
	store    *liveStore
	extras   *extras
}

// New wires a Sidecar and starts nothing; call Run. Without a bucket (nil)
// nothing is shipped. cfg must be valid.
func New(cfg Config, bkt block.Bucket, log *slog.Logger, reg prometheus.Registerer) (*Sidecar, error) {
	prom, err := newClient(cfg.Prometheus)
	if err != nil {
		return nil, err
	}
	if cfg.TSDBPath, err = filepath.Abs(cfg.TSDBPath); err != nil {
		return nil, fmt.Errorf("--tsdb.path: %w", err)
	}
	m := newMetrics(reg)
	w := &watcher{prom: prom, cfg: cfg.Prometheus, log: log, metrics: m, now: time.Now, poke: make(chan struct{}, 1), known: make(chan struct{})}
	w.mu.err = errNotAsked
	s := &Sidecar{
		cfg:      cfg,
		prom:     prom,
		watcher:  w,
		reloader: reload.New(cfg.Reloader, reloadable{prom}, log, reg),
		store:    newLiveStore(cfg, prom, w, m),
		extras:   &extras{prom: prom, state: w.current},
	}
	if bkt != nil {
		s.notes = newNoteKeeper(cfg, prom, bkt, log).register(m, reg)
		parts := block.ShipperParts{Dir: cfg.TSDBPath, Bucket: bkt, Labels: w.labels, Source: block.SourceSidecar, Log: log, Metrics: reg}
		if !s.notes.off() {
			parts.Notes = s.notes.send
		}
		shipper := block.NewShipper(cfg.Shipper, parts)
		w.source = &source{dir: cfg.TSDBPath, stateFile: shipper.StateFile(), ignoreSize: cfg.Shipper.IgnoreUnequalBlockSize}
		s.shipping = &shipping{shipper: shipper, known: w.known, dir: cfg.TSDBPath, log: log, metrics: m, retry: prepareRetry}
	}
	return s, nil
}

// prepareRetry is the pause between attempts to write the state file.
const prepareRetry = 5 * time.Second

func newClient(cfg PrometheusConfig) (*promapi.Client, error) {
	base, err := cfg.url()
	if err != nil {
		return nil, err
	}
	clientCfg, err := cfg.clientConfig()
	if err != nil {
		return nil, err
	}
	client, err := commonconfig.NewClientFromConfig(clientCfg, "prometheus")
	if err != nil {
		return nil, fmt.Errorf("--prometheus.http-client: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return promapi.New(base, client, promapi.Limits{
		ResponseBytes: int64(cfg.MaxResponseBytes), FrameBytes: int64(cfg.MaxFrameBytes),
	}), nil
}

func newLiveStore(cfg Config, prom *promapi.Client, w *watcher, m *metrics) *liveStore {
	return &liveStore{
		prom:    prom,
		state:   w.current,
		suspect: w.suspect,
		names: &innerNames{
			ask: func(ctx context.Context) ([]string, error) {
				names, _, err := prom.LabelNames(ctx, promapi.AllTime())
				return names, err
			},
			ttl: time.Duration(cfg.Prometheus.LabelsTTL), now: time.Now,
		},
		slots:   make(chan struct{}, cfg.Prometheus.MaxReads),
		limits:  cfg.Limits,
		idle:    time.Duration(cfg.Prometheus.ReadIdleTimeout),
		minTime: cfg.MinTime,
		metrics: m,
		now:     time.Now,
	}
}

// Run watches Prometheus, ships and reloads until ctx is done, and then returns
// nil. Before anything else it writes the state file, without which Prometheus
// compacts what has not been shipped yet. No goroutine of Run's outlives it.
func (s *Sidecar) Run(ctx context.Context) error {
	defer s.prom.CloseIdleConnections()
	if s.shipping != nil {
		s.shipping.prepare()
	}
	var g errgroup.Group // without a shared context: no job ends the others
	g.Go(func() error { s.watcher.run(ctx); return nil })
	g.Go(func() error { return s.reloader.Run(ctx) })
	if s.shipping != nil {
		g.Go(func() error { s.shipping.run(ctx); return nil })
		g.Go(func() error { s.notes.run(ctx); return nil })
	}
	return g.Wait()
}

// Services returns what the sidecar answers. They fail with ErrUnavailable until
// Prometheus has told its external labels.
func (s *Sidecar) Services() storeapi.Services {
	return storeapi.Services{
		Store: s.store, Rules: s.extras, Targets: s.extras, Metadata: s.extras, Exemplars: s.extras, Status: s.extras,
	}
}

// Checks returns what readiness depends on, by name; each tells what it waits
// for, or nil.
func (s *Sidecar) Checks() map[string]func() error {
	checks := map[string]func() error{
		"prometheus": func() error { _, err := s.watcher.current(); return err },
	}
	if s.shipping != nil {
		checks["shipper"] = s.shipping.check
	}
	return checks
}

// Ready returns nil when all Checks pass, and else everything that is waited for.
func (s *Sidecar) Ready() error {
	var errs []error
	for name, check := range s.Checks() {
		if err := check(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// reloadable makes a Prometheus one that reload can use.
type reloadable struct{ *promapi.Client }

// LastReload tells when Prometheus last read its configuration with success, and whether the latest reading was one.
func (r reloadable) LastReload(ctx context.Context) (time.Time, bool, error) {
	rt, err := r.Runtime(ctx)
	return rt.LastConfigTime, rt.ReloadConfigSuccess, err
}
