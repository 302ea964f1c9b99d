package main

import (
	"context"

	"github.com/firnline/firnline/pkg/store"
	"github.com/firnline/firnline/pkg/storeapi"
)

// newStore makes the command of these parts:
//
//	bucket ──► store ──► gRPC
func newStore() *component {
	var cfg store.Config
	bkt := bucketConfig{required: true}
	return &component{
		name:  "store",
		short: "Answer queries from the blocks in a bucket",
		long: `Answer queries from the blocks in a bucket. Of each block a small header is kept in
--data-dir; all of that folder can be made again from the bucket.`,
		example: `  firnline store --data-dir=/var/lib/firnline --objstore.config-file=bucket.yml
  firnline store --min-time=-6w ...   # leave older blocks to other gateways`,
		parts: []configurer{&cfg, &bkt},
		build: func(ctx context.Context, p *process) ([]runner, error) {
			b, err := bkt.open(ctx, p)
			if err != nil {
				return nil, err
			}
			s, err := store.New(cfg, b, p.log, p.reg)
			if err != nil {
				return nil, err
			}
			check := newBucketCheck(b, p, false)
			p.srv.AddCheck("bucket", check.check)
			p.srv.AddCheck("store", s.Ready)
			storeapi.Register(p.srv.GRPC(), s.Services(), p.log)
			return []runner{check, s}, p.landing()
		},
	}
}
