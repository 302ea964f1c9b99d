package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/grafana/dskit/backoff"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// endpoint is one receiver with its queues.
type endpoint struct {
	rules   Endpoint
	log     *slog.Logger
	metrics *metrics
	shards  []*shard // those beyond rules.Queue.Shards are only emptied: there were more once

	stopping context.CancelFunc
	ctx      context.Context // done when the endpoint is no longer in force; senders of Run end with it
	senders  sync.WaitGroup

	mu struct {
		sync.RWMutex
		sessions  map[session][]*target // by series ID
		names     map[string]bool       // metrics that are sent, for their metadata
		lastSent  time.Time
		lastError string
	}
}

type session struct {
	tenant tenant.ID
	of     batch.Session
}

// maxSessions bounds the tables of series; with more, all are made anew.
const maxSessions = 256

// target is what is known of a series that was seen. skipped: it is not sent.
type target struct {
	labels []byte // encoded
	name   string // of the metric
	shard  int
}

var skipped = &target{}

// shard is a queue and who empties it.
type shard struct {
	e     *endpoint
	queue *queue
}

func openEndpoint(rules Endpoint, dir string, log *slog.Logger, m *metrics) (_ *endpoint, err error) {
	e := &endpoint{rules: rules, log: log.With("endpoint", rules.Name), metrics: m}
	e.ctx, e.stopping = context.WithCancel(context.Background())
	e.mu.sessions, e.mu.names = map[session][]*target{}, map[string]bool{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	for n := 0; ; n++ {
		path := filepath.Join(dir, strconv.Itoa(n))
		if _, err := os.Stat(path); n >= rules.Queue.Shards && err != nil {
			return e, nil
		}
		q, err := openQueue(path, int64(rules.Queue.MaxBytes)/int64(rules.Queue.Shards), e.log, e.lost)
		if err != nil {
			return nil, err
		}
		e.shards = append(e.shards, &shard{e: e, queue: q})
	}
}

// lost counts what a queue had to give up.
func (e *endpoint) lost(records [][]byte) {
	samples := 0
	for _, rec := range records {
		n, _, _, err := splitHeader(rec)
		if err == nil {
			samples += n
		}
	}
	if samples > 0 {
		e.metrics.dropped.WithLabelValues(e.rules.Name).Add(float64(samples))
		e.log.Warn("the queue is full; its oldest samples are dropped", "samples", samples, "limit", e.rules.Queue.MaxBytes.String())
	}
}

// record is what a request adds to a shard.
type record struct {
	requests []byte
	samples  int
}

// offer queues what is selected of a part of a request.
func (e *endpoint) offer(w *batch.Write) {
	records := make([]record, e.rules.Queue.Shards)
	var scratch []byte
	for _, i := range w.Only {
		s := &w.Batch.Series[i]
		t := e.target(w, s, int(i))
		if t == skipped {
			continue
		}
		r := &records[t.shard]
		var err error
		if r.requests, scratch, err = appendSeries(r.requests, scratch, t.labels, w.Batch, s); err != nil {
			e.drop(s.Floats.Len()+s.Histograms.Len(), err)
			continue
		}
		r.samples += s.Floats.Len() + s.Histograms.Len()
	}
	if err := e.addFamilies(&records[0], w.Batch.Families); err != nil {
		e.drop(0, err)
	}
	for n, r := range records {
		if len(r.requests) == 0 {
			continue
		}
		rec := append(appendHeader(make([]byte, 0, maxHeaderBytes+len(r.requests)), r.samples, w.Tenant), r.requests...)
		if err := e.shards[n].queue.append(rec); err != nil {
			e.drop(r.samples, err)
		}
	}
}

func (e *endpoint) drop(samples int, err error) {
	e.metrics.dropped.WithLabelValues(e.rules.Name).Add(float64(samples))
	e.log.Warn("samples can't be queued for the endpoint", "samples", samples, "err", err)
}

// addFamilies adds the metadata of metrics of which series are sent.
func (e *endpoint) addFamilies(r *record, families []batch.Family) (err error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, f := range families {
		for _, suffix := range []string{"", "_bucket", "_count", "_sum", "_total"} {
			if !e.mu.names[f.Name+suffix] {
				continue
			}
			if r.requests, err = appendFamily(r.requests, f); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// target finds out, once for each series, whether it is sent.
func (e *endpoint) target(w *batch.Write, s *batch.Series, i int) *target {
	key := session{w.Tenant, w.Session}
	e.mu.RLock()
	table := e.mu.sessions[key]
	var t *target
	if s.ID < uint64(len(table)) {
		t = table[s.ID]
	}
	e.mu.RUnlock()
	if t != nil {
		return t
	}
	t = skipped
	if lset, err := w.Batch.Labels(i); err != nil {
		e.drop(s.Floats.Len()+s.Histograms.Len(), err)
		return skipped // and asked for again the next time
	} else if lset = e.rules.selects(lset); !lset.IsEmpty() {
		t = e.newTarget(lset)
	}
	e.remember(key, s.ID, t)
	return t
}

func (e *endpoint) newTarget(lset labels.Labels) *target {
	return &target{
		labels: appendLabels(nil, fieldLabels, lset), name: lset.Get(model.MetricNameLabel),
		shard: int(lset.Hash() % uint64(e.rules.Queue.Shards)),
	}
}

func (e *endpoint) remember(key session, id uint64, t *target) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.mu.sessions) >= maxSessions && e.mu.sessions[key] == nil {
		clear(e.mu.sessions)
	}
	table := e.mu.sessions[key]
	if id >= uint64(len(table)) {
		table = append(table, make([]*target, id+1-uint64(len(table)))...)
		e.mu.sessions[key] = table
	}
	table[id] = t
	if t != skipped {
		e.mu.names[t.name] = true
	}
}

// run sends from all shards until ctx is done or the endpoint is stopped.
func (e *endpoint) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	var running sync.WaitGroup
	for n, s := range e.shards {
		e.senders.Add(1)
		running.Go(func() {
			defer e.senders.Done()
			if err := s.run(ctx); err != nil {
				e.log.Error("sending stops until the next start", "shard", n, "err", err)
			}
		})
	}
	running.Wait()
}

// stop ends sending and closes the queues.
func (e *endpoint) stop() error {
	e.stopping()
	e.senders.Wait()
	var errs []error
	for _, s := range e.shards {
		errs = append(errs, s.queue.close())
	}
	return errors.Join(errs...)
}

func (e *endpoint) status() Status {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return Status{Endpoint: e.rules.Name, URL: e.rules.URL.Redacted(), QueueBytes: e.queued(), LastSent: e.mu.lastSent, LastError: e.mu.lastError}
}

func (e *endpoint) queued() int64 {
	var n int64
	for _, s := range e.shards {
		n += s.queue.bytes()
	}
	return n
}

// load is what one request to the endpoint carries.
type load struct {
	tenant   tenant.ID
	requests []byte
	samples  int
}

// client makes the HTTP client of requests for a tenant.
func (e *endpoint) client(id tenant.ID) (remote.WriteClient, error) {
	headers := map[string]string{}
	for k, v := range e.rules.Headers {
		headers[k] = v
	}
	if e.rules.TenantHeader != "" {
		headers[e.rules.TenantHeader] = string(id)
	}
	c, err := remote.NewWriteClient(e.rules.Name, &remote.ClientConfig{
		URL: e.rules.URL, Timeout: e.rules.Timeout, HTTPClientConfig: e.rules.HTTP, Headers: headers,
		RetryOnRateLimit: true, WriteProtoMsg: e.rules.ProtobufMessage,
	})
	if err != nil {
		return nil, fmt.Errorf("client of endpoint %s: %w", e.rules.Name, err)
	}
	return c, nil
}

// run sends what is in the queue until ctx is done.
func (s *shard) run(ctx context.Context) error {
	clients := map[tenant.ID]remote.WriteClient{} // one, unless requests name their tenant
	var noted time.Time
	var pending []byte // a record that begins the next load
	note := func() {
		noted = time.Now()
		if err := s.queue.done(); err != nil {
			s.e.log.Warn("how far the queue is sent can't be noted; it may be sent again after a restart", "err", err)
		}
	}
	for ctx.Err() == nil {
		l, err := s.gather(ctx, &pending)
		if err != nil {
			return err
		}
		s.e.metrics.queueBytes.WithLabelValues(s.e.rules.Name).Set(float64(s.e.queued()))
		if l == nil {
			break // ctx is done
		}
		of := l.tenant
		if s.e.rules.TenantHeader == "" {
			of = ""
		}
		if clients[of] == nil {
			if clients[of], err = s.e.client(of); err != nil {
				return err
			}
		}
		if !s.e.send(ctx, clients[of], l) {
			return nil // it is sent again after the next start
		}
		if pending == nil && time.Since(noted) >= time.Second {
			note()
		}
	}
	if pending == nil {
		note()
	}
	return nil
}

// gather takes records until there are enough samples, or none come for a while.
// nil: none came.
func (s *shard) gather(ctx context.Context, pending *[]byte) (*load, error) {
	var l *load
	deadline := time.Now().Add(time.Duration(s.e.rules.Queue.BatchSendDeadline))
	for l == nil || l.samples < s.e.rules.Queue.MaxSamplesPerSend {
		rec, ok := *pending, *pending != nil
		*pending = nil
		if !ok {
			var err error
			if rec, ok, err = s.queue.next(); err != nil {
				return nil, err
			}
		}
		if !ok {
			left := time.Until(deadline)
			if l != nil && left <= 0 {
				return l, nil
			}
			if ctx.Err() != nil {
				return l, nil //nolint:nilerr // what was gathered stays in the queue
			}
			wait, cancel := ctx, context.CancelFunc(func() {})
			if l != nil {
				wait, cancel = context.WithTimeout(ctx, left)
			}
			s.queue.wait(wait)
			cancel()
			continue
		}
		samples, id, requests, err := splitHeader(rec)
		if err != nil {
			s.e.log.Warn("a record of the queue can't be read and is left out", "err", err)
			continue
		}
		switch {
		case l == nil:
			l = &load{tenant: id}
		case l.tenant != id && s.e.rules.TenantHeader != "":
			*pending = append([]byte(nil), rec...)
			return l, nil
		}
		l.requests, l.samples = append(l.requests, requests...), l.samples+samples
	}
	return l, nil
}

// send tries until the endpoint takes a load or refuses it for good. It is false if ctx ended before.
func (e *endpoint) send(ctx context.Context, c remote.WriteClient, l *load) bool {
	name := e.rules.Name
	data, err := body(e.rules.ProtobufMessage, l.requests)
	if err != nil {
		e.drop(l.samples, err)
		return true
	}
	again := backoff.New(ctx, backoff.Config{MinBackoff: time.Duration(e.rules.Queue.MinBackoff), MaxBackoff: time.Duration(e.rules.Queue.MaxBackoff)})
	for again.Ongoing() {
		began := time.Now()
		_, err = c.Store(ctx, data, again.NumRetries())
		e.metrics.requests.WithLabelValues(name).Observe(time.Since(began).Seconds())
		e.note(err)
		if err == nil {
			e.metrics.samples.WithLabelValues(name).Add(float64(l.samples))
			e.metrics.behind.WithLabelValues(name).SetToCurrentTime()
			return true
		}
		if _, retry := errors.AsType[remote.RecoverableError](err); !retry {
			e.metrics.failed.WithLabelValues(name).Add(float64(l.samples))
			e.log.Warn("the endpoint refuses samples", "samples", l.samples, "err", err)
			return true
		}
		e.metrics.errors.WithLabelValues(name).Inc()
		if again.NumRetries() == 0 {
			e.log.Warn("the endpoint takes nothing now; trying again", "err", err)
		}
		again.Wait()
	}
	return false
}

func (e *endpoint) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.mu.lastError = err.Error()
		return
	}
	e.mu.lastSent, e.mu.lastError = time.Now(), ""
}
