package main

import (
	"context"
	"flag"
	"os"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

func newExport() *tool {
	var match matchFlags
	var form formatFlag
	var dir string
	bkt := bucketConfig{required: true}
	tmp := oneFlag(func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "tmp.dir", os.TempDir(), "Folder for the blocks of one set of external labels, which it needs room for.")
	})
	return &tool{
		use: "export", short: "Write the raw samples of a bucket as text",
		long: `Write the raw samples of a bucket as text to stdout: of each set of external labels
one after the other, each series once, with the samples of all blocks in order of
time. OpenMetrics can be brought back by firnline tools import openmetrics.`,
		example: `  firnline tools export --objstore.config-file=bucket.yml --match='up{cluster="eu"}' --min-time=-2d > up.om`,
		parts:   []configurer{&match, &form, tmp, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				v, err := r.look(ctx, allBlocks(), b)
				if err != nil {
					return err
				}
				p := r.progress("export")
				e := tools.Export{Bucket: b, Dump: match.dump(form.format, form.external), Dir: dir, Told: p.blocks}
				sum, err := e.Blocks(ctx, r.out, v)
				p.end()
				if err != nil {
					return err
				}
				r.tellDumped(sum)
				return errProblems(len(v.Problems), "broken block")
			})
		},
	}
}

// allBlocks is a look that leaves out nothing.
func allBlocks() *tools.Look {
	var l tools.Look
	l.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	return &l
}
