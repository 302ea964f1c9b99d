// Package endpoint knows the endpoints that a querier asks: where they are
// found (flags, DNS, files, URLs), whether they are well, and what they hold.
//
// A Set finds, connects and checks them until its Run ends; its Peers are what
// fan-out chooses from. An endpoint that does not answer stays among them as
// one that is down, so that queries can tell of the hole it leaves.
// All exported methods are safe for concurrent use.
package endpoint

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Set is the set of endpoints.
type Set struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	dialer  dialer
	locals  []*local

	// Used by Run's goroutine alone.
	resolver *resolver
	files    *fileSD
	urls     *httpSD
	failing  map[string]string // what was last logged of a failing source, so that it is logged once

	mu struct {
		sync.RWMutex
		sd      []spec // of --endpoint.sd-config
		sdRead  time.Time
		sdOK    bool               // the last reading succeeded
		sdOKAt  time.Time          // when one last did
		members map[string]*member // by name
		ready   bool               // each member was checked once
	}
}

// New reads the configuration of endpoints and starts nothing; call Run.
// Options of dial are added to those of each connection (tracing, for one).
// Those of locals are endpoints in this process, beside the configured ones.
func New(cfg Config, locals []Local, log *slog.Logger, reg prometheus.Registerer, dial ...grpc.DialOption) (*Set, error) {
	s := &Set{
		cfg: cfg, log: log, metrics: newMetrics(reg), now: time.Now,
		dialer:   dialer{retry: time.Duration(cfg.InfoInterval), timeout: 2 * time.Duration(cfg.InfoTimeout), extra: dial, metrics: storeapi.NewClientMetrics(reg)},
		resolver: newResolver(cfg), failing: map[string]string{},
		urls:  &httpSD{urls: cfg.URLs, interval: time.Duration(cfg.URLsInterval), timeout: httpSDTimeout, client: cfg.Client},
		files: &fileSD{patterns: cfg.Files, interval: time.Duration(cfg.FilesInterval), client: cfg.Client},
	}
	s.mu.members = map[string]*member{}
	for _, l := range locals {
		s.locals = append(s.locals, newLocal(l, func() time.Time { return s.now() }))
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	if reg != nil {
		if err := reg.Register(newConnections(s, cfg.ConnMetricKey)); err != nil {
			return nil, fmt.Errorf("register metrics of endpoints: %w", err)
		}
	}
	return s, nil
}

// Reload reads --endpoint.sd-config-file. A bad one changes nothing; the error
// names the file and, where the content is wrong, the line.
func (s *Set) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sdRead = s.now()
	specs, err := s.cfg.loadSD()
	s.mu.sdOK = err == nil
	if err != nil {
		s.metrics.reloadOK.Set(0)
		return err
	}
	s.mu.sd, s.mu.sdOKAt = specs, s.mu.sdRead
	s.metrics.reloadOK.Set(1)
	s.metrics.reloadTime.Set(float64(s.now().Unix()))
	return nil
}

// LastReload tells whether the last reading of the endpoint configuration
// succeeded, and when one last did.
func (s *Set) LastReload() (ok bool, at time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.sdOK, s.mu.sdOKAt
}

// Run finds and checks endpoints until ctx is done, then closes all connections
// and returns nil.
func (s *Set) Run(ctx context.Context) error {
	defer s.reconcile(nil)
	tick := time.NewTicker(time.Duration(s.cfg.InfoInterval))
	defer tick.Stop()
	for {
		s.reconcile(s.discover(ctx))
		s.check(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ready returns nil once each endpoint known at the start was checked.
func (s *Set) Ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.mu.ready {
		return fmt.Errorf("first health check of endpoints is under way")
	}
	return nil
}

// discover returns the targets of all sources. What a source can't tell now
// stays as it was.
func (s *Set) discover(ctx context.Context) []target {
	now := s.now()
	s.mu.RLock()
	due := s.cfg.SDConfigFile != "" && now.Sub(s.mu.sdRead) >= time.Duration(s.cfg.SDReloadInterval)
	s.mu.RUnlock()
	if due {
		s.note("endpoint configuration", s.Reload())
	}
	if err := s.files.refresh(now); s.note("endpoint files", err) {
		s.metrics.fileFailures.Inc()
	}
	if err := s.urls.refresh(ctx, now); s.note("endpoint URLs", err) {
		s.metrics.urlFailures.Inc()
	}
	s.mu.RLock()
	specs := slices.Concat(s.cfg.flagSpecs(), s.mu.sd, s.files.specs(), s.urls.specs())
	s.mu.RUnlock()
	if err := s.resolver.refresh(ctx, specs, now); s.note("endpoint names", err) {
		s.metrics.lookupFailures.Inc()
	}
	targets, duplicates := plan(specs, s.resolver.lookups())
	s.metrics.duplicates.Set(float64(len(duplicates)))
	var err error
	if len(duplicates) > 0 {
		err = fmt.Errorf("configured more than once, asked once: %v", duplicates)
	}
	s.note("duplicate endpoints", err)
	return targets
}

// note logs a failure of a source when it begins, changes and ends, and tells whether there is one.
func (s *Set) note(source string, err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if s.failing[source] == text {
		return err != nil
	}
	s.failing[source] = text
	if err != nil {
		s.log.Warn("endpoint discovery", "source", source, "err", err)
	} else {
		s.log.Info("endpoint discovery is well again", "source", source)
	}
	return err != nil
}

// reconcile makes the members those of targets: connects new ones, closes those
// that are gone or are to be spoken to differently.
func (s *Set) reconcile(targets []target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*member, len(targets))
	for _, t := range targets {
		m, ok := s.mu.members[t.name]
		if ok && m.fits(t) {
			delete(s.mu.members, t.name)
			m.become(t)
		} else {
			fresh := newMember(t, s.dialer)
			if ok {
				fresh.health = m.health // spoken to differently, but the same endpoint
			} else {
				s.log.Info("endpoint added", "endpoint", t.name)
			}
			m = fresh
		}
		next[t.name] = m
	}
	for name, m := range s.mu.members {
		if err := m.close(); err != nil {
			s.log.Warn("closing connection", "endpoint", name, "err", err)
		}
		if next[name] == nil {
			s.log.Info("endpoint removed", "endpoint", name)
		}
	}
	s.mu.members = next
}

// check asks all endpoints at once how they are, and waits for the answers.
func (s *Set) check(ctx context.Context) {
	s.mu.RLock()
	members := slices.Collect(maps.Values(s.mu.members))
	s.mu.RUnlock()
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			info, err := m.ask(ctx, time.Duration(s.cfg.InfoTimeout))
			if ctx.Err() == nil {
				s.record(m, info, err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.mu.ready = true
	s.mu.Unlock()
	s.count()
}

// record notes the result of a check.
func (s *Set) record(m *member, info storeapi.Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := m.health
	m.health = before.after(s.now(), info, err)
	switch {
	case err != nil:
		s.metrics.checkFailures.Inc()
		if before.err == nil || before.err.Error() != err.Error() {
			s.log.Warn("endpoint is down", "endpoint", m.target.name, "err", err)
		}
	case before.err != nil || before.checked.IsZero():
		s.log.Info("endpoint is well", "endpoint", m.target.name, "type", info.Component)
	}
}

// count sets the metric of endpoints by state.
func (s *Set) count() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counts := map[string]float64{"healthy": 0, "unhealthy": 0, "stale": 0}
	now := s.now()
	for _, m := range s.mu.members {
		switch {
		case m.health.err == nil:
			counts["healthy"]++
		case m.health.stale(m.target, now, time.Duration(s.cfg.UnhealthyTimeout)):
			counts["stale"]++
		default:
			counts["unhealthy"]++
		}
	}
	for _, l := range s.locals {
		if l.look().err == nil {
			counts["healthy"]++
		} else {
			counts["unhealthy"]++
		}
	}
	for state, n := range counts {
		s.metrics.endpoints.WithLabelValues(state).Set(n)
	}
}
