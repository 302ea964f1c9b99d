package main

import (
	"context"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest"
	"github.com/firnline/firnline/pkg/server"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newIngest makes the command of these parts:
//
//	senders ──► HTTP, gRPC ──► ingest ──► bucket
//	                             ▲ └────► other ingesters, other receivers
//	queriers ──► gRPC ───────────┘
func newIngest() *component {
	var cfg ingest.Config
	var bkt bucketConfig
	return &component{
		base: base{server: server.Config{
			MoreHTTP: []server.MoreAddress{
				{Flag: "remote-write.address", Address: "0.0.0.0:19291", Usage: "host:port where the same HTTP routes answer as on --http-address: the port that remote write has with Thanos. Empty: none."},
				{Flag: "otlp.http-address", Usage: "host:port where the same HTTP routes answer too, for OTLP senders that expect 4318. Empty: none."},
			},
			MoreGRPC: []server.MoreAddress{
				{Flag: "otlp.grpc-address", Services: []string{ingest.OTLPService}, Usage: "host:port where OTLP is taken over gRPC as on --grpc-address, and nothing else is, for senders that expect 4317. Empty: none."},
			},
		}},
		name:  "ingest",
		short: "Take metrics by remote write and OTLP, replicate them, ship them as blocks",
		long: `Take metrics by remote write and OTLP from those who push, replicate them over a
ring of nodes that find each other by gossip, answer queries from them, and ship
them as blocks to a bucket. Without a bucket nothing is shipped and local blocks
go when --tsdb.retention is over.

What was answered with 2xx is in the write-ahead log of as many nodes as the
quorum asks for. One node alone is a ring of one.`,
		example: `  firnline ingest --tsdb.path=/var/lib/firnline --label='ingest="eu1"' --objstore.config-file=bucket.yml
  firnline ingest --ring.join=dns+ingest:7946 --ring.zone=a ...`,
		parts: []configurer{&cfg, &bkt},
		build: func(ctx context.Context, p *process) ([]runner, error) {
			lessGarbage() // a little CPU for memory: most of what it holds stays
			var parts []runner
			var to block.Bucket // nil: ship nothing
			if bkt.Given() {
				b, err := bkt.open(ctx, p)
				if err != nil {
					return nil, err
				}
				to, parts = b, append(parts, newBucketCheck(b, p, true))
			}
			in, err := ingest.New(cfg, ingest.Parts{
				Bucket: to, Address: p.srv.GRPCAddr().String(), Log: p.log, Metrics: p.reg,
				Dial: p.dialOptions(), MaxMessage: p.srv.MaxMessage(),
			})
			if err != nil {
				return nil, err
			}
			p.addChecks(in.Checks())
			p.beforeStop = in.Leave
			p.srv.AddReloader("ingest limits and forwarding rules", in.Reload)
			p.srv.Handle("/", in.Handler())
			storeapi.Register(in.ForPeers(p.srv.GRPC()), in.Services(), p.log)
			in.Register(p.srv.GRPC())
			return append(parts, in), p.landing(ingestRoutes()...)
		},
	}
}

// ingestRoutes are what the page of a process that ingests tells of.
func ingestRoutes() []server.Route {
	return []server.Route{
		{Path: "POST /api/v1/write", About: "remote write, 1.0 and 2.0"},
		{Path: "POST /api/v1/otlp/v1/metrics", About: "OTLP metrics"},
		{Path: "/api/v1/ingest/ring", About: "the ring's members, and how well they are"},
		{Path: "/api/v1/ingest/endpoints", About: "the same for service discovery by HTTP"},
		{Path: "/api/v1/ingest/ha?all_tenants=true", About: "replicas of which one is taken"},
		{Path: "/api/v1/ingest/forward?all_tenants=true", About: "forwarding to other receivers"},
		{Path: "/api/v1/ingest/tenants?all_tenants=true", About: "who sends how much"},
		{Path: "/api/v1/status/tsdb?all_tenants=true", About: "statistics of the series that are in memory"},
	}
}
