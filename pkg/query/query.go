// Package query answers PromQL over all stores: it finds endpoints, fans out to
// them, makes one series of replicas, evaluates, and serves the HTTP API of
// Prometheus. It is a storeapi.Store itself, so that queriers stack.
//
//	HTTP API ─► engine ─► querier (dedup) ─► fan-out ─► endpoints
//	                                            ▲
//	            gRPC, from queriers above ──────┘
package query

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/query/internal/api"
	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/fanout"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// BuildInfo says what the binary was built from.
type BuildInfo = api.BuildInfo

// Local is an endpoint in this process, which is called without a connection.
type Local = endpoint.Local

// Parts are what the querier is given beside its configuration. All may be zero.
type Parts struct {
	Local  []Local                  // endpoints beside the configured ones
	Dial   []grpc.DialOption        // of connections to endpoints: tracing, the request's id and tenant
	Build  BuildInfo                // shown by status/buildinfo
	Flags  func() map[string]string // shown by status/flags, secrets masked
	Config func() string            // shown by status/config as YAML, without secrets
	Hider  func() *block.Hider      // samples that are not to be shown, as of now
}

// Query is the querier. It is safe for concurrent use.
type Query struct {
	log       *slog.Logger
	endpoints *endpoint.Set
	engine    *engine.Prometheus
	services  storeapi.Services
	api       *api.API
}

// New wires a querier of a valid configuration and starts nothing; call Run.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Query, error) {
	selector, err := cfg.selector()
	if err != nil {
		return nil, err
	}
	endpoints, err := endpoint.New(cfg.Endpoints, parts.Local, log, reg, parts.Dial...)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	eng, err := engine.New(cfg.Engine, log, reg)
	if err != nil {
		return nil, fmt.Errorf("query engine: %w", err)
	}
	fan := fanout.New(cfg.Fanout, endpoints, selector, eng.Parser(), reg)
	shown := func(s storeapi.Store) storeapi.Store {
		if parts.Hider == nil {
			return s
		}
		return hiding{s, parts.Hider}
	}
	data := querier.New(cfg.Select, func(sets [][]*labels.Matcher) storeapi.Store { return shown(fan.Only(sets)) }, reg)
	q := &Query{log: log, endpoints: endpoints, engine: eng, services: fan.Services()}
	q.services.Store = shown(fan)
	q.services.Query = engine.NewSource(eng, data, cfg.ReplicaLabels)
	once := fan.Replicas(cfg.ReplicaLabels)
	q.api = api.New(cfg.API, api.Parts{
		Engine: eng, Data: data, ReplicaLabels: cfg.ReplicaLabels,
		Rules: once, Targets: once, Metadata: fan, Exemplars: once, TSDB: fan,
		Stores: q.stores,
		Status: api.Status{Build: parts.Build, Flags: parts.Flags, Config: parts.Config, Reload: endpoints.LastReload},
	}, log, reg)
	return q, nil
}

// Run keeps up with the endpoints until ctx is done. Queries must have ended by
// then; no goroutine of Run's outlives it.
func (q *Query) Run(ctx context.Context) error {
	err := q.endpoints.Run(ctx)
	if closeErr := q.engine.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Services are what the querier answers over gRPC. Store tells Info.
func (q *Query) Services() storeapi.Services { return q.services }

// Handler is the HTTP API.
func (q *Query) Handler() http.Handler { return q.api }

// Ready returns nil once the first health check of all endpoints has ended.
func (q *Query) Ready() error { return q.endpoints.Ready() }

// Reload reads the endpoint configuration file again. A bad one changes nothing.
func (q *Query) Reload() error { return q.endpoints.Reload() }

// stores lists the endpoints by component, as /api/v1/stores shows them.
func (q *Query) stores() map[string][]api.StoreStatus {
	list := map[string][]api.StoreStatus{}
	for _, e := range q.endpoints.Endpoints() {
		st := api.StoreStatus{Name: e.Name, LastCheck: e.LastCheck, LabelSets: e.LabelSets, MinTime: e.MinTime, MaxTime: e.MaxTime}
		if e.LastError != "" {
			st.LastError = &e.LastError
		}
		list[e.Component] = append(list[e.Component], st)
	}
	return list
}
