package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// markFlags say which mark goes on or off which blocks.
type markFlags struct {
	tools.Marking
	onlyRemoves bool // the verb is unmark
}

// RegisterFlags implements configurer.
func (m *markFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Func("id", "ULID of a block. Repeatable.", func(s string) error {
		id, err := ulid.ParseStrict(s)
		m.Blocks = append(m.Blocks, id)
		return err
	})
	fs.StringVar(&m.Mark, "marker", "", "The mark: "+strings.Join(tools.MarkNames(), ", ")+".")
	if m.onlyRemoves {
		m.Remove = true
		return
	}
	fs.StringVar(&m.Details, "details", "", "Why, for the record.")
	fs.BoolVar(&m.Remove, "remove", false, "Take the mark off.")
}

// Validate implements configurer.
func (m *markFlags) Validate() error { return m.Check() }

func newBucketMark() *tool {
	return markTool("mark", "Mark blocks: to be deleted, or left alone", `Mark blocks: deletion-mark.json has a compactor remove them after its
--delete-delay; no-compact-mark.json and no-downsample-mark.json have it leave them
alone. A mark that is there already stays as it is. What is to be deleted has to be
confirmed, or --yes given.`,
		`  firnline tools bucket mark --id=01JXYZ0000000000000000000A --marker=no-compact-mark.json --details="out of order" --objstore.config-file=bucket.yml`, false)
}

func newBucketUnmark() *tool {
	return markTool("unmark", "Take a mark off blocks", `Take a mark off blocks: the way back from firnline tools bucket mark, for a
deletion mark as long as the compactor has not removed the block.`,
		`  firnline tools bucket unmark --id=01JXYZ0000000000000000000A --marker=deletion-mark.json --objstore.config-file=bucket.yml`, true)
}

func markTool(verb, short, long, example string, onlyRemoves bool) *tool {
	what := markFlags{onlyRemoves: onlyRemoves}
	var sure confirmConfig
	bkt := bucketConfig{required: true}
	return &tool{
		use: verb, short: short, long: long, example: example,
		parts: []configurer{&what, &sure, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				did := "marked with " + what.Mark
				if what.Remove {
					did = "without " + what.Mark
				}
				if sure.dryRun || what.Mark == block.DeletionMarkFilename && !what.Remove {
					for _, id := range what.Blocks {
						if err := tools.Exists(ctx, b, id); err != nil {
							return err
						}
						fmt.Fprintf(r.out, "%s would be %s\n", id, did)
					}
					if ok, err := sure.allows(r, "Mark "+counted(len(what.Blocks), "block")+" for deletion"); !ok {
						return err
					}
				}
				if err := what.Do(ctx, b, r.log); err != nil {
					return err
				}
				for _, id := range what.Blocks {
					fmt.Fprintf(r.out, "%s %s\n", id, did)
				}
				return nil
			})
		},
	}
}
