package main

import (
	"context"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/sidecar"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newSidecar makes the command of these parts:
//
//	prometheus ◄── sidecar ──► gRPC
//	TSDB folder ──► sidecar ──► bucket
func newSidecar() *component {
	var cfg sidecar.Config
	var bkt bucketConfig
	return &component{
		name:  "sidecar",
		short: "Stand beside a Prometheus: ship its blocks, answer queries from it",
		long: `Stand beside a Prometheus: ship its blocks to a bucket, answer queries from its
live data, and reload its configuration when that changes. Without a bucket
nothing is shipped.

Prometheus needs external labels that nobody else has, such as cluster and
replica. Its local compaction may stay on if it is started with
--storage.tsdb.delay-compact-file.path=<its data folder>/thanos.shipper.json.`,
		example: `  firnline sidecar --prometheus.url=http://localhost:9090 --tsdb.path=/prometheus \
    --objstore.config-file=bucket.yml`,
		parts: []configurer{&cfg, &bkt},
		build: func(ctx context.Context, p *process) ([]runner, error) {
			var parts []runner
			var to block.Bucket // nil: ship nothing
			if bkt.Given() {
				b, err := bkt.open(ctx, p)
				if err != nil {
					return nil, err
				}
				to, parts = b, append(parts, newBucketCheck(b, p, true))
			}
			s, err := sidecar.New(cfg, to, p.log, p.reg)
			if err != nil {
				return nil, err
			}
			p.addChecks(s.Checks())
			storeapi.Register(p.srv.GRPC(), s.Services(), p.log)
			return append(parts, s), p.landing()
		},
	}
}
