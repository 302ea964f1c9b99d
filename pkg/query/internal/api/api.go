// Package api is the HTTP API of the querier: that of Prometheus 3, in shape,
// error types and status codes, with the parameters that Thanos adds.
//
// Each request runs through: CORS and its route (route.go), metrics and compression (API.wrap),
// a handler that returns an answer or a problem (query.go, labels.go, rules.go, …),
// and the encoder, which streams the answer as JSON (encode.go). Only here do errors
// become status codes (problem.go).
//
// An API is safe for concurrent use and holds nothing that a restart would lose.
package api

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Parts are what an API is made of. Engine and Data are needed; a nil source
// answers with an empty list.
type Parts struct {
	Engine        engine.Engine
	Data          querier.Factory
	ReplicaLabels []string // those of requests that name none

	Rules     storeapi.RulesSource
	Targets   storeapi.TargetsSource
	Metadata  storeapi.MetadataSource
	Exemplars storeapi.ExemplarsSource
	TSDB      storeapi.StatusSource

	// Stores lists the endpoints by component.
	Stores func() map[string][]StoreStatus
	Status Status
}

// API answers HTTP requests. It is an http.Handler.
type API struct {
	cfg     Config
	parts   Parts
	parser  parser.Parser
	log     *slog.Logger
	metrics *metrics
	handler http.Handler
	now     func() time.Time
	started time.Time
}

// New makes an API. It starts nothing.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) *API {
	a := &API{
		cfg:     cfg,
		parts:   parts,
		parser:  parts.Engine.Parser(),
		log:     log,
		metrics: newMetrics(reg),
		now:     time.Now,
	}
	a.started = a.now()
	a.handler = a.routes(newReadHandler(cfg, parts.Data, parts.ReplicaLabels, log, reg))
	return a
}

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// handlerFunc answers a request whose form has been parsed. The error is a *problem or, of the
// engine and of stores, one that problemOf knows.
type handlerFunc func(r *http.Request) (answer, error)

// wrap puts what all routes share around a handler.
func (a *API) wrap(route string, h handlerFunc) http.Handler {
	return a.metrics.instrument(route, compressed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, int64(a.cfg.MaxRequestBytes))
		if err := parseForm(r, a.cfg.MaxRequestBytes); err != nil {
			a.refuse(w, r, err)
			return
		}
		ans, err := h(r)
		if ans.close != nil {
			defer ans.close()
		}
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		a.respond(w, r, ans)
	})))
}

// compressed compresses answers of a kilobyte or more by gzip or, for clients that take
// nothing else, zstd: Grafana's resource proxy says that it takes both, and can't read zstd.
func compressed(h http.Handler) http.Handler {
	wrapper, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.EnableZstd(true), gzhttp.PreferZstd(false))
	if err != nil {
		panic(err) // the options above are constants
	}
	return wrapper(h)
}
