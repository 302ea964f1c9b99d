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
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/backoff"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// endpoint is one receiver with its queues. Its rules change while nothing is
// offered to it and nothing is sent: the Forwarder sees to that.
type endpoint struct {
	rules    Endpoint
	dir      string
	log      *slog.Logger
	metrics  *metrics
	shards   []*shard // those beyond rules.Queue.Shards are only emptied: there were more once
	draining bool     // no rule names it any more; what is queued is still sent
	drained  atomic.Bool
	sending  *sending // nil: nothing is sent
	known    *known

	mu struct {
		sync.RWMutex
		lastSent  time.Time
		lastError string
	}
}

// sending is a run of an endpoint's senders.
type sending struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// shard is a queue and who empties it.
type shard struct {
	e     *endpoint
	queue *queue
	sent  position // all before it was taken by the endpoint
}

func openEndpoint(rules Endpoint, dir string, tables int64, log *slog.Logger, m *metrics) (*endpoint, error) {
	e := &endpoint{rules: rules, dir: dir, log: log.With("endpoint", rules.Name), metrics: m}
	e.known = newKnown(tables, m.tables.WithLabelValues(rules.Name))
	shards, err := e.open(0, rules.Queue.Shards)
	for more := true; err == nil && more; {
		_, gone := os.Stat(e.shardDir(len(shards)))
		if more = gone == nil; more {
			var old []*shard
			old, err = e.open(len(shards), len(shards)+1)
			shards = append(shards, old...)
		}
	}
	if err != nil {
		return nil, errors.Join(err, closeShards(shards))
	}
	e.shards = shards
	return e, nil
}

func (e *endpoint) shardDir(n int) string { return filepath.Join(e.dir, strconv.Itoa(n)) }

// open opens shards; on an error none.
func (e *endpoint) open(from, to int) ([]*shard, error) {
	var shards []*shard
	for n := from; n < to; n++ {
		q, err := openQueue(e.shardDir(n), e.rules.shardBytes(), e.log, e.lost)
		if err != nil {
			return nil, errors.Join(err, closeShards(shards))
		}
		shards = append(shards, &shard{e: e, queue: q, sent: q.reader.at})
	}
	return shards, nil
}

func closeShards(shards []*shard) error {
	var errs []error
	for _, s := range shards {
		errs = append(errs, s.queue.close())
	}
	return errors.Join(errs...)
}

// change puts other rules in force, with shards that were opened for them.
func (e *endpoint) change(rules Endpoint, more []*shard) {
	e.rules, e.shards, e.draining = rules, append(e.shards, more...), false
	for _, s := range e.shards {
		s.queue.maxBytes = rules.shardBytes()
	}
	e.known.forget()
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
	for _, f := range families {
		if !e.known.sends(f.Name) {
			continue
		}
		if r.requests, err = appendFamily(r.requests, f); err != nil {
			return err
		}
	}
	return nil
}

// target finds out, once for each series, whether it is sent.
func (e *endpoint) target(w *batch.Write, s *batch.Series, i int) *target {
	key := session{w.Tenant, w.Session}
	if t := e.known.get(key, s.ID); t != nil {
		return t
	}
	t := skipped
	if lset, err := w.Batch.Labels(i); err != nil {
		e.drop(s.Floats.Len()+s.Histograms.Len(), err)
		return skipped // and asked for again the next time
	} else if lset = e.rules.selects(lset); !lset.IsEmpty() {
		t = e.newTarget(lset)
	}
	e.known.add(key, s.ID, t)
	return t
}

func (e *endpoint) newTarget(lset labels.Labels) *target {
	return &target{
		labels: appendLabels(nil, fieldLabels, lset), name: lset.Get(model.MetricNameLabel),
		shard: int(lset.Hash() % uint64(e.rules.Queue.Shards)),
	}
}

// begin starts sending from all shards, which ends with ctx, by pause, or when
// nothing is left of an endpoint that is draining: then drained is called.
func (e *endpoint) begin(ctx context.Context, running *errgroup.Group, drained func()) {
	ctx, cancel := context.WithCancel(ctx)
	run := &sending{cancel: cancel, done: make(chan struct{})}
	e.sending = run
	e.drained.Store(false)
	shards, draining := e.shards, e.draining
	running.Go(func() error {
		defer close(run.done)
		defer cancel()
		var failed atomic.Bool
		var all sync.WaitGroup
		for n, s := range shards {
			all.Go(func() {
				if err := s.run(ctx, draining); err != nil {
					failed.Store(true)
					e.log.Error("sending stops until the next start", "shard", n, "err", err)
				}
			})
		}
		all.Wait()
		if draining && ctx.Err() == nil && !failed.Load() {
			e.drained.Store(true)
			drained()
		}
		return nil
	})
}

// pause ends sending; begin goes on where it was left.
func (e *endpoint) pause() {
	if e.sending != nil {
		e.sending.cancel()
		<-e.sending.done
		e.sending = nil
	}
}

// stop ends sending and closes the queues.
func (e *endpoint) stop() error {
	e.pause()
	e.known.forget()
	return closeShards(e.shards)
}

func (e *endpoint) status() Status {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return Status{Endpoint: e.rules.Name, URL: e.rules.URL.Redacted(), Tenants: e.rules.Tenants, Draining: e.draining, QueueBytes: e.queued(), LastSent: e.mu.lastSent, LastError: e.mu.lastError}
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
	end      position // behind its last record
}

// pending is a record that begins the next load; rec is nil if there is none.
type pending struct {
	rec []byte
	end position
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

// run sends what is in the queue until ctx is done or, if it is to be drained, nothing is left.
func (s *shard) run(ctx context.Context, drain bool) error {
	s.queue.rewind(s.sent)
	clients := map[tenant.ID]remote.WriteClient{} // one, unless requests name their tenant
	noted, at := time.Now(), s.sent
	note := func() {
		if at == s.sent {
			return
		}
		noted, at = time.Now(), s.sent
		if err := s.queue.done(at); err != nil {
			s.e.log.Warn("how far the queue is sent can't be noted; it may be sent again after a restart", "err", err)
		}
	}
	defer note()
	var next pending
	for ctx.Err() == nil {
		l, err := s.gather(ctx, drain, &next)
		if err != nil {
			return err
		}
		s.e.metrics.queueBytes.WithLabelValues(s.e.rules.Name).Set(float64(s.e.queued()))
		if l == nil {
			return nil // ctx is done, or all is sent
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
			return nil // it is sent again when sending goes on
		}
		s.sent = l.end
		if time.Since(noted) >= time.Second {
			note()
		}
	}
	return nil
}

// gather takes records until there are enough samples, or none come for a while.
// nil: none came.
func (s *shard) gather(ctx context.Context, drain bool, next *pending) (*load, error) {
	var l *load
	deadline := time.Now().Add(time.Duration(s.e.rules.Queue.BatchSendDeadline))
	for l == nil || l.samples < s.e.rules.Queue.MaxSamplesPerSend {
		one := *next
		*next = pending{}
		if one.rec == nil {
			rec, ok, err := s.queue.next()
			if err != nil {
				return nil, err
			}
			if !ok && (drain || ctx.Err() != nil || l != nil && time.Until(deadline) <= 0) {
				return l, nil //nolint:nilerr // what was gathered stays in the queue when ctx is done
			}
			if !ok {
				s.wait(ctx, l, deadline)
				continue
			}
			one = pending{rec: rec, end: s.queue.reader.at}
		}
		samples, id, requests, err := splitHeader(one.rec)
		if err != nil {
			s.e.log.Warn("a record of the queue can't be read and is left out", "err", err)
			continue
		}
		if l == nil {
			l = &load{tenant: id}
		}
		if l.tenant != id && s.e.rules.TenantHeader != "" {
			*next = pending{rec: append([]byte(nil), one.rec...), end: one.end}
			return l, nil
		}
		l.requests, l.samples, l.end = append(l.requests, requests...), l.samples+samples, one.end
	}
	return l, nil
}

// wait returns when there may be more for a load, or its time has come.
func (s *shard) wait(ctx context.Context, l *load, deadline time.Time) {
	if l != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	s.queue.wait(ctx)
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
