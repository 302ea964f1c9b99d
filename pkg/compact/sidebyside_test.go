package compact_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

// TestInputsSideBySide: the first requests for one input don't wait for the answers
// to those for another. The bucket answers none for an index, and none for a
// segment, until it has been asked for those of all four blocks.
func TestInputsSideBySide(t *testing.T) {
	w := newWorld(t)
	for h := int64(0); h < 48; h += 12 {
		w.ship(h, h+12, 1)
	}
	index, segments := newGate(4), newGate(4)
	reg := prometheus.NewRegistry()
	c := w.compactor(func(_ *compact.Config, p *compact.Parts) {
		p.Metrics = reg
		p.Bucket = bucket.WithFaults(w.bkt, func(_ context.Context, point, object string) error {
			id, rel, ok := block.SplitName(object)
			if !ok || point != "bucket/get_range/before" {
				return nil
			}
			if strings.HasPrefix(rel, block.ChunksDirname) {
				return segments.pass(id.String())
			}
			return index.pass(id.String())
		})
	})
	require.NoError(t, c.Once(context.Background()))
	require.EqualValues(t, 1, value(t, reg, "jobs_total"))
	w.requireSamples()
}

// gate lets nobody through until so many have come, of different names.
type gate struct {
	mu    sync.Mutex
	left  int
	names map[string]bool
	open  chan struct{}
}

func newGate(n int) *gate { return &gate{left: n, names: map[string]bool{}, open: make(chan struct{})} }

func (g *gate) pass(name string) error {
	g.mu.Lock()
	if !g.names[name] && g.left > 0 {
		g.names[name] = true
		if g.left--; g.left == 0 {
			close(g.open)
		}
	}
	g.mu.Unlock()
	select {
	case <-g.open:
		return nil
	case <-time.After(time.Minute):
		return context.DeadlineExceeded
	}
}
