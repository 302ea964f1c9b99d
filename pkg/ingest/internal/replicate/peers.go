package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/storeapi"
)

// A connection that nothing was sent by for so long is closed.
const (
	idleCheck = time.Minute
	idleLimit = 10 * time.Minute
)

// peers are the nodes that were written to of late.
type peers struct {
	r *Replicator

	mu   sync.RWMutex
	open map[string]*peer // by address; nil: closed
}

// get returns the peer at an instance's address.
func (p *peers) get(i ring.Instance) Owner {
	p.mu.RLock()
	x := p.open[i.Addr]
	p.mu.RUnlock()
	if x == nil {
		var err error
		if x, err = p.dial(i.Addr); err != nil {
			return unreachable{err}
		}
	}
	x.used.Store(p.r.parts.Now().UnixNano())
	return x
}

// dial opens a connection, which is made in the background.
func (p *peers) dial(addr string) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.open[addr]; x != nil {
		return x, nil
	}
	if p.open == nil {
		return nil, errors.New("this node is stopping")
	}
	most := time.Duration(p.r.cfg.MaxBackoff)
	opts := append(storeapi.DialOptions(false),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: most},
			MinConnectTimeout: time.Duration(p.r.cfg.Timeout),
		}),
		grpc.WithDisableServiceConfig(),
	)
	conn, err := grpc.NewClient("passthrough:///"+addr, append(opts, p.r.parts.Dial...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	c := p.r.cfg
	x := &peer{
		r: p.r, addr: addr, conn: conn,
		client: newClient(conn, addr, c, p.r.metrics, p.r.parts.Now),
		guard:  guard{maxRequests: c.InFlightRequests, maxBytes: c.InFlightBytes, maxBackoff: most},
	}
	p.open[addr] = x
	p.r.metrics.peers.Set(float64(len(p.open)))
	return x, nil
}

// closeIdle closes connections that nothing is sent by any more.
func (p *peers) closeIdle(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, x := range p.open {
		if now.Sub(time.Unix(0, x.used.Load())) < idleLimit {
			continue
		}
		delete(p.open, addr)
		if err := x.close(); err != nil {
			p.r.parts.Log.Warn("close connection to a node that is gone", "address", addr, "err", err)
		}
	}
	p.r.metrics.peers.Set(float64(len(p.open)))
}

// close closes all connections for good.
func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, x := range p.open {
		errs = append(errs, x.close())
	}
	p.open = nil
	return errors.Join(errs...)
}

// unreachable is an Owner that there is no connection to.
type unreachable struct{ err error }

func (u unreachable) Append(_ context.Context, w *batch.Write) (batch.Result, error) {
	return batch.Result{}, refuse.Errorf(refuse.Unavailable, w.Tenant, "%v", u.err)
}

// peer is another node: its client behind a guard.
type peer struct {
	r      *Replicator
	addr   string
	conn   *grpc.ClientConn
	client *client
	guard  guard
	used   atomic.Int64 // Unix ns
}

func (p *peer) close() error {
	if p.guard.isSick() {
		p.r.metrics.backedOff.Dec()
	}
	return p.conn.Close()
}

// Append implements Owner.
func (p *peer) Append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	m := p.r.metrics
	size := held(w.Batch)
	began := p.r.parts.Now()
	switch p.guard.enter(size, began) {
	case busy:
		m.sent.WithLabelValues("busy").Inc()
		return batch.Result{}, refuse.Errorf(refuse.Overloaded, w.Tenant, "node %s: too many requests wait for it (--receive.forward-max-requests, --receive.forward-max-bytes)", p.addr)
	case sick:
		m.sent.WithLabelValues("backoff").Inc()
		return batch.Result{}, refuse.Errorf(refuse.Unavailable, w.Tenant, "node %s has failed just before", p.addr)
	}
	m.inFlight.Add(float64(size))
	res, err := p.client.Append(ctx, w)
	m.inFlight.Sub(float64(size))
	now := p.r.parts.Now()
	m.duration.Observe(now.Sub(began).Seconds())
	m.sent.WithLabelValues(resultOf(err)).Inc()
	_, answered := errors.AsType[*refuse.Error](err)
	if p.guard.leave(size, err == nil || answered, now) {
		p.noteHealth(err)
	}
	return res, err
}

// noteHealth says that the node has begun or ceased to fail.
func (p *peer) noteHealth(err error) {
	if err != nil {
		p.r.metrics.backedOff.Inc()
		p.r.parts.Log.Warn("node does not take writes", "address", p.addr, "err", err)
		return
	}
	p.r.metrics.backedOff.Dec()
	p.r.parts.Log.Info("node takes writes again", "address", p.addr)
}

func resultOf(err error) string {
	e, ok := errors.AsType[*refuse.Error](err)
	switch {
	case err == nil:
		return "ok"
	case ok && !e.Reason.Retry():
		return "refused"
	}
	return "failed"
}

// held is about how many bytes of memory a Batch keeps from being used again.
func held(b *batch.Batch) int64 {
	return 64*int64(len(b.Series)) + 24*int64(len(b.Floats)) + 512*int64(len(b.Histograms)) + 128*int64(len(b.Exemplars)+len(b.Families))
}
