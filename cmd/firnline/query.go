package main

import (
	"context"

	"github.com/prometheus/common/version"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/query"
	"github.com/firnline/firnline/pkg/server"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newQuery makes the command of these parts:
//
//	HTTP API ─┐
//	gRPC ─────┴► query ──► sidecars, store gateways, queriers
//	               ▲
//	     bucket ───┘ delete requests, where a bucket is given
func newQuery() *component {
	var (
		cfg     query.Config
		bkt     bucketConfig
		deletes block.DeleteWatchConfig
	)
	return &component{
		name:  "query",
		short: "Answer PromQL over sidecars, store gateways and other queriers",
		long: `Answer PromQL over sidecars, store gateways and other queriers, by the HTTP API of
Prometheus. It keeps nothing: run as many as you like.

With a bucket it knows the requests to delete series, and hides their samples in what
sidecars and other stores answer. Blocks are not read from it.`,
		example: `  firnline query --endpoint=dns+sidecar:10901 --endpoint=store:10901 --query.replica-label=replica
  firnline query --endpoint.sd-config-file=endpoints.yml`,
		parts: []configurer{&cfg, &bkt, &deletes},
		build: func(ctx context.Context, p *process) ([]runner, error) {
			hider, parts, err := watchDeletes(ctx, p, &bkt, deletes)
			if err != nil {
				return nil, err
			}
			q, err := query.New(cfg, queryParts(p, hider), p.log, p.reg)
			if err != nil {
				return nil, err
			}
			p.srv.AddCheck("endpoints", q.Ready)
			p.srv.AddReloader("endpoints", func(context.Context) error { return q.Reload() })
			p.srv.Handle("/", q.Handler())
			storeapi.Register(p.srv.GRPC(), q.Services(), p.log)
			return append(parts, q), nil
		},
	}
}

// queryRoutes are what the page of a process that answers queries, among other things, tells of.
func queryRoutes() []server.Route {
	return []server.Route{
		{Path: "/api/v1/query?query=up", About: "PromQL, by the HTTP API of Prometheus: give this server's address to Grafana as a Prometheus data source"},
		{Path: "/api/v1/labels", About: "names of labels"},
		{Path: "/api/v1/metadata", About: "types and help of metrics"},
		{Path: "/api/v1/stores", About: "who is asked, and what each holds"},
		{Path: "/api/v1/status/flags", About: "flags in force"},
	}
}

// queryParts are what a querier is given by a process.
func queryParts(p *process, hider func() *block.Hider) query.Parts {
	return query.Parts{
		Dial: p.dialOptions(),
		Build: query.BuildInfo{Version: version.Version, Revision: version.GetRevision(), Branch: version.Branch,
			BuildUser: version.BuildUser, BuildDate: version.BuildDate, GoVersion: version.GoVersion},
		Flags:  func() map[string]string { return p.flags },
		Config: func() string { return p.config },
		Hider:  hider,
	}
}

// watchDeletes keeps up with the delete requests of a bucket. Without a bucket
// there is nothing to hide and nothing to run.
func watchDeletes(ctx context.Context, p *process, c *bucketConfig, cfg block.DeleteWatchConfig) (func() *block.Hider, []runner, error) {
	if !c.Given() {
		return nil, nil, nil
	}
	b, err := c.open(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	check, watcher := newBucketCheck(b, p, false), block.NewDeleteWatcher(cfg, b, p.log, p.reg)
	p.srv.AddCheck("bucket", check.check)
	p.srv.AddCheck("deletes", watcher.Ready)
	return watcher.Hider, []runner{check, watcher}, nil
}
