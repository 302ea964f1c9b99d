package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/firnline/firnline/pkg/compact"
)

// compactTools are the verbs of firnline tools compact.
func compactTools() toolGroup {
	return toolGroup{name: "compact", short: "What a compactor would do", tools: []*tool{newCompactPlan()}}
}

func newCompactPlan() *tool {
	var cfg compact.Config
	var out outputConfig
	bkt := bucketConfig{required: true}
	return &tool{
		use: "plan", short: "Print what a compactor would do, and why",
		long: `Print what a compactor with these flags would do with a bucket, and why: jobs,
blocks to be marked and removed, what is held, set aside or resting. Nothing is
written.`,
		example: `  firnline tools compact plan --objstore.config-file=bucket.yml --retention.resolution-raw=30d`,
		parts:   []configurer{&cfg, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			b, err := r.open(ctx, &bkt)
			if err != nil {
				return err
			}
			made, err := compact.Plan(ctx, cfg, compact.Parts{Bucket: b, Log: r.log, Metrics: r.reg})
			if err != nil {
				return explained(b, err)
			}
			return out.print(r.out, made, func(w io.Writer) error {
				_, err := fmt.Fprint(w, made)
				return err
			})
		},
	}
}

// unsplitFlags say which shards are merged.
type unsplitFlags struct {
	compact.Unsplit
	all, yes bool
}

// RegisterFlags implements configurer.
func (u *unsplitFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&u.Group, "group", "", "Group whose shards are merged, as firnline tools compact plan names it.")
	fs.BoolVar(&u.all, "all", false, "Merge the shards of all groups.")
	fs.BoolVar(&u.MarksOnly, "marks-only", false, "Only take the no-compact marks off the shards, so that Thanos' compactor merges them, which must have vertical compaction on.")
	fs.BoolVar(&u.AllowMissing, "allow-missing", false, "Take it that shards which are not there had no series, as those of which all was deleted. Be sure of it: what they held is lost with it. Most are known to be empty without this.")
	fs.BoolVar(&u.yes, "yes", false, "Do it. Without, only what would be done is printed.")
}

// Validate implements configurer.
func (u *unsplitFlags) Validate() error {
	if u.all == (u.Group != "") {
		return errors.New("--group, --all: give one of them")
	}
	return nil
}

// newMergeShards is a verb of firnline tools bucket.
func newMergeShards() *tool {
	var cfg compact.Config
	var u unsplitFlags
	bkt := bucketConfig{required: true}
	return &tool{
		use: "merge-shards", short: "Make one block again of the shards of a group",
		long: `Make one block again of the shards that a compactor has split a large group into:
the way back to programs that can't work on shards. Stop all compactors first, and
start ours again only with a --compact.block-max-index-size that the blocks fit
into, since it would split them again. The shards are marked for deletion.`,
		example: `  firnline tools bucket merge-shards --group=0@1234 --objstore.config-file=bucket.yml --yes`,
		parts:   []configurer{&u, &cfg, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) (err error) {
			b, err := r.open(ctx, &bkt)
			if err != nil {
				return err
			}
			c, err := compact.New(cfg, compact.Parts{Bucket: b, Log: r.log, Metrics: r.reg})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			u.DryRun = !u.yes
			lines, err := c.MergeShards(ctx, u.Unsplit)
			for _, line := range lines {
				fmt.Fprintln(r.out, line)
			}
			if err == nil && u.DryRun {
				fmt.Fprintln(r.talk, "Nothing was done. Give --yes to do it.")
			}
			return explained(b, err)
		},
	}
}
