// Package forward sends selected series on to other receivers of remote write,
// such as a hosted platform, beside keeping them here.
//
// What a rule selects is written to the queue of its endpoint on disk before
// the request is answered, and sent from there, in order within a series. A
// slow or dead endpoint fills its queue, up to the queue's limit; then the oldest
// goes, and is counted. It never holds up who writes to us.
//
// Rules change while requests come: queues of endpoints that stay are kept open, and
// nothing is left out. The queue of an endpoint that is taken out of the rules is sent
// to its end and then removed. If the process ends before, it is kept, and reported at
// each start, since nobody knows any more where it should go.
package forward

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// rulesFlag is the flag of the rules, without its dashes.
const rulesFlag = "ingest.forward-config"

// Config is what an operator may set.
type Config struct {
	Rules     string         // YAML content
	RulesFile string         // or its file
	Interval  model.Duration // between looks at the file
	MaxTables flagext.Bytes  // of what an endpoint remembers of series
}

// RegisterFlags sets the defaults and registers the flags.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Interval = model.Duration(30 * time.Second)
	fs.StringVar(&c.Rules, "ingest.forward-config", "", "YAML that says which series are also sent on by remote write, and where to; empty: none.")
	fs.StringVar(&c.RulesFile, "ingest.forward-config-file", "", "File with the YAML of --ingest.forward-config. Changes are picked up.")
	fs.Var(&c.Interval, "ingest.forward-config-interval", "Time between two looks at --ingest.forward-config-file.")
	c.MaxTables = 256 << 20
	fs.Var(&c.MaxTables, "ingest.forward-max-table-bytes", "Memory of an endpoint of forwarding for what it knows of series, some 300 bytes for one that is sent and 40 for one that is not. Beyond that all of it is made anew.")
}

// Validate lists everything that is wrong.
func (c *Config) Validate() error {
	_, err := c.load()
	if c.Interval <= 0 {
		err = errors.Join(err, errors.New("--ingest.forward-config-interval: must be greater than 0"))
	}
	if c.MaxTables < 1<<20 {
		err = errors.Join(err, fmt.Errorf("--ingest.forward-max-table-bytes: want at least 1MiB, got %s", &c.MaxTables))
	}
	return err
}

func (c *Config) load() (*Rules, error) {
	b, source, err := content.Of(rulesFlag, c.Rules, c.RulesFile)
	if err != nil {
		return nil, err
	}
	return ParseRules(b, source)
}

type metrics struct {
	samples, failed, dropped *prometheus.CounterVec
	requests                 *prometheus.HistogramVec
	queueBytes, behind       *prometheus.GaugeVec
	tables                   *prometheus.GaugeVec
	errors                   *prometheus.CounterVec
	left                     prometheus.Gauge
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
		tables: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_forward_table_bytes",
			Help: "Memory of what is known of series that may be sent to an endpoint."}, by),
		left: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_forward_left_queues",
			Help: "Queues found at the start that belong to no endpoint of the rules. They are kept."}),
	}
}

// forget ends the gauges of an endpoint that is gone.
func (m *metrics) forget(name string) {
	for _, g := range []*prometheus.GaugeVec{m.queueBytes, m.behind, m.tables} {
		g.DeleteLabelValues(name)
	}
}

// Forwarder sends series on. Safe for concurrent use.
type Forwarder struct {
	cfg     Config
	dir     string
	log     *slog.Logger
	metrics *metrics

	watch   *content.Watch
	drained chan struct{} // has one element while there may be a drained endpoint

	changes sync.Mutex        // one at a time: reloads, the begin and end of sending
	lock    fileutil.Releaser // of dir, held from the first look at queues to the end; nil: there are none
	begin   func(*endpoint)   // starts sending; set while Run runs
	// mu is held for reading while something is offered. Who writes holds changes, too,
	// and who holds either may read.
	mu struct {
		sync.RWMutex
		endpoints []*endpoint // those of the rules in their order, then those that are drained
	}
}

// New reads the rules and opens the queues below dir; call Run to send.
func New(cfg Config, dir string, log *slog.Logger, reg prometheus.Registerer) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg, dir: dir, log: log, metrics: newMetrics(reg), drained: make(chan struct{}, 1)}
	var err error
	f.watch, err = content.NewWatch(content.Watched{
		Flag: rulesFlag, Text: cfg.Rules, File: cfg.RulesFile, Interval: time.Duration(cfg.Interval),
		What: "forwarding rules", Metrics: "ingest_forward", Use: f.use,
	}, log, reg)
	if err == nil {
		err = f.reportLeft()
	}
	if err != nil {
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
		if !e.draining && e.rules.wants(w.Tenant) {
			e.offer(w)
		}
	}
}

// Reload puts the rules of the file in force. On an error the old ones stay.
func (f *Forwarder) Reload() error { return f.watch.Reload() }

// use puts rules in force: first all that may fail, then all that can't.
func (f *Forwarder) use(text []byte, source string) error {
	rules, err := ParseRules(text, source)
	if err != nil {
		return err
	}
	f.changes.Lock()
	defer f.changes.Unlock()
	if err := f.take(len(rules.Endpoints) > 0); err != nil {
		return err
	}
	next, err := f.prepare(rules)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	f.force(next)
	return nil
}

// prepared is an endpoint of new rules with what had to be opened for it.
type prepared struct {
	rules Endpoint
	e     *endpoint
	isNew bool
	more  []*shard // of one that was there
}

func (p *prepared) close() error {
	if p.isNew {
		return p.e.stop()
	}
	return closeShards(p.more)
}

// same tells whether nothing changes for an endpoint.
func (p *prepared) same() bool { return !p.e.draining && p.e.rules.text == p.rules.text }

// prepare opens what the rules want and is not open. On an error nothing is.
func (f *Forwarder) prepare(rules *Rules) (next []prepared, err error) {
	defer func() {
		if err != nil {
			for i := range next {
				err = errors.Join(err, next[i].close())
			}
		}
	}()
	now := map[string]*endpoint{}
	for _, e := range f.mu.endpoints {
		now[e.rules.Name] = e
	}
	for _, r := range rules.Endpoints {
		p := prepared{rules: r, e: now[r.Name]}
		if p.isNew = p.e == nil; p.isNew {
			p.e, err = openEndpoint(r, filepath.Join(f.dir, r.Name), int64(f.cfg.MaxTables), f.log, f.metrics)
		} else {
			p.more, err = p.e.open(len(p.e.shards), r.Queue.Shards)
		}
		if err != nil {
			return next, err
		}
		next = append(next, p)
	}
	return next, nil
}

// force puts prepared endpoints in force and drains those that are not among them.
// What is offered meanwhile goes by the rules before or after, and into the same queues.
func (f *Forwarder) force(next []prepared) {
	named := map[*endpoint]bool{}
	var list, changed []*endpoint
	for i := range next {
		p := &next[i]
		named[p.e] = true
		list = append(list, p.e)
		if p.isNew || !p.same() {
			changed = append(changed, p.e)
		}
	}
	for _, e := range f.mu.endpoints {
		if named[e] {
			continue
		}
		list = append(list, e)
		if !e.draining {
			f.log.Warn("an endpoint is taken out of the rules; its queue is sent to the end and then removed", "endpoint", e.rules.Name, "bytes", e.queued())
			changed = append(changed, e)
		}
	}
	for _, e := range changed {
		e.pause()
	}
	f.mu.Lock()
	for i := range next {
		if p := &next[i]; !p.isNew && !p.same() {
			p.e.change(p.rules, p.more)
		}
	}
	for _, e := range list {
		e.draining = !named[e]
	}
	f.mu.endpoints = list
	f.mu.Unlock()
	for _, e := range changed {
		if f.begin != nil {
			f.begin(e)
		}
	}
}

// take makes the queues this process' own, before one is opened or removed. If
// no queue is wanted and none is there, nothing is.
func (f *Forwarder) take(wanted bool) error {
	if _, err := os.Stat(f.dir); f.lock != nil || !wanted && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := block.TakeFolder(f.dir, "lock")
	if err != nil {
		return fmt.Errorf("folder of queues %s, below --tsdb.path: %w", f.dir, err)
	}
	f.lock = lock
	return nil
}

// reportLeft tells of queues that no rule names.
func (f *Forwarder) reportLeft() error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for old queues: %w", err)
	}
	left := 0
	for _, entry := range entries {
		named := slices.ContainsFunc(f.mu.endpoints, func(e *endpoint) bool { return e.rules.Name == entry.Name() })
		if entry.IsDir() && !named {
			left++
			f.log.Warn("a queue belongs to no endpoint of the rules: name one like it to have it sent, or remove its folder while the process is stopped", "folder", filepath.Join(f.dir, entry.Name()))
		}
	}
	f.metrics.left.Set(float64(left))
	return nil
}

// Run sends until ctx is done, and follows changes of the rules.
func (f *Forwarder) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return f.watch.Run(ctx) })
	f.changes.Lock()
	f.begin = func(e *endpoint) {
		e.begin(ctx, &g, func() {
			select {
			case f.drained <- struct{}{}:
			default:
			}
		})
	}
	for _, e := range f.mu.endpoints {
		f.begin(e)
	}
	f.changes.Unlock()
	for {
		select {
		case <-ctx.Done():
			f.changes.Lock()
			f.begin = nil
			f.changes.Unlock()
			return errors.Join(g.Wait(), f.closeAll())
		case <-f.drained:
			f.removeDrained()
		}
	}
}

// removeDrained removes the queues of endpoints of which all is sent.
func (f *Forwarder) removeDrained() {
	f.changes.Lock()
	defer f.changes.Unlock()
	var gone []*endpoint
	f.mu.Lock()
	f.mu.endpoints = slices.DeleteFunc(slices.Clone(f.mu.endpoints), func(e *endpoint) bool {
		is := e.draining && e.drained.Load()
		if is {
			gone = append(gone, e)
		}
		return is
	})
	f.mu.Unlock()
	for _, e := range gone {
		err := errors.Join(e.stop(), os.RemoveAll(e.dir))
		f.metrics.forget(e.rules.Name)
		if err != nil {
			f.log.Warn("remove the queue of an endpoint of which all is sent", "endpoint", e.rules.Name, "err", err)
			continue
		}
		f.log.Info("all is sent to an endpoint that was taken out of the rules; its queue is removed", "endpoint", e.rules.Name)
	}
}

func (f *Forwarder) closeAll() error {
	f.changes.Lock()
	defer f.changes.Unlock()
	f.mu.Lock()
	endpoints := f.mu.endpoints
	f.mu.endpoints = nil
	f.mu.Unlock()
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.stop())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Release())
		f.lock = nil
	}
	return errors.Join(errs...)
}

// Status is how forwarding to an endpoint stands.
type Status struct {
	Endpoint   string      `json:"endpoint"`
	URL        string      `json:"url"`
	Tenants    []tenant.ID `json:"tenants,omitempty"`  // whose samples it gets; empty: all
	Draining   bool        `json:"draining,omitempty"` // no rule names it any more
	QueueBytes int64       `json:"queue_bytes"`
	LastSent   time.Time   `json:"last_sent"`
	LastError  string      `json:"last_error,omitempty"`
}

// Status lists the endpoints in the order of their rules, then those that are drained.
func (f *Forwarder) Status() []Status {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := []Status{}
	for _, e := range f.mu.endpoints {
		out = append(out, e.status())
	}
	return out
}
