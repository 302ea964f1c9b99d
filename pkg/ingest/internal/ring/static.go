package ring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Static is the ring of a hashring file. It knows nothing of who is alive.
type Static struct {
	cfg StaticConfig
	rf  int

	loaded  atomic.Pointer[hashrings]
	watch   *content.Watch
	nodes   prometheus.Gauge
	reloads prometheus.Counter
}

var _ Ring = (*Static)(nil)

// hashrings are the rings of one reading.
type hashrings struct {
	rings []staticRing
	local string
	views viewCache // of tenants with shards
}

type staticRing struct {
	hashring
	rf    int
	whole *View
}

// NewStatic reads the hashrings. A mistake in them is an error.
func NewStatic(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Static, error) {
	s := &Static{
		cfg: cfg.Static, rf: cfg.ReplicationFactor,
		nodes:   promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: "firnline_ring_hashrings_endpoints", Help: "Endpoints of all hashrings."}),
		reloads: promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "firnline_ring_hashrings_reloads_total", Help: "Changes of the hashring file that were taken over."}),
	}
	var err error
	s.watch, err = content.NewWatch(content.Watched{
		Flag: "receive.hashrings", Text: s.cfg.Hashrings, File: s.cfg.HashringsFile, Interval: time.Duration(s.cfg.Refresh),
		What: "hashrings", Metrics: "ring_hashrings", Use: s.use,
	}, log, reg)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows the file until ctx is done.
func (s *Static) Run(ctx context.Context) error { return s.watch.Run(ctx) }

// Reload reads the file now.
func (s *Static) Reload() error { return s.watch.Reload() }

func (s *Static) use(text []byte, source string) error {
	next, err := s.build(text)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if s.loaded.Swap(next) != nil {
		s.reloads.Inc()
	}
	n := 0
	for _, r := range next.rings {
		n += len(r.Endpoints)
	}
	s.nodes.Set(float64(n))
	return nil
}

func (s *Static) build(text []byte) (*hashrings, error) {
	parsed, err := parseHashrings(text, s.cfg.Algorithm)
	if err != nil {
		return nil, err
	}
	h := &hashrings{local: s.cfg.LocalEndpoint}
	for i := range parsed {
		r := staticRing{hashring: parsed[i], rf: s.rf}
		if err := r.build(s.cfg.LocalEndpoint); err != nil {
			return nil, fmt.Errorf("hashring %d (%q): %w", i, r.Name, err)
		}
		h.rings = append(h.rings, r)
	}
	return h, nil
}

// build makes the View of the whole ring, and one of each size of shard to see that it can be made.
func (r *staticRing) build(local string) error {
	if r.rf == 0 {
		r.rf = min(maxAutomatic, len(r.Endpoints))
	}
	if r.rf > len(r.Endpoints) {
		return fmt.Errorf("%d endpoints are too few for replication factor %d", len(r.Endpoints), r.rf)
	}
	if len(r.Endpoints) > math.MaxUint16 {
		return fmt.Errorf("%d endpoints are too many", len(r.Endpoints))
	}
	slices.SortFunc(r.Endpoints, func(a, b endpoint) int { return strings.Compare(a.Address, b.Address) })
	var err error
	if r.whole, err = r.viewOf(r.Endpoints, local); err != nil || r.Shards.Size == 0 {
		return err
	}
	var errs []error
	_, err = r.shardView("any", r.Shards.Size, local)
	errs = append(errs, err)
	for _, o := range r.Shards.Overrides {
		_, err := r.shardView("any", o.Size, local)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *staticRing) viewOf(endpoints []endpoint, local string) (*View, error) {
	instances := make([]Instance, len(endpoints))
	for i, e := range endpoints {
		instances[i] = Instance{ID: e.Address, Addr: e.Address, Zone: e.Zone, Local: e.Address == local}
	}
	if r.Algorithm == hashmod {
		return hashmodView(instances, r.rf), nil
	}
	return ketamaView(endpoints, instances, r.rf)
}

func (r *staticRing) shardView(id tenant.ID, size int, local string) (*View, error) {
	endpoints, err := ketamaShard(&r.hashring, id, size)
	if err != nil {
		return nil, err
	}
	if len(endpoints) < r.rf {
		return nil, fmt.Errorf("shard of %d endpoints for tenant %s is too small for replication factor %d", size, id, r.rf)
	}
	return r.viewOf(endpoints, local)
}

// find returns the hashring of a tenant: the first that takes it.
func (h *hashrings) find(id tenant.ID) *staticRing {
	for i := range h.rings {
		if h.rings[i].takes(id) {
			return &h.rings[i]
		}
	}
	return nil
}

// View implements Ring.
func (s *Static) View(id tenant.ID) (*View, error) {
	h := s.loaded.Load()
	r := h.find(id)
	if r == nil {
		return nil, refuse.Errorf(refuse.UnknownTenant, id, "no hashring is for tenant %s", id)
	}
	size := r.shardSize(id)
	if size == 0 {
		return r.whole, nil
	}
	return h.views.get(viewKey{id, size}, func() (*View, error) {
		v, err := r.shardView(id, size, h.local)
		if err != nil {
			return nil, refuse.Errorf(refuse.NotReady, id, "%v", err)
		}
		return v, nil
	})
}

// ExternalLabels returns the labels that the tenant's hashring gives its blocks.
func (s *Static) ExternalLabels(id tenant.ID) labels.Labels {
	if r := s.loaded.Load().find(id); r != nil {
		return r.ExternalLabels
	}
	return labels.EmptyLabels()
}

// Instances returns the nodes of all hashrings.
func (s *Static) Instances() []Instance {
	seen := map[string]bool{}
	var all []Instance
	for _, r := range s.loaded.Load().rings {
		for _, i := range r.whole.instances {
			if !seen[i.ID] {
				seen[i.ID] = true
				all = append(all, i)
			}
		}
	}
	return all
}
