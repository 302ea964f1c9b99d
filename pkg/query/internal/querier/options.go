// Package querier makes the series of all stores queryable by the PromQL
// engine: it selects them through a storeapi.Store, picks the aggregate that a
// function needs of downsampled data, and makes one series of HA replicas.
package querier

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Options are what one request sets of how series are selected.
type Options struct {
	Dedup           bool
	ReplicaLabels   []string // removed from the answer when Dedup is set
	PartialResponse bool
	MaxResolution   time.Duration       // coarsest downsampling resolution wanted; 0: raw
	StoreMatchers   [][]*labels.Matcher // an endpoint must match all of one set, where there are sets (storeMatch[])
	Shard           *storeapi.Shard
	SkipChunks      bool // labels only
}

// Factory makes a Queryable for a request.
type Factory interface {
	Queryable(opts Options) storage.Queryable
}
