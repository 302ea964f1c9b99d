// Package indexcache keeps parts of indexes that queries have read: postings
// lists and series entries, as they stand in the index with their checksums, so
// that whoever takes one out verifies it as if it had just been read.
//
// A Cache is safe for concurrent use. A nil Cache keeps nothing.
package indexcache

import (
	"fmt"
	"math"

	"github.com/maypok86/otter/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Kind is what an entry is.
type Kind uint8

// The kinds of entries.
const (
	Postings Kind = iota
	Series
)

func (k Kind) String() string { return [...]string{"postings", "series"}[k] }

// Key names an entry. Blocks never change, so neither do entries.
type Key struct {
	Kind        Kind
	Block       ulid.ULID
	Name, Value string // of postings
	Ref         uint64 // of a series
}

// overhead is roughly what an entry costs beside its bytes: key, value header, the cache's own node.
const overhead = 200

// Cache is bounded by the bytes of its entries.
type Cache struct {
	entries *otter.Cache[Key, []byte]
	most    int64
	metrics *metrics
}

type metrics struct {
	requests, hits, added, evicted [2]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help string) (out [2]prometheus.Counter) {
		v := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "firnline_store_index_cache_" + name, Help: help}, []string{"item_type"})
		for k := range out {
			out[k] = v.WithLabelValues(Kind(k).String())
		}
		return out
	}
	return &metrics{
		requests: counters("requests_total", "Entries asked for."),
		hits:     counters("hits_total", "Entries asked for that were there."),
		added:    counters("items_added_total", "Entries added."),
		evicted:  counters("items_evicted_total", "Entries evicted to make room."),
	}
}

// New makes a Cache of at most maxBytes; 0 or less gives nil, which keeps nothing.
func New(maxBytes int64, reg prometheus.Registerer) (*Cache, error) {
	if maxBytes <= 0 {
		return nil, nil
	}
	c := &Cache{most: min(maxBytes/4, math.MaxInt32), metrics: newMetrics(reg)}
	var err error
	c.entries, err = otter.New(&otter.Options[Key, []byte]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       func(k Key, v []byte) uint32 { return uint32(weight(k, v)) },
		OnDeletion: func(e otter.DeletionEvent[Key, []byte]) {
			if e.WasEvicted() {
				c.metrics.evicted[e.Key.Kind].Inc()
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make index cache: %w", err)
	}
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "firnline_store_index_cache_size_bytes", Help: "Bytes that the index cache holds."},
		func() float64 { return float64(c.entries.WeightedSize()) })
	return c, nil
}

func weight(k Key, v []byte) int64 { return int64(len(k.Name)+len(k.Value)+len(v)) + overhead }

// Get returns an entry, which must not be written to.
func (c *Cache) Get(k Key) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	c.metrics.requests[k.Kind].Inc()
	v, ok := c.entries.GetIfPresent(k)
	if ok {
		c.metrics.hits[k.Kind].Inc()
	}
	return v, ok
}

// Put keeps a copy of v, unless it is so large that it would push out too much else.
func (c *Cache) Put(k Key, v []byte) {
	if c == nil || weight(k, v) > c.most {
		return
	}
	c.metrics.added[k.Kind].Inc()
	c.entries.Set(k, append(make([]byte, 0, len(v)), v...))
}

// Drop forgets an entry that was found to be wrong.
func (c *Cache) Drop(k Key) {
	if c != nil {
		c.entries.Invalidate(k)
	}
}
