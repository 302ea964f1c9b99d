package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

func newBucketCleanup() *tool {
	var cfg compact.Config
	var sure confirmConfig
	out := outputConfig{list: true}
	bkt := bucketConfig{required: true}
	return &tool{
		use: "cleanup", short: "Remove blocks marked long ago, and uploads left half done",
		long: `Remove what a compactor's cleaning would: blocks marked for deletion longer ago than
--delete-delay, and partial ones that have been left alone for 48 hours. First it
shows which, then it asks, or goes on with --yes. It takes the same care as a
compactor, and may run beside one.`,
		example: `  firnline tools bucket cleanup --objstore.config-file=bucket.yml --dry-run
  firnline tools bucket cleanup --objstore.config-file=bucket.yml --data-dir=/tmp/cleanup --yes`,
		parts: []configurer{&sure, &cfg, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				parts := compact.Parts{Bucket: b, Log: r.log, Metrics: r.reg}
				list, err := toRemove(ctx, cfg, parts)
				if err != nil {
					return err
				}
				t := &table{columns: columnsOf("block", "why")}
				for _, e := range list {
					t.add(e.Block, e.Why)
				}
				if err := out.printTable(r.out, list, t); err != nil {
					return err
				}
				if len(list) == 0 {
					fmt.Fprintln(r.talk, "Nothing is to be removed.")
					return nil
				}
				if ok, err := sure.allows(r, "Remove "+counted(len(list), "block")); !ok {
					return err
				}
				return cleanUp(ctx, cfg, parts)
			})
		},
	}
}

// removable is a block that would be removed.
type removable struct {
	Block string `json:"block"`
	Why   string `json:"why"`
}

// toRemove is what a compactor would remove now; nothing is written.
func toRemove(ctx context.Context, cfg compact.Config, parts compact.Parts) ([]removable, error) {
	parts.Metrics = nil
	p, err := compact.Plan(ctx, cfg, parts)
	if err != nil {
		return nil, err
	}
	out := []removable{}
	for _, id := range p.Remove {
		out = append(out, removable{id, "marked for deletion for longer than --delete-delay"})
	}
	for _, id := range p.Partial {
		out = append(out, removable{id, "partial, and left alone for 48 hours"})
	}
	return out, nil
}

func cleanUp(ctx context.Context, cfg compact.Config, parts compact.Parts) (err error) {
	c, err := compact.New(cfg, parts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return c.CleanUp(ctx)
}
