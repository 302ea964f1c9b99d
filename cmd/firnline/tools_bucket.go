package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// bucketTools are the verbs of firnline tools bucket.
func bucketTools() toolGroup {
	return toolGroup{name: "bucket", short: "Work on the blocks of a bucket", tools: []*tool{
		newBucketList(), newBucketInspect(), newBucketStats(), newBucketVerify(), newBucketSelfTest(),
		newBucketMark(), newBucketUnmark(), newBucketCleanup(), newMergeShards(),
		newBucketUpload(), newBucketReplicate(), newBucketRewrite(),
	}}
}

// withBucket opens a bucket for do, whose error it words for an operator.
func (r *toolRun) withBucket(ctx context.Context, c *bucketConfig, do func(b *bucket.Handle) error) (err error) {
	b, err := r.open(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return explained(b, do(b))
}

// bytesConfig is whether sizes are shown to the byte.
type bytesConfig struct{ exact bool }

// RegisterFlags implements configurer.
func (c *bytesConfig) RegisterFlags(fs *flag.FlagSet) {
	fs.BoolVar(&c.exact, "bytes", false, "Show sizes to the byte.")
}

// Validate implements configurer.
func (*bytesConfig) Validate() error { return nil }

func (c *bytesConfig) size(n int64) string {
	if c.exact {
		return strconv.FormatInt(n, 10)
	}
	return humanBytes(n)
}

// humanBytes writes a size with three digits or four.
func humanBytes(n int64) string {
	f, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for f >= 1024 && unit < len(units)-1 {
		f /= 1024
		unit++
	}
	if unit == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[unit])
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}

// humanCount writes a number with a unit of thousands.
func humanCount(n uint64) string {
	f, unit := float64(n), 0
	units := []string{"", "k", "M", "G", "T", "P"}
	for f >= 1000 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	if unit == 0 || f >= 100 {
		return fmt.Sprintf("%.0f%s", f, units[unit])
	}
	return fmt.Sprintf("%.1f%s", f, units[unit])
}

func shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// blockTable shows blocks, a line each.
func blockTable(rows []tools.Row, size *bytesConfig) *table {
	t := &table{columns: columnsOf("ulid", "from", "range", "resolution", "level", "series", "samples", "size", "state", "labels",
		"+until", "+chunks", "+sources", "+shard", "+source", "+uploaded", "+marks", "+problem")}
	for _, r := range rows {
		if r.State == tools.StateBroken || r.State == tools.StatePartial {
			t.add(r.ULID.String(), "", "", "", "", "", "", "", r.State, "", "", "", "", "", "", shortTime(r.Uploaded), strings.Join(r.Marks, " "), r.Problem)
			continue
		}
		t.add(r.ULID.String(), shortTime(r.MinTime), model.Duration(r.Range()).String(), r.Resolution, strconv.Itoa(r.Level),
			size.count(r.Series), size.count(r.Samples), size.size(r.Bytes), r.State, r.Labels.String(),
			shortTime(r.MaxTime), size.count(r.Chunks), strconv.Itoa(r.Sources), r.Shard, r.Source, shortTime(r.Uploaded), strings.Join(r.Marks, " "), r.Problem)
	}
	return t
}

func (c *bytesConfig) count(n uint64) string {
	if c.exact {
		return strconv.FormatUint(n, 10)
	}
	return humanCount(n)
}

// look finds the blocks a tool is to work on and says on what grounds.
func (r *toolRun) look(ctx context.Context, look *tools.Look, b block.Bucket) (block.View, error) {
	v, err := look.In(ctx, b, r.log)
	if err != nil {
		return v, err
	}
	if len(v.Metas)+len(v.Problems)+len(v.Partial) == 0 {
		fmt.Fprintln(r.talk, "No blocks: the bucket has none, or none that was asked for.")
	}
	return v, nil
}

// errProblems ends a tool that has printed what is wrong.
func errProblems(n int, what string) error {
	if n == 0 {
		return nil
	}
	return errors.New(counted(n, what))
}

func newBucketList() *tool {
	out := outputConfig{list: true}
	var size bytesConfig
	var look tools.Look
	var noMarked bool
	bkt := bucketConfig{required: true}
	marked := oneFlag(func(fs *flag.FlagSet) {
		fs.BoolVar(&noMarked, "exclude-delete", false, "Leave out blocks that are marked for deletion.")
	})
	return &tool{
		use: "ls", aliases: []string{"list"}, short: "List the blocks of a bucket",
		long: `List the blocks of a bucket, the oldest data first; then what is there and can't be
used: broken blocks, and partial ones, whose upload goes on or was cut off. It
reads the bucket's manifest, one object, or where that can't be used lists the
bucket. Exit code 1 says that there are broken blocks.`,
		example: `  firnline tools bucket ls --objstore.config-file=bucket.yml
  firnline tools bucket ls --objstore.config-file=bucket.yml -o json | jq '.[].ulid'
  firnline tools bucket ls --objstore.config-file=bucket.yml -o template='{{.ULID}} {{.Bytes}}' --min-time=-2w`,
		parts: []configurer{&look, marked, &size, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				v, err := r.look(ctx, &look, b)
				if err != nil {
					return err
				}
				if noMarked {
					for id := range v.Metas {
						if v.Marks[id].Deletion != nil {
							delete(v.Metas, id)
						}
					}
				}
				rows := tools.Rows(v)
				if err := out.printTable(r.out, rows, blockTable(rows, &size)); err != nil {
					return err
				}
				return errProblems(len(v.Problems), "broken block")
			})
		},
	}
}

func newBucketInspect() *tool {
	out := outputConfig{list: true}
	var size bytesConfig
	var look tools.Look
	var sortBy []string
	bkt := bucketConfig{required: true}
	sorting := oneFlag(func(fs *flag.FlagSet) {
		fs.Func("sort-by", "Column to sort by, such as size. Repeatable: the first counts first. Default: from, until.", func(s string) error {
			sortBy = append(sortBy, s)
			return tools.SortBy(nil, []string{s})
		})
	})
	return &tool{
		use: "inspect", short: "Show all that is known of the blocks of a bucket, sorted",
		long: `Show all that is known of the blocks of a bucket, sorted by any column: labels,
times, resolution, level, series, samples, chunks, size, who wrote them, and marks.`,
		example: `  firnline tools bucket inspect --objstore.config-file=bucket.yml --sort-by=size
  firnline tools bucket inspect --objstore.config-file=bucket.yml --selector='cluster="eu"' -o csv`,
		parts: []configurer{&look, sorting, &size, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				v, err := r.look(ctx, &look, b)
				if err != nil {
					return err
				}
				rows := tools.Rows(v)
				if err := tools.SortBy(rows, sortBy); err != nil {
					return usageError{err}
				}
				t := blockTable(rows, &size)
				for i := range t.columns {
					t.columns[i].rare = false
				}
				if err := out.printTable(r.out, rows, t); err != nil {
					return err
				}
				return errProblems(len(v.Problems), "broken block")
			})
		},
	}
}

func newBucketStats() *tool {
	var out outputConfig
	var size bytesConfig
	var look tools.Look
	bkt := bucketConfig{required: true}
	return &tool{
		use: "stats", short: "Sum up what a bucket holds",
		long: `Sum up what a bucket holds, by external labels and resolution. SERIES is that of
the block that has most. What the answer cost in requests is told on stderr.`,
		example: `  firnline tools bucket stats --objstore.config-file=bucket.yml`,
		parts:   []configurer{&look, &size, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				v, err := r.look(ctx, &look, b)
				if err != nil {
					return err
				}
				s := tools.Stats(tools.Rows(v))
				if err := out.print(r.out, s, func(w io.Writer) error { return statsTable(s, &size).write(w, true) }); err != nil {
					return err
				}
				from := "a listing of the bucket"
				if v.FromManifest {
					from = "the bucket's manifest"
				}
				fmt.Fprintf(r.talk, "%s, %s, %d marked for deletion, %d partial, %d broken; from %s, by %s.\n",
					counted(s.Blocks, "block"), size.size(s.Bytes), s.Marked, s.Partial, s.Broken, from, counted(r.requests(), "request"))
				return errProblems(len(v.Problems), "broken block")
			})
		},
	}
}

func statsTable(s tools.BucketStats, size *bytesConfig) *table {
	t := &table{columns: columnsOf("resolution", "blocks", "marked", "series", "samples", "size", "oldest", "newest", "labels")}
	for _, g := range s.Groups {
		t.add(g.Resolution, strconv.Itoa(g.Blocks), strconv.Itoa(g.Marked), size.count(g.Series), size.count(g.Samples), size.size(g.Bytes),
			shortTime(g.Oldest), shortTime(g.Newest), g.Labels.String())
	}
	return t
}

// requests is how many the process has made of its buckets.
func (r *toolRun) requests() int {
	families, err := r.reg.Gather()
	if err != nil {
		return 0
	}
	n := 0
	for _, f := range families {
		if f.GetName() == "firnline_objstore_bucket_operations_total" {
			for _, m := range f.GetMetric() {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

// oneFlag is a part of the configuration that is no more than its flags.
type oneFlag func(fs *flag.FlagSet)

// RegisterFlags implements configurer.
func (f oneFlag) RegisterFlags(fs *flag.FlagSet) { f(fs) }

// Validate implements configurer.
func (oneFlag) Validate() error { return nil }
