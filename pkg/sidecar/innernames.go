package sidecar

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// innerNames remembers for a short time which label names the series in
// Prometheus have of their own. When none of them is an external or a replica
// label, adding and removing those hardly touches the order of series.
type innerNames struct {
	ask func(ctx context.Context) ([]string, error)
	ttl time.Duration
	now func() time.Time

	mu struct {
		sync.Mutex
		names map[string]struct{}
		until time.Time
	}
}

// any tells whether series have a label of their own with the name of an
// external label or of one in without.
func (n *innerNames) any(ctx context.Context, ext labels.Labels, without []string) (bool, error) {
	names, err := n.get(ctx)
	if err != nil {
		return false, err
	}
	has := func(name string) bool { _, ok := names[name]; return ok }
	found := slices.ContainsFunc(without, has)
	ext.Range(func(l labels.Label) { found = found || has(l.Name) })
	return found, nil
}

// get asks outside of the lock: a caller that gives up must not be held by
// another's question.
func (n *innerNames) get(ctx context.Context) (map[string]struct{}, error) {
	n.mu.Lock()
	names, until := n.mu.names, n.mu.until
	n.mu.Unlock()
	if names != nil && n.now().Before(until) {
		return names, nil
	}
	list, err := n.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("label names, to decide on sorting: %w", err)
	}
	names = make(map[string]struct{}, len(list))
	for _, name := range list {
		names[name] = struct{}{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.names, n.mu.until = names, n.now().Add(n.ttl)
	return names, nil
}

// forget makes the next question go to Prometheus.
func (n *innerNames) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.names = nil
}
