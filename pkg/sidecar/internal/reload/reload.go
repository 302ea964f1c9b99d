// Package reload keeps the configuration of a Prometheus current: it watches the
// configuration file and the rule folders, replaces environment variables, and
// tells Prometheus to read again.
//
// What can't be right (a variable that isn't set, a file half written) is never
// passed on: the configuration in force stays. Run is called once; nothing else
// is safe for concurrent use.
package reload

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/content"
)

// Prometheus is what is told to reload.
type Prometheus interface {
	// Reload makes it read its configuration and returns what is wrong with that.
	Reload(ctx context.Context) error
	// LastReload tells when it last read its configuration with success, to the
	// second, and whether the latest reading was one.
	LastReload(ctx context.Context) (at time.Time, ok bool, err error)
}

// Reloader watches files and reloads a Prometheus.
type Reloader struct {
	cfg     Config
	prom    Prometheus
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	applied uint64 // hash of the content that Prometheus has taken
	seen    uint64 // fingerprint at the latest reading
	pending bool   // Prometheus, or the output, may have something else than applied
}

// New makes a Reloader and starts nothing; call Run.
func New(cfg Config, prom Prometheus, log *slog.Logger, reg prometheus.Registerer) *Reloader {
	return &Reloader{cfg: cfg, prom: prom, log: log, metrics: newMetrics(reg), now: time.Now, pending: true}
}

// Run watches until ctx is done and then returns nil. Without anything to watch
// it only waits. A reload that fails is logged, counted and tried again.
func (r *Reloader) Run(ctx context.Context) error {
	if !r.cfg.watches() {
		<-ctx.Done()
		return nil
	}
	var readAt time.Time
	for {
		wait := time.Duration(r.cfg.PollInterval)
		look := r.cfg.look()
		if look != r.seen || !r.now().Before(readAt.Add(time.Duration(r.cfg.WatchInterval))) {
			if err := r.apply(ctx); err != nil {
				if ctx.Err() == nil {
					r.log.Error("reloading Prometheus' configuration failed; the old one stays in force", "err", err)
					r.metrics.success.Set(0)
				}
				wait = time.Duration(r.cfg.RetryInterval)
			} else {
				r.seen, readAt = look, r.now()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// apply reads everything and, where it differs from what Prometheus has, writes
// the output and reloads.
func (r *Reloader) apply(ctx context.Context) error {
	text, sum, err := r.read()
	if err != nil {
		return err
	}
	if !r.pending && sum == r.applied {
		r.metrics.success.Set(1)
		return nil
	}
	r.pending = true
	if r.cfg.OutputFile != "" {
		if err := block.WriteFile(r.cfg.OutputFile, []byte(text)); err != nil {
			return fmt.Errorf("configuration with its variables replaced: %w", err)
		}
	}
	r.metrics.reloads.Inc()
	if err := r.trigger(ctx); err != nil {
		r.metrics.failures.Inc()
		return err
	}
	r.applied, r.pending = sum, false
	r.metrics.success.Set(1)
	r.metrics.successTime.Set(float64(r.now().UnixMilli()) / 1000)
	r.metrics.hash.Set(float64(sum >> 16)) // 48 bits, which a float holds exactly
	r.log.Info("Prometheus has reloaded its configuration", "file", r.cfg.ConfigFile, "rules", []string(r.cfg.RuleDirs))
	return nil
}

// read returns the configuration, variables replaced, and a hash of all that is watched.
func (r *Reloader) read() (text string, sum uint64, err error) {
	h := xxhash.New()
	if r.cfg.ConfigFile != "" {
		if text, err = readConfig(r.cfg.ConfigFile); err != nil {
			return "", 0, err
		}
		if r.cfg.OutputFile != "" {
			if text, err = content.Expand(text, os.LookupEnv); err != nil {
				return "", 0, fmt.Errorf("configuration %s: %w", r.cfg.ConfigFile, err)
			}
		}
		if err := checkConfig(r.cfg.ConfigFile, text); err != nil {
			return "", 0, err
		}
		_, _ = h.WriteString(text) // a hash takes everything
	}
	if err := r.cfg.hashRules(h); err != nil {
		return "", 0, err
	}
	return text, h.Sum64(), nil
}

// trigger makes Prometheus reload and waits until it has, for at most a watch interval.
func (r *Reloader) trigger(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.cfg.WatchInterval))
	defer cancel()
	if r.cfg.Method == MethodHTTP {
		return r.prom.Reload(ctx)
	}
	// The time Prometheus tells is cut to seconds.
	before := r.now().Truncate(time.Second)
	if err := signalProcess("/proc", r.cfg.ProcessName); err != nil {
		return err
	}
	return r.await(ctx, before)
}

// await polls until Prometheus says how the reload it was signalled went.
func (r *Reloader) await(ctx context.Context, since time.Time) error {
	const pause = 200 * time.Millisecond
	for {
		at, ok, err := r.prom.LastReload(ctx)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("prometheus refuses the configuration; its log says why")
		case !at.Before(since):
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("prometheus has not reloaded since the signal: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

type metrics struct {
	success, successTime, hash prometheus.Gauge
	reloads, failures          prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		success: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_sidecar_config_last_reload_successful",
			Help: "Whether the latest attempt to reload Prometheus' configuration succeeded."}),
		successTime: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_sidecar_config_last_reload_success_timestamp_seconds",
			Help: "When Prometheus' configuration was last reloaded with success."}),
		hash: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_sidecar_config_hash",
			Help: "Hash of the configuration and rules that Prometheus has taken."}),
		reloads: f.NewCounter(prometheus.CounterOpts{Name: "firnline_sidecar_config_reloads_total",
			Help: "Attempts to reload Prometheus' configuration."}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "firnline_sidecar_config_reload_failures_total",
			Help: "Attempts to reload Prometheus' configuration that it refused or that did not reach it."}),
	}
}
