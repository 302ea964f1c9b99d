// Package forward sends selected series on to other receivers of remote write,
// such as a hosted platform, beside keeping them here.
//
// What a rule selects is written to the queue of its endpoint on disk before
// the request is answered, and sent from there, in order within a series. A
// slow or dead endpoint fills its queue, up to the queue's limit; then the oldest
// goes, and is counted. It never holds up who writes to us.
package forward

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// Config is what an operator may set.
type Config struct {
	Rules     string         // YAML content
	RulesFile string         // or its file
	Interval  model.Duration // between looks at the file
}

// RegisterFlags sets the defaults and registers the flags.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Interval = model.Duration(30 * time.Second)
	fs.StringVar(&c.Rules, "ingest.forward-config", "", "YAML that says which series are also sent on by remote write, and where to; empty: none.")
	fs.StringVar(&c.RulesFile, "ingest.forward-config-file", "", "File with the YAML of --ingest.forward-config. Changes are picked up.")
	fs.Var(&c.Interval, "ingest.forward-config-interval", "Time between two looks at --ingest.forward-config-file.")
}

// Validate lists everything that is wrong.
func (c *Config) Validate() error {
	_, err := c.load()
	if c.Interval <= 0 {
		err = errors.Join(err, errors.New("--ingest.forward-config-interval: must be greater than 0"))
	}
	return err
}

func (c *Config) load() (*Rules, error) {
	b, source, err := content.Of("ingest.forward-config", c.Rules, c.RulesFile)
	if err != nil {
		return nil, err
	}
	return ParseRules(b, source)
}

type metrics struct {
	samples, failed, dropped *prometheus.CounterVec
	requests                 *prometheus.HistogramVec
	queueBytes, behind       *prometheus.GaugeVec
	errors                   *prometheus.CounterVec
	reloaded                 prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	by := []string{"endpoint"}
	return &metrics{
		samples: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_forward_samples_total",
			Help: "Samples that an endpoint has taken."}, by),
		failed: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_forward_refused_samples_total",
			Help: "Samples that an endpoint has refused for good."}, by),
		dropped: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_forward_dropped_samples_total",
			Help: "Samples that were never sent, because the queue was full or could not be written."}, by),
		requests: f.NewHistogramVec(prometheus.HistogramOpts{Name: "firnline_ingest_forward_request_duration_seconds",
			Help: "Time of a request to an endpoint.", Buckets: prometheus.DefBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}, by),
		queueBytes: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_forward_queue_bytes",
			Help: "Size of an endpoint's queue on disk."}, by),
		behind: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_forward_sent_timestamp_seconds",
			Help: "When an endpoint last took a request."}, by),
		errors: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_forward_retries_total",
			Help: "Requests to an endpoint that failed and are tried again."}, by),
		reloaded: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_forward_config_last_reload_successful",
			Help: "Whether the rules in force are those of the file."}),
	}
}

// Forwarder sends series on. Safe for concurrent use.
type Forwarder struct {
	cfg     Config
	dir     string
	log     *slog.Logger
	metrics *metrics

	reloads sync.Mutex        // one at a time
	lock    fileutil.Releaser // of dir, held from the first look at queues to the end; nil: there are none
	mu      struct {
		sync.RWMutex
		content   []byte // of the rules in force
		endpoints []*endpoint
		running   func(*endpoint) // starts one; set while Run runs
	}
}

// New reads the rules and opens the queues below dir; call Run to send.
func New(cfg Config, dir string, log *slog.Logger, reg prometheus.Registerer) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, dir: dir, log: log, metrics: newMetrics(reg)}
	if err := f.Reload(); err != nil {
		return nil, errors.Join(err, f.closeAll())
	}
	return f, nil
}

// Offer queues what the rules select of a part of a request. What can't be
// queued is counted and logged: it is never the sender's business.
func (f *Forwarder) Offer(w *batch.Write) {
	f.mu.RLock()
	defer f.mu.RUnlock() // so that no queue is closed meanwhile
	for _, e := range f.mu.endpoints {
		if e.rules.wants(w.Tenant) {
			e.offer(w)
		}
	}
}

// Reload puts the rules of the file in force. On an error the old ones stay.
func (f *Forwarder) Reload() error {
	f.reloads.Lock()
	defer f.reloads.Unlock()
	err := f.reload()
	f.metrics.reloaded.Set(map[bool]float64{true: 1}[err == nil])
	return err
}

func (f *Forwarder) reload() error {
	text, source, err := content.Of("ingest.forward-config", f.cfg.Rules, f.cfg.RulesFile)
	if err != nil {
		return err
	}
	rules, err := ParseRules(text, source)
	if err != nil {
		return err
	}
	f.mu.RLock()
	old, same := f.mu.endpoints, f.mu.content != nil && bytes.Equal(text, f.mu.content)
	f.mu.RUnlock()
	if same {
		return nil
	}
	if err := f.take(len(rules.Endpoints) > 0); err != nil {
		return err
	}
	// Two of one name would share a folder, so the old ones go first: what is in
	// their queues stays on disk.
	f.set(nil, nil)
	for _, e := range old {
		if err := e.stop(); err != nil {
			f.log.Warn("close the queue of an endpoint", "endpoint", e.rules.Name, "err", err)
		}
	}
	var started []*endpoint
	for _, r := range rules.Endpoints {
		e, err := openEndpoint(r, filepath.Join(f.dir, r.Name), f.log, f.metrics)
		if err != nil {
			f.set(started, nil)
			return err
		}
		started = append(started, e)
	}
	f.set(started, append([]byte{}, text...))
	return f.forget(rules)
}

// take makes the queues this process' own, before one is opened or removed. If
// no queue is wanted and none is there, nothing is.
func (f *Forwarder) take(wanted bool) error {
	if _, err := os.Stat(f.dir); f.lock != nil || !wanted && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("folder of queues: %w", err)
	}
	lock, _, err := fileutil.Flock(filepath.Join(f.dir, "lock"))
	if err != nil {
		return fmt.Errorf("--tsdb.path: %s is in use by another process: give each its own: %w", f.dir, err)
	}
	f.lock = lock
	return nil
}

// set puts endpoints in force and starts them if Run runs.
func (f *Forwarder) set(endpoints []*endpoint, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.endpoints, f.mu.content = endpoints, content
	if f.mu.running != nil {
		for _, e := range endpoints {
			f.mu.running(e)
		}
	}
}

// forget removes the queues of endpoints that no rule names any more.
func (f *Forwarder) forget(rules *Rules) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for old queues: %w", err)
	}
	named := map[string]bool{}
	for _, e := range rules.Endpoints {
		named[e.Name] = true
	}
	var errs []error
	for _, entry := range entries {
		if entry.IsDir() && !named[entry.Name()] {
			f.log.Warn("remove the queue of an endpoint that is not configured any more", "endpoint", entry.Name())
			errs = append(errs, os.RemoveAll(filepath.Join(f.dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// Run sends until ctx is done, and looks for changed rules.
func (f *Forwarder) Run(ctx context.Context) error {
	var g errgroup.Group
	f.mu.Lock()
	f.mu.running = func(e *endpoint) { g.Go(func() error { e.run(ctx); return nil }) }
	for _, e := range f.mu.endpoints {
		f.mu.running(e)
	}
	f.mu.Unlock()
	tick := time.NewTicker(time.Duration(f.cfg.Interval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			f.mu.Lock()
			f.mu.running = nil
			f.mu.Unlock()
			return errors.Join(g.Wait(), f.closeAll())
		case <-tick.C:
		}
		if f.cfg.RulesFile == "" {
			continue
		}
		if err := f.Reload(); err != nil {
			f.log.Error("the forwarding rules can't be used; those before stay in force", "err", err)
		}
	}
}

func (f *Forwarder) closeAll() error {
	f.mu.Lock()
	endpoints := f.mu.endpoints
	f.mu.endpoints = nil
	f.mu.Unlock()
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.stop())
	}
	f.reloads.Lock()
	defer f.reloads.Unlock()
	if f.lock != nil {
		errs = append(errs, f.lock.Release())
		f.lock = nil
	}
	return errors.Join(errs...)
}

// Status is how forwarding to an endpoint stands.
type Status struct {
	Endpoint   string    `json:"endpoint"`
	URL        string    `json:"url"`
	QueueBytes int64     `json:"queue_bytes"`
	LastSent   time.Time `json:"last_sent"`
	LastError  string    `json:"last_error,omitempty"`
}

// Status lists the endpoints in the order of their rules.
func (f *Forwarder) Status() []Status {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := []Status{}
	for _, e := range f.mu.endpoints {
		out = append(out, e.status())
	}
	return out
}
