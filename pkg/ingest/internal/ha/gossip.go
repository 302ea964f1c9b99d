package ha

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/tenant"
)

const (
	// keyPrefix is before a tenant's key in the store.
	keyPrefix = "ha/"
	// tellEvery bounds how often the store is written: what came meanwhile goes together.
	tellEvery = 200 * time.Millisecond
	// rereadEvery is how often all of the store is read, since it may lose notifications.
	rereadEvery = 30 * time.Second
	// silentFor is when a pair counts as gone. Far more than any fail-over.
	silentFor = 6 * time.Hour
)

// Run shares elections and forgets silent pairs until ctx is done.
func (t *Tracker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if t.store != nil {
		wg.Go(func() {
			t.store.WatchPrefix(ctx, keyPrefix, func(key string, value any) bool {
				t.hear(key, value)
				return ctx.Err() == nil
			})
		})
		wg.Go(func() { t.tellAll(ctx) })
	}
	reread := time.NewTicker(rereadEvery)
	defer reread.Stop()
	for {
		t.read(ctx)
		t.forget()
		select {
		case <-ctx.Done():
			return nil
		case <-reread.C:
		}
	}
}

// read hears all that is in the store.
func (t *Tracker) read(ctx context.Context) {
	if t.store == nil {
		return
	}
	keys, err := t.store.List(ctx, keyPrefix)
	for _, key := range keys {
		value, getErr := t.store.Get(ctx, key)
		if getErr != nil {
			err = getErr
			continue
		}
		t.hear(key, value)
	}
	t.report(ctx, "elections of others can't be read", err)
}

// hear takes over what the store says of a tenant.
func (t *Tracker) hear(key string, value any) {
	theirs, ok := value.(elections)
	id, err := tenant.Parse(strings.TrimPrefix(key, keyPrefix))
	if !ok || err != nil {
		return // no value, or not ours
	}
	for cluster, e := range theirs {
		p := t.add(Pair{id, cluster}, 0)
		if p.hear(e, t.now()) && e.Replica != "" {
			t.metrics.elections.Inc()
			t.log.Info("another router elected a sender", "tenant", id, "cluster", cluster, "replica", e.Replica)
		}
	}
}

// tellAll writes what is to be told whenever there is something.
func (t *Tracker) tellAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		for id, pairs := range t.toTell() {
			t.report(ctx, "elections can't be told to others", t.tell(ctx, id, pairs))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tellEvery):
		}
	}
}

// report logs and counts an error. What could not be told is told with the next sign of life.
func (t *Tracker) report(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	t.metrics.failures.Inc()
	t.log.Warn(what, "err", err)
}

// toTell collects what is to be told, by tenant.
func (t *Tracker) toTell() map[tenant.ID]map[string]*pair {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := map[tenant.ID]map[string]*pair{}
	for id, p := range t.mu.pairs {
		p.mu.Lock()
		if p.tell {
			p.tell = false
			if all[id.Tenant] == nil {
				all[id.Tenant] = map[string]*pair{}
			}
			all[id.Tenant][id.Cluster] = p
		}
		p.mu.Unlock()
	}
	return all
}

// tell writes pairs of a tenant on top of what the store has, and hears what beats them there.
func (t *Tracker) tell(ctx context.Context, id tenant.ID, pairs map[string]*pair) error {
	return t.store.CAS(ctx, keyPrefix+string(id), func(in any) (any, bool, error) {
		stored, _ := in.(elections) // nil: nobody told anything yet
		out := elections{}
		for cluster, p := range pairs {
			if e, ok := p.above(stored[cluster], t.now()); ok {
				out[cluster] = e
			}
		}
		if len(out) == 0 {
			return nil, false, nil
		}
		t.metrics.told.Inc()
		return out, true, nil
	})
}

// above is what to write over what the store has; false if that is to stay.
func (p *pair) above(stored Election, now time.Time) (Election, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.is.sameAs(stored):
		p.is.Beat = max(stored.Beat+1, now.UnixMilli()) // it grows, however wrong the clock of who wrote it
	case stored.Replica == "" && stored.Term >= p.is.Term: // a pair that came back
		p.is.Term = stored.Term + 1
	case !p.is.beats(stored):
		p.is, p.heard = stored, later(p.heard, now)
		return Election{}, false
	}
	return p.is, true
}

// forget tells everybody that nobody is elected of silent pairs, and some time later drops them.
func (t *Tracker) forget() {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.mu.pairs {
		p.mu.Lock()
		silent := now.Sub(p.heard) > silentFor
		switch {
		case silent && p.is.Replica != "":
			p.is = Election{Term: p.is.Term + 1, Since: now.UnixMilli(), Beat: now.UnixMilli()}
			p.heard, p.tell = now, true
			select {
			case t.wake <- struct{}{}:
			default:
			}
		case silent:
			delete(t.mu.pairs, id)
			if t.mu.clusters[id.Tenant]--; t.mu.clusters[id.Tenant] == 0 {
				delete(t.mu.clusters, id.Tenant)
			}
		}
		p.mu.Unlock()
	}
}
