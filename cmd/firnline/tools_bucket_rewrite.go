package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/tools"
)

// rewriteFlags say which blocks are written anew, and how.
type rewriteFlags struct {
	tools.RewriteParts
	ids              []ulid.ULID
	deletes, relabel contentFlag
	deleteBlocks     bool

	rewriting *tools.Rewriting
}

// contentFlag is YAML, given by a flag or by a file that a second one names.
type contentFlag struct{ text, file string }

func (c *contentFlag) register(fs *flag.FlagSet, name, usage string) {
	fs.StringVar(&c.text, name, "", usage)
	fs.StringVar(&c.file, name+"-file", "", "File with the YAML of --"+name+".")
}

// RegisterFlags implements configurer.
func (f *rewriteFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.Func("id", "ULID of a block. Repeatable.", func(s string) error {
		id, err := ulid.ParseStrict(s)
		f.ids = append(f.ids, id)
		return err
	})
	f.deletes.register(fs, "rewrite.to-delete-config", `Samples to take out, in YAML: [{matchers: 'up{job="a"}', intervals: [{mint: 0, maxt: 1700000000000}]}], times in ms and both inclusive; no intervals: all.`)
	f.relabel.register(fs, "rewrite.to-relabel-config", "Relabel rules in YAML, as Prometheus has them, for the labels of all series; one that is dropped goes.")
	fs.BoolVar(&f.ChangeLog, "rewrite.add-change-log", true, "Write change.log, which says what was done, beside the new block.")
	fs.BoolVar(&f.deleteBlocks, "delete-blocks", true, "Mark the block that was rewritten for deletion. Without, readers leave it out all the same once they see the new one.")
	fs.StringVar(&f.Dir, "tmp.dir", os.TempDir(), "Folder in which blocks are worked on; it needs room for twice the largest of them.")
	fs.StringVar(&f.HashFunc, "hash-func", "", "Put a hash of each file into meta.json: SHA256, or nothing.")
}

// Validate implements configurer.
func (f *rewriteFlags) Validate() error {
	deletes, _, errDeletes := content.Of("rewrite.to-delete-config", f.deletes.text, f.deletes.file)
	relabels, _, errRelabels := content.Of("rewrite.to-relabel-config", f.relabel.text, f.relabel.file)
	err := errors.Join(errDeletes, errRelabels)
	if err == nil {
		f.rewriting, err = tools.ParseRewriting(deletes, relabels)
	}
	if len(f.ids) == 0 {
		err = errors.Join(err, errors.New("--id: give the ULID of a block; firnline tools bucket ls lists them"))
	}
	f.KeepOld = !f.deleteBlocks
	return err
}

func newBucketRewrite() *tool {
	var what rewriteFlags
	var sure confirmConfig
	out := outputConfig{list: true}
	bkt := bucketConfig{required: true}
	return &tool{
		use: "rewrite", short: "Write blocks anew with other labels, or without some samples",
		long: `Write blocks anew with other labels, or without some samples, and mark the old ones
for deletion. First it does all of it but the upload, and shows what would change;
then it asks, or goes on with --yes. Samples that are to go from the whole bucket,
whatever their resolution, are better deleted by firnline tools delete create. Stop
all compactors first: what they make of the old block meanwhile would stay.`,
		example: `  firnline tools bucket rewrite --id=01JXYZ0000000000000000000A --rewrite.to-delete-config='[{matchers: "{user=~\".+\"}"}]' --objstore.config-file=bucket.yml --dry-run
  firnline tools bucket rewrite --id=01JXYZ0000000000000000000A --rewrite.to-relabel-config-file=rules.yml --objstore.config-file=bucket.yml --yes`,
		parts: []configurer{&what, &sure, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				what.Bucket, what.Log, what.DryRun = b, r.log, !sure.yes
				done, err := rewriteAll(ctx, r, &what)
				if err := errors.Join(r.tellRewritten(done, &out), err); err != nil || sure.yes {
					return err
				}
				ok, err := sure.allows(r, "Rewrite "+counted(len(done), "block"))
				if !ok {
					return err
				}
				what.DryRun = false
				_, err = rewriteAll(ctx, r, &what)
				return err
			})
		},
	}
}

// rewriteAll rewrites the blocks; one that fails stops no other.
func rewriteAll(ctx context.Context, r *toolRun, what *rewriteFlags) ([]tools.Rewritten, error) {
	p := r.progress("rewrite")
	defer p.end()
	out := []tools.Rewritten{}
	var errs []error
	for i, id := range what.ids {
		done, err := what.rewriting.Block(ctx, what.RewriteParts, id)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, done)
		p.blocks(i+1, len(what.ids), 0)
	}
	return out, errors.Join(errs...)
}

// tellRewritten prints what became of blocks.
func (r *toolRun) tellRewritten(done []tools.Rewritten, out *outputConfig) error {
	t := &table{columns: columnsOf("block", "new", "series", "dropped", "relabelled", "samples", "samples dropped")}
	for _, d := range done {
		next := d.New.String()
		if d.Unchanged {
			next = "unchanged"
		}
		t.add(d.Block.String(), next, strconv.FormatUint(d.Series, 10), strconv.FormatUint(d.SeriesDropped, 10), strconv.FormatUint(d.SeriesChanged, 10),
			strconv.FormatUint(d.Samples, 10), strconv.FormatUint(d.SamplesDropped, 10))
	}
	if err := out.printTable(r.out, done, t); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
