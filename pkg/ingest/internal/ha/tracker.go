// Package ha takes one of several senders that send the same. Each pair of
// them, a tenant's cluster, has one that is elected; another takes over when it
// has been silent for a while.
//
//	Take ─► pair: elected? ─► yes: take it, tell the others now and then
//	                       └► no: leave it out, or take over if the elected one is silent
//
// Take decides by what this process knows and never waits. Run tells other
// routers and hears from them through a store that merges (gossip); without
// one each process decides alone. Clocks of others are never compared with
// ours: a sender is silent when for the time-out neither it nor news of it
// came here. While routers don't know of each other's election both senders are
// taken, which costs room and loses nothing.
//
// All methods of Tracker are safe to call at once.
package ha

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/tenant"
)

// Rules is what a tenant's limits say about pairs.
type Rules struct {
	Failover    time.Duration // how long the elected one is silent before another takes over
	Update      time.Duration // how often others are told that it is alive
	MaxClusters int           // of a tenant; 0: any number
}

// Verdict is what to do with what a sender of a pair sent.
type Verdict uint8

// Verdicts.
const (
	Elected Verdict = iota // take it
	Standby                // leave it out: the pair's other sender is taken
	TooMany                // refuse it: the tenant has too many pairs
)

// Store is where routers share elections: a kv.Client of dskit with Codec.
type Store interface {
	List(ctx context.Context, prefix string) ([]string, error)
	Get(ctx context.Context, key string) (any, error)
	CAS(ctx context.Context, key string, f func(in any) (out any, retry bool, err error)) error
	WatchPrefix(ctx context.Context, prefix string, f func(key string, value any) bool)
}

// Tracker knows the pairs.
type Tracker struct {
	store   Store // nil: none
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	jitter  func() float64 // 0 to 1

	wake chan struct{} // something is to be told

	mu struct {
		sync.RWMutex
		pairs    map[Pair]*pair
		clusters map[tenant.ID]int
	}
}

// pair is one pair as this process sees it.
type pair struct {
	mu      sync.Mutex
	is      Election
	heard   time.Time // when the elected one, or news of it, came here last
	other   string    // another that came here last
	otherAt time.Time
	tellAt  time.Time // not before
	tell    bool
}

// New wires a Tracker; call Run if it has a store, or is to forget silent pairs.
func New(store Store, log *slog.Logger, reg prometheus.Registerer) *Tracker {
	t := &Tracker{store: store, log: log, now: time.Now, jitter: rand.Float64, wake: make(chan struct{}, 1)}
	t.metrics = newMetrics(t, reg)
	t.mu.pairs = map[Pair]*pair{}
	t.mu.clusters = map[tenant.ID]int{}
	return t
}

// Take decides about what a sender sent now.
func (t *Tracker) Take(id Pair, replica string, rules Rules, now time.Time) Verdict {
	t.mu.RLock()
	p := t.mu.pairs[id]
	t.mu.RUnlock()
	if p == nil {
		if p = t.add(id, rules.MaxClusters); p == nil {
			t.metrics.tooMany.Inc()
			return TooMany
		}
	}
	verdict, tell := p.take(replica, rules, now, t.jitter)
	if tell == changed {
		t.metrics.elections.Inc()
		t.log.Info("a sender is elected", "tenant", id.Tenant, "cluster", id.Cluster, "replica", replica)
	}
	if tell != nothing && t.store != nil {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	return verdict
}

// add makes a pair that nobody is elected of; nil if the tenant has most already. 0: any number.
func (t *Tracker) add(id Pair, most int) *pair {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.mu.pairs[id]; p != nil {
		return p
	}
	if most > 0 && t.mu.clusters[id.Tenant] >= most {
		return nil
	}
	p := &pair{heard: t.now()}
	t.mu.pairs[id] = p
	t.mu.clusters[id.Tenant]++
	return p
}

// news is what there is to tell others.
type news uint8

const (
	nothing news = iota
	alive
	changed
)

func (p *pair) take(replica string, rules Rules, now time.Time, jitter func() float64) (Verdict, news) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := nothing
	switch {
	case p.is.Replica == replica:
		if !now.Before(p.tellAt) {
			what = alive
		}
	case p.is.Replica == "" || now.Sub(p.heard) > rules.Failover:
		p.is = Election{Replica: replica, Term: p.is.Term + 1, Since: now.UnixMilli(), Beat: now.UnixMilli()}
		what = changed
	default:
		p.other, p.otherAt = replica, now
		return Standby, nothing
	}
	p.heard = later(p.heard, now)
	if what != nothing {
		p.tell = true
		p.tellAt = now.Add(rules.Update + time.Duration(jitter()*float64(rules.Update)/4))
	}
	return Elected, what
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// hear takes over what others elected. It tells whether another sender is elected now.
func (p *pair) hear(theirs Election, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !theirs.beats(p.is) {
		return false
	}
	other := theirs.Replica != p.is.Replica
	if other {
		p.tell = false // what we had to tell is overruled
	}
	p.is, p.heard = theirs, later(p.heard, now)
	return other
}

// Status is one pair, for people.
type Status struct {
	Tenant    tenant.ID `json:"tenant"`
	Cluster   string    `json:"cluster"`
	Replica   string    `json:"replica"` // elected; "": none, the pair is silent
	Since     time.Time `json:"since"`
	Heard     time.Time `json:"heard"` // of it, here
	Term      uint64    `json:"term"`
	Standby   string    `json:"standby,omitempty"` // another that came here last
	StandbyAt time.Time `json:"standbyAt,omitzero"`
}

// Status lists the pairs by tenant and cluster.
func (t *Tracker) Status() []Status {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Status, 0, len(t.mu.pairs))
	for id, p := range t.mu.pairs {
		p.mu.Lock()
		all = append(all, Status{id.Tenant, id.Cluster, p.is.Replica, time.UnixMilli(p.is.Since).UTC(), p.heard.UTC(), p.is.Term, p.other, p.otherAt.UTC()})
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Cluster, b.Cluster))
	})
	return all
}
