package main

import (
	"context"

	"github.com/prometheus/common/version"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/query"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newQuery makes the command of these parts:
//
//	HTTP API ─┐
//	gRPC ─────┴► query ──► sidecars, store gateways, queriers
func newQuery() *component {
	var cfg query.Config
	return &component{
		name:  "query",
		short: "Answer PromQL over sidecars, store gateways and other queriers",
		long: `Answer PromQL over sidecars, store gateways and other queriers, by the HTTP API of
Prometheus. It keeps nothing: run as many as you like.`,
		example: `  firnline query --endpoint=dns+sidecar:10901 --endpoint=store:10901 --query.replica-label=replica
  firnline query --endpoint.sd-config-file=endpoints.yml`,
		parts: []configurer{&cfg},
		build: func(_ context.Context, p *process) ([]runner, error) {
			q, err := query.New(cfg, query.Parts{
				Dial: []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
					otelgrpc.WithTracerProvider(p.tracing.Provider), otelgrpc.WithPropagators(p.tracing.Propagator)))},
				Build: query.BuildInfo{Version: version.Version, Revision: version.GetRevision(), Branch: version.Branch,
					BuildUser: version.BuildUser, BuildDate: version.BuildDate, GoVersion: version.GoVersion},
				Flags:  func() map[string]string { return p.flags },
				Config: func() string { return p.config },
			}, p.log, p.reg)
			if err != nil {
				return nil, err
			}
			p.srv.AddCheck("endpoints", q.Ready)
			p.srv.AddReloader("endpoints", func(context.Context) error { return q.Reload() })
			p.srv.Handle("/", q.Handler())
			storeapi.Register(p.srv.GRPC(), q.Services(), p.log)
			return []runner{q}, nil
		},
	}
}
