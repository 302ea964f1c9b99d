package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// verifyFlags say how closely blocks are looked at.
type verifyFlags struct {
	full, strict bool
	concurrency  int
	dir          string
	gap          model.Duration
}

// RegisterFlags implements configurer.
func (v *verifyFlags) RegisterFlags(fs *flag.FlagSet) {
	v.gap = model.Duration(5 * time.Minute)
	fs.BoolVar(&v.full, "full", false, "Read every byte of each block and compare each checksum. Without, some 64 requests a block: sizes, the index's checksums, and some chunks.")
	fs.BoolVar(&v.strict, "strict", false, "Exit with 1 for warnings, too: overlaps, gaps, duplicates and partial blocks.")
	fs.IntVar(&v.concurrency, "concurrency", 4, "Blocks looked at at once.")
	fs.StringVar(&v.dir, "tmp.dir", os.TempDir(), "Folder in which, with --full, each block is put while it is looked at; it needs room for --concurrency blocks.")
	fs.Var(&v.gap, "min-gap", "Shortest time without a block to be told of.")
}

// Validate implements configurer.
func (v *verifyFlags) Validate() error {
	if v.concurrency < 1 {
		return fmt.Errorf("--concurrency=%d: give 1 or more", v.concurrency)
	}
	return nil
}

func newBucketVerify() *tool {
	var how verifyFlags
	var look tools.Look
	out := outputConfig{list: true}
	bkt := bucketConfig{required: true}
	return &tool{
		use: "verify", short: "Look for blocks that are broken, overlap or are missing",
		long: `Look at each block that is not marked for deletion: sizes and index against
meta.json, checksums of the index and of chunks; and at the blocks of a group side by
side: overlaps, gaps, blocks that others cover. Nothing is changed. A broken block
stops no other. Exit code 1 says that there are errors; warnings, which a compactor
mends or an outage explains, count with --strict.`,
		example: `  firnline tools bucket verify --objstore.config-file=bucket.yml
  firnline tools bucket verify --objstore.config-file=bucket.yml --full --min-time=-2d`,
		parts: []configurer{&how, &look, &out, &bkt},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return r.withBucket(ctx, &bkt, func(b *bucket.Handle) error {
				view, err := r.look(ctx, &look, b)
				if err != nil {
					return err
				}
				p := r.progress("verify")
				v := tools.Verification{Bucket: b, Full: how.full, Dir: how.dir, Concurrency: how.concurrency, Gap: time.Duration(how.gap), Done: p.blocks}
				found, err := v.Blocks(ctx, view)
				p.end()
				if err != nil {
					return err
				}
				return tellFindings(r, found, &how, &out)
			})
		},
	}
}

// tellFindings prints findings and makes the exit code of them.
func tellFindings(r *toolRun, found []tools.Finding, how *verifyFlags, out *outputConfig) error {
	if found == nil {
		found = []tools.Finding{} // so that JSON has a list
	}
	failed, warned := 0, 0
	t := &table{columns: columnsOf("severity", "kind", "block", "group", "details")}
	for _, f := range found {
		t.add(f.Severity, f.Kind, f.Block.String(), f.Group, f.Details)
		if f.Severity == tools.SeverityError {
			failed++
		} else {
			warned++
		}
	}
	if err := out.printTable(r.out, found, t); err != nil {
		return err
	}
	fmt.Fprintf(r.talk, "%s, %s.\n", counted(failed, "error"), counted(warned, "warning"))
	if failed > 0 || how.strict && warned > 0 {
		return errors.New("the bucket has problems")
	}
	return nil
}
