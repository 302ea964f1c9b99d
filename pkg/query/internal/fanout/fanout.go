// Package fanout makes one Store of all endpoints of a querier, and one each of
// the other services they serve.
//
// Whom to ask is decided by pure functions (choose.go); asking streams from all
// of them at once, merges, and makes of each endpoint that can't be had either a
// warning that names it or an error, as the selection says. All exported
// methods are safe for concurrent use.
package fanout

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Config bounds what a request may cost.
type Config struct {
	ResponseTimeout   model.Duration // between two responses of an endpoint; 0: none
	MaxBufferedFrames int            // read ahead of an endpoint
	SeriesLimit       int            // per request; 0: none
	SampleLimit       int            // per request; 0: none
	MaxHops           int            // queriers that a request may pass
}

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	fs.Var(&c.ResponseTimeout, "store.response-timeout", "Time within which an endpoint must send something, each time it is waited for; else it is given up and the answer is partial or fails. 0s: no such limit; a query's own timeout holds in any case, and a tenth of it is kept for evaluating what has come.")
	fs.IntVar(&c.MaxBufferedFrames, "query.lazy-retrieval-max-buffered-responses", 20, "Batches (64 series or 256 KiB of chunks, whichever comes first) read ahead from each endpoint of a request.")
	fs.IntVar(&c.SeriesLimit, "store.limits.request-series", 0, "Series that one selection may return. 0: no limit.")
	fs.IntVar(&c.SampleLimit, "store.limits.request-samples", 0, "Samples that the chunks of one selection may hold. 0: no limit.")
	fs.IntVar(&c.MaxHops, "query.max-hops", 8, "Queriers one above the other that a request may pass. More are taken for a cycle among endpoints.")
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	atLeast := func(name string, got, least int) {
		if got < least {
			errs = append(errs, fmt.Errorf("--%s=%d: must be %d or more", name, got, least))
		}
	}
	if c.ResponseTimeout < 0 {
		errs = append(errs, fmt.Errorf("--store.response-timeout=%s: must be 0 or more", c.ResponseTimeout))
	}
	atLeast("query.lazy-retrieval-max-buffered-responses", c.MaxBufferedFrames, 1)
	atLeast("store.limits.request-series", c.SeriesLimit, 0)
	atLeast("store.limits.request-samples", c.SampleLimit, 0)
	atLeast("query.max-hops", c.MaxHops, 1)
	return errors.Join(errs...)
}

// peers lists the endpoints there are now.
type peers interface{ Peers() []endpoint.Peer }

// Fanout is a storeapi.Store, and each of the storeapi sources but QuerySource,
// over all endpoints.
type Fanout struct {
	cfg      Config
	peers    peers
	selector labels.Labels
	parser   Parser
	id       string // of this process, to recognise a request that comes back
	metrics  *metrics
	only     [][]*labels.Matcher
}

var (
	_ storeapi.Store           = (*Fanout)(nil)
	_ storeapi.RulesSource     = (*Fanout)(nil)
	_ storeapi.TargetsSource   = (*Fanout)(nil)
	_ storeapi.MetadataSource  = (*Fanout)(nil)
	_ storeapi.ExemplarsSource = (*Fanout)(nil)
	_ storeapi.StatusSource    = (*Fanout)(nil)
)

// New makes a Fanout over peers. selector are labels that this querier stands
// for beside those of its endpoints; pql reads the queries of exemplars.
func New(cfg Config, p peers, selector labels.Labels, pql Parser, reg prometheus.Registerer) *Fanout {
	return &Fanout{cfg: cfg, peers: p, selector: selector, parser: pql, id: rand.Text(), metrics: newMetrics(reg)}
}

// Only returns a Fanout restricted to endpoints which match all matchers of one
// of the sets: __address__ is an endpoint's name, other labels are external ones.
func (f *Fanout) Only(sets [][]*labels.Matcher) *Fanout {
	restricted := *f
	restricted.only = sets
	return &restricted
}

// Services returns what this querier answers for others, but for QuerySource.
func (f *Fanout) Services() storeapi.Services {
	return storeapi.Services{Store: f, Rules: f, Targets: f, Metadata: f, Exemplars: f, Status: f}
}

// describe tells what all endpoints hold together. What is down counts too, so
// that whoever asks above learns of it from a warning and not by being led past.
func describe(list []endpoint.Peer, selector labels.Labels) storeapi.Info {
	info := storeapi.Info{
		Component: "query", Mint: math.MaxInt64, Maxt: math.MinInt64,
		SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{
			Store: true, Rules: true, Targets: true, Metadata: true, Exemplars: true, Query: true, Status: true,
			ExemplarsMint: math.MinInt64, ExemplarsMaxt: math.MaxInt64,
		},
	}
	ext := storeapi.NewExtender(selector, nil)
	stores := 0
	anything := false // labels are unknown: there may be anything
	for _, p := range list {
		if p.Known && !p.Info.Services.Store {
			continue
		}
		stores++
		if anything = !p.Known || len(p.Info.LabelSets) == 0; anything {
			break
		}
		info.Mint, info.Maxt = min(info.Mint, p.Info.Mint), max(info.Maxt, p.Info.Maxt)
		for _, set := range p.Info.LabelSets {
			info.LabelSets = append(info.LabelSets, ext.Extend(set))
		}
		for _, t := range p.Info.TSDBs {
			t.Labels = ext.Extend(t.Labels)
			info.TSDBs = append(info.TSDBs, t)
		}
	}
	if anything || stores == 0 {
		info.LabelSets, info.TSDBs = nil, nil
		if !selector.IsEmpty() {
			info.LabelSets = []labels.Labels{selector}
		}
		info.Mint, info.Maxt = math.MinInt64, math.MaxInt64
		return info
	}
	slices.SortFunc(info.LabelSets, labels.Compare)
	info.LabelSets = slices.CompactFunc(info.LabelSets, labels.Equal)
	return info
}
