package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// secondBucket is the bucket that is written to beside the one that is read.
type secondBucket struct{ bucketConfig }

// RegisterFlags implements configurer.
func (c *secondBucket) RegisterFlags(fs *flag.FlagSet) {
	c.bucketConfig.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError)) // the defaults
	fs.StringVar(&c.Objstore, "objstore-to.config", "", "The bucket that blocks are copied to, as Thanos' objstore YAML.")
	fs.StringVar(&c.ObjstoreFile, "objstore-to.config-file", "", "Path of a file with that YAML.")
}

// Validate implements configurer.
func (c *secondBucket) Validate() error {
	if err := c.bucketConfig.Validate(); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "--objstore.", "--objstore-to."))
	}
	return nil
}

// replicateFlags say which blocks are copied.
type replicateFlags struct {
	tools.Replication
	single bool
}

// RegisterFlags implements configurer.
func (f *replicateFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Func("resolution", "Only blocks of this resolution: raw (or 0s), 5m or 1h. Repeatable. Default: all.", func(s string) error {
		if s == "raw" {
			s = "0s"
		}
		d, err := model.ParseDuration(s)
		f.Resolutions = append(f.Resolutions, time.Duration(d).Milliseconds())
		return err
	})
	fs.IntVar(&f.MinLevel, "compaction-min", 1, "Only blocks of at least this level of compaction.")
	fs.IntVar(&f.MaxLevel, "compaction-max", 0, "Only blocks of at most this level; 0: no bound.")
	fs.BoolVar(&f.SkipMarked, "ignore-marked-for-deletion", false, "Leave out blocks that are marked for deletion.")
	fs.IntVar(&f.Concurrency, "concurrency", 4, "Blocks copied at once.")
	fs.BoolVar(&f.single, "single-run", true, "One run, as always here: run it again, from a timer, to go on.")
}

// Validate implements configurer.
func (f *replicateFlags) Validate() error {
	var errs []error
	if f.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("--concurrency=%d: give 1 or more", f.Concurrency))
	}
	if f.MaxLevel != 0 && f.MaxLevel < f.MinLevel {
		errs = append(errs, fmt.Errorf("--compaction-min=%d is above --compaction-max=%d", f.MinLevel, f.MaxLevel))
	}
	if !f.single {
		errs = append(errs, errors.New("--no-single-run: this makes one run and ends; run it from a timer to go on"))
	}
	return errors.Join(errs...)
}

func newBucketReplicate() *tool {
	var what replicateFlags
	var look tools.Look
	var to secondBucket
	out := outputConfig{list: true}
	from := bucketConfig{required: true}
	to.required = true
	return &tool{
		use: "replicate", short: "Copy blocks to a second bucket",
		long: `Copy blocks to a second bucket, the oldest data first: what is there already is
skipped, what was cut off is gone on with, and a block becomes visible there only when
it is whole and was read back. Marks are not copied. No compactor may work on the
second bucket while copies still come: it would make blocks of what is there, and the
same data would come again.`,
		example: `  firnline tools bucket replicate --objstore.config-file=bucket.yml --objstore-to.config-file=backup.yml --selector='cluster="eu"' --resolution=raw`,
		parts:   []configurer{&what, &look, &out, &from, &to},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &from, func(b *bucket.Handle) error {
				second, err := r.openSecond(ctx, &to)
				if err != nil {
					return err
				}
				defer second.Close()
				v, err := r.look(ctx, &look, b)
				if err != nil {
					return err
				}
				p := r.progress("replicate")
				what.From, what.To, what.Log, what.Told = b, second, r.log, p.blocks
				sent, err := what.Blocks(ctx, v)
				p.end()
				return errors.Join(r.tellSent(sent, &out), explained(second, err))
			})
		},
	}
}

// openSecond opens a second bucket, whose metrics nobody asks for.
func (r *toolRun) openSecond(ctx context.Context, c *secondBucket) (*bucket.Handle, error) {
	return bucket.Open(ctx, c.Config, bucket.Parts{Log: r.log})
}
