// Package intake names the series of write requests and decides which of them
// are taken. What it finds out about a series it remembers under the bytes by
// which its sender names it, so that a known series costs a comparison:
//
//	Batch ─► request's limits ─► catalog: known? ─► class: whose, of which pair, refused? ─► rate ─► Parts
//	                                     │ no
//	                                     └► labels ─► valid ─► relabel ─► tenant ─► pair ─► limits ─► catalog
//
// A catalog belongs to a request's tenant and to one version of what decides
// about its series; another version begins with an empty one and a new session.
// All methods of Intake are safe to call at once.
package intake

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Config is what an operator may set.
type Config struct {
	MaxSeries    int            `yaml:"max_series"`
	MaxTenants   int            `yaml:"max_tenants"`
	IdleTimeout  model.Duration `yaml:"idle_timeout"`
	ActiveWindow model.Duration `yaml:"active_window"`
	SplitLabel   string         `yaml:"split_tenant_label_name"`

	prefix string
}

// RegisterFlags fills in the defaults.
func (c *Config) RegisterFlags(prefix string, fs *flag.FlagSet) {
	c.prefix = prefix
	c.IdleTimeout, c.ActiveWindow = model.Duration(2*time.Hour), model.Duration(20*time.Minute)
	fs.IntVar(&c.MaxSeries, prefix+"catalog.max-series", 10_000_000, "Series of all tenants that a router remembers, some 50 bytes each. New ones beyond it are answered 429.")
	fs.IntVar(&c.MaxTenants, prefix+"max-tenants", 10_000, "Tenants whose series a router remembers. Requests of others are answered 429.")
	fs.Var(&c.IdleTimeout, prefix+"catalog.idle-timeout", "A series that nobody sends for this long is forgotten by the router; at most 6h.")
	fs.Var(&c.ActiveWindow, prefix+"active-series-window", "A series counts as active for this long after it was sent.")
	fs.StringVar(&c.SplitLabel, prefix+"split-tenant-label-name", "", "Label that names the tenant of its series and is removed. Series without it belong to the tenant of the request.")
}

// Validate names what can't be right.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxSeries <= 0 || c.MaxTenants <= 0 {
		errs = append(errs, fmt.Errorf("--%scatalog.max-series=%d, --%[1]smax-tenants=%d: give more than 0", c.prefix, c.MaxSeries, c.MaxTenants))
	}
	if t := time.Duration(c.IdleTimeout); t < 2*tickLength || t > maxIdle {
		errs = append(errs, fmt.Errorf("--%scatalog.idle-timeout=%s: give %s to %s", c.prefix, c.IdleTimeout, 2*tickLength, maxIdle))
	}
	if t := time.Duration(c.ActiveWindow); t < tickLength || t > time.Duration(c.IdleTimeout) {
		errs = append(errs, fmt.Errorf("--%sactive-series-window=%s: give %s to --%[1]scatalog.idle-timeout", c.prefix, c.ActiveWindow, tickLength))
	}
	return errors.Join(errs...)
}

// Elector decides which sender of a pair is taken; an *ha.Tracker.
type Elector interface {
	Take(pair ha.Pair, replica string, rules ha.Rules, now time.Time) ha.Verdict
}

// Intake is the catalogs of all tenants.
type Intake struct {
	cfg     Config
	limits  *tenant.Limits[limits.Limits]
	elect   Elector
	log     *slog.Logger
	metrics *metrics
	crowded func() fmt.Stringer
	now     func() time.Time

	live  atomic.Int64 // entries of all catalogs
	all   atomic.Pointer[[]uint32]
	calls sync.Pool
	rates rates

	mu struct {
		sync.RWMutex
		states map[tenant.ID]*state
	}
}

// Parts are what an Intake works with.
type Parts struct {
	Elect   Elector
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Crowded tells why there is no memory to remember more series; nil while there is memory. nil: there always is.
	Crowded func() fmt.Stringer
}

// New wires an Intake; call Run to let idle series leave.
func New(cfg Config, lim *tenant.Limits[limits.Limits], p Parts) *Intake {
	in := &Intake{cfg: cfg, limits: lim, elect: p.Elect, log: p.Log, crowded: p.Crowded, now: time.Now}
	if in.crowded == nil {
		in.crowded = func() fmt.Stringer { return nil }
	}
	in.metrics = newMetrics(in, p.Metrics)
	p.Metrics.MustRegister(newActiveSeries(in))
	in.calls.New = func() any { return new(call) }
	in.rates.mu.buckets = map[tenant.ID]*bucket{}
	in.mu.states = map[tenant.ID]*state{}
	return in
}

// state is one request's tenant under the limits that it has now.
type state struct {
	lim *limits.Limits
	cat *catalog
}

// stateOf finds or makes what is known of a tenant. Limits that decide otherwise
// about series than those before begin with an empty catalog.
func (in *Intake) stateOf(id tenant.ID) (*state, error) {
	lim := in.limits.Of(id)
	in.mu.RLock()
	s := in.mu.states[id]
	in.mu.RUnlock()
	if s != nil && s.lim == lim {
		return s, nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	s = in.mu.states[id]
	switch {
	case s == nil && len(in.mu.states) >= in.cfg.MaxTenants:
		return nil, refuse.Errorf(refuse.SeriesLimit, id, "tenant %s is new, and there are %d already (--%smax-tenants); raise it", id, in.cfg.MaxTenants, in.cfg.prefix)
	case s != nil && s.lim == lim:
		return s, nil
	case s != nil && s.lim.Verdict() == lim.Verdict():
		s = &state{lim: lim, cat: s.cat}
	default:
		if s != nil {
			in.live.Add(-s.cat.live.Load())
		}
		s = &state{lim: lim, cat: newCatalog(newRules(id, lim, in.cfg.SplitLabel))}
	}
	in.mu.states[id] = s
	return s, nil
}

// numbers is 0, 1, 2, … n-1, shared by all and never written again.
func (in *Intake) numbers(n int) []uint32 {
	if all := in.all.Load(); all != nil && len(*all) >= n {
		return (*all)[:n:n]
	}
	all := make([]uint32, max(1024, 2*n))
	for i := range all {
		all[i] = uint32(i)
	}
	in.all.Store(&all)
	return all[:n:n]
}

// Run lets idle series leave and counts active ones, until ctx is done.
func (in *Intake) Run(ctx context.Context) error {
	tick := time.NewTicker(tickLength)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			in.sweep(in.now())
		}
	}
}
