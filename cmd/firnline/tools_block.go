package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// blockTools are the verbs of firnline tools block.
func blockTools() toolGroup {
	return toolGroup{name: "block", short: "Look into single blocks", tools: []*tool{newBlockDump()}}
}

// blockSource is where blocks are read from: a local folder or, by their ULIDs, a bucket.
type blockSource struct {
	bkt  bucketConfig
	path string
	ids  []ulid.ULID
	dir  string
}

// RegisterFlags implements configurer.
func (s *blockSource) RegisterFlags(fs *flag.FlagSet) {
	s.bkt.RegisterFlags(fs)
	fs.StringVar(&s.path, "path", "", "Folder of a block, or with blocks, on this machine.")
	fs.Func("id", "ULID of a block in the bucket. Repeatable.", func(v string) error {
		id, err := ulid.ParseStrict(v)
		s.ids = append(s.ids, id)
		return err
	})
	fs.StringVar(&s.dir, "tmp.dir", os.TempDir(), "Folder into which blocks of a bucket are put while they are read.")
}

// Validate implements configurer.
func (s *blockSource) Validate() error {
	err := s.bkt.Validate()
	switch {
	case (s.path != "") == s.bkt.Given():
		err = errors.Join(err, errors.New("--path, --objstore.config-file: give one of them, a folder with blocks or a bucket"))
	case s.path != "" && len(s.ids) > 0:
		err = errors.Join(err, errors.New("--id goes with --objstore.config-file, not with --path"))
	}
	return err
}

// local calls do with the folders of the blocks, which are gone afterwards where
// they came from a bucket.
func (s *blockSource) local(ctx context.Context, r *toolRun, do func(dirs []string) error) error {
	if s.path != "" {
		dirs, err := tools.BlockDirs(s.path)
		if err != nil {
			return err
		}
		return do(dirs)
	}
	return r.withBucket(ctx, &s.bkt, func(b *bucket.Handle) error {
		dir, err := os.MkdirTemp(s.dir, "firnline-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		var dirs []string
		for _, id := range s.ids {
			if err := tools.Exists(ctx, b, id); err != nil {
				return err
			}
			m, err := block.FetchMeta(ctx, b, id)
			if err != nil {
				return err
			}
			local, err := tools.Download(ctx, b, m, dir)
			if err != nil {
				return err
			}
			dirs = append(dirs, local)
		}
		return do(dirs)
	})
}

// matchFlags choose series and times.
type matchFlags struct {
	selector string
	min, max block.TimeBound

	matchers []*labels.Matcher
}

// RegisterFlags implements configurer.
func (m *matchFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&m.selector, "match", "", `Only series that this selector matches, such as up{job="a"}; external labels count too. Default: all.`)
	fs.Var(&m.min, "min-time", "Only samples from this time on: a time (2026-01-31T00:00:00Z) or a duration back from now (-6w). Default: no bound.")
	fs.Var(&m.max, "max-time", "Only samples up to this time, which counts too. Default: no bound.")
}

// Validate implements configurer.
func (m *matchFlags) Validate() (err error) {
	if m.selector == "" {
		return nil
	}
	if m.matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(m.selector); err != nil {
		return fmt.Errorf("--match: %q: %w", m.selector, err)
	}
	return nil
}

// dump is what is to be written as text.
func (m *matchFlags) dump(format string, external bool) tools.Dump {
	now := time.Now()
	return tools.Dump{
		Matchers: m.matchers, MinTime: m.min.Millis(now, math.MinInt64), MaxTime: m.max.Millis(now, math.MaxInt64),
		Format: format, External: external,
	}
}

// formatFlag is the form of samples as text.
type formatFlag struct {
	format   string
	external bool
}

// RegisterFlags implements configurer.
func (f *formatFlag) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&f.format, "format", tools.FormatOpenMetrics, "Form of the samples: openmetrics, or jsonl, a series a line, which has native histograms too.")
	fs.BoolVar(&f.external, "external-labels", true, "Add the blocks' external labels to each series.")
}

// Validate implements configurer.
func (f *formatFlag) Validate() error { return tools.CheckFormat(f.format) }

// tellDumped says what a dump came to, and what it had to leave out.
func (r *toolRun) tellDumped(d tools.Dumped) {
	fmt.Fprintf(r.talk, "%d series, %d samples.\n", d.Series, d.Samples)
	if d.Histograms > 0 {
		fmt.Fprintf(r.talk, "%d samples of native histograms are left out: OpenMetrics has no form for them; --format=jsonl has.\n", d.Histograms)
	}
}

func newBlockDump() *tool {
	var from blockSource
	var match matchFlags
	var form formatFlag
	return &tool{
		use: "dump", short: "Write the series and samples of blocks as text",
		long: `Write the series and samples of blocks as text, block by block. A series of a
downsampled block comes as five, one of each aggregate, told apart by the label
` + tools.AggregateLabel + `.`,
		example: `  firnline tools block dump --path=/var/lib/prometheus/01JXYZ0000000000000000000A --match='up{job="node"}'
  firnline tools block dump --id=01JXYZ0000000000000000000A --objstore.config-file=bucket.yml --format=jsonl`,
		parts: []configurer{&match, &form, &from, oneCheck(func() error {
			if from.bkt.Given() && len(from.ids) == 0 {
				return errors.New("--id: give the ULID of a block; firnline tools bucket ls lists them")
			}
			return nil
		})},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			return from.local(ctx, r, func(dirs []string) error {
				d := match.dump(form.format, form.external)
				var sum tools.Dumped
				for _, dir := range dirs {
					got, err := d.Blocks(ctx, r.out, []string{dir})
					sum.Series, sum.Samples, sum.Histograms = sum.Series+got.Series, sum.Samples+got.Samples, sum.Histograms+got.Histograms
					if err != nil {
						return err
					}
				}
				r.tellDumped(sum)
				return d.End(r.out)
			})
		},
	}
}
