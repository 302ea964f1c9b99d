package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/spf13/cobra"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// importTools are the verbs of firnline tools import.
func importTools() toolGroup {
	return toolGroup{name: "import", short: "Bring data of others into a bucket", tools: []*tool{newImportPrometheus(), newImportOpenMetrics(), newImportRemoteRead()}}
}

// importing is what all imports have: external labels, a bucket, and a folder for
// the blocks that are made.
type importing struct {
	uploadFlags
	ext externalFlags
	out outputConfig
	bkt bucketConfig
	dir string
}

func newImporting() *importing {
	return &importing{out: outputConfig{list: true}, bkt: bucketConfig{required: true}}
}

func (i *importing) parts(more ...configurer) []configurer {
	tmp := oneFlag(func(fs *flag.FlagSet) {
		i.how(fs)
		fs.StringVar(&i.dir, "tmp.dir", os.TempDir(), "Folder for the blocks that are made, which it needs room for.")
	})
	need := oneCheck(func() error {
		if len(i.ext.given) == 0 {
			return errors.New(`--label: give external labels, such as --label='cluster="eu"'; a block without could not be told from others`)
		}
		return i.uploadFlags.Validate()
	})
	return append(more, tmp, &i.ext, need, &i.out, &i.bkt)
}

// made makes blocks in a folder of their own and uploads them.
func (i *importing) made(ctx context.Context, r *toolRun, make func(dir string) (tools.Imported, error)) error {
	return r.withBucket(ctx, &i.bkt, func(b *bucket.Handle) error {
		dir, err := os.MkdirTemp(i.dir, "firnline-import-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		got, err := make(dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.talk, "%d samples in %s.\n", got.Samples, counted(got.Blocks, "block"))
		if got.Dropped > 0 {
			fmt.Fprintf(r.talk, "%d samples were out of order or there twice, and are left out.\n", got.Dropped)
		}
		if got.Blocks == 0 {
			return nil
		}
		return r.upload(ctx, i.to(b, i.ext.labels), dir, &i.out)
	})
}

func newImportPrometheus() *tool {
	i := newImporting()
	var head bool
	what := oneFlag(func(fs *flag.FlagSet) {
		fs.StringVar(&i.path, "path", "", "Prometheus' data folder, or a snapshot of it.")
		fs.BoolVar(&head, "head", false, "Bring what is in the head, in no block yet, too. Stop Prometheus first, or take a snapshot: what it goes on to write would come a second time with its next block.")
	})
	return &tool{
		use: "prometheus", short: "Bring the data folder of a Prometheus into a bucket",
		long: `Bring the blocks of a Prometheus' data folder into a bucket, and with --head what is
in its head, too. The folder is only read. What was brought already is not sent again.`,
		example: `  firnline tools import prometheus --path=/var/lib/prometheus --label='cluster="eu"' --objstore.config-file=bucket.yml`,
		parts: i.parts(what, oneCheck(func() error {
			if i.path == "" {
				return errors.New("--path: give Prometheus' data folder")
			}
			return statFile("path", i.path)
		})),
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			err := r.withBucket(ctx, &i.bkt, func(b *bucket.Handle) error {
				return r.upload(ctx, i.to(b, i.ext.labels), i.path, &i.out)
			})
			if !head || err != nil && !errors.Is(err, tools.ErrNoBlocks) {
				return err
			}
			return i.made(ctx, r, func(dir string) (tools.Imported, error) {
				return tools.HeadBlock(i.path, dir, r.log)
			})
		},
	}
}

func newImportOpenMetrics() *tool {
	i := newImporting()
	return &tool{
		use: "openmetrics FILE", short: "Bring a file in the OpenMetrics text format into a bucket",
		long: `Bring a file in the OpenMetrics text format, in which every sample has a time, into a
bucket as blocks of two hours. The same file brought twice makes blocks twice: their
samples count once, but take room until a compactor has merged them.`,
		example: `  firnline tools import openmetrics up.om --label='cluster="eu"' --objstore.config-file=bucket.yml`,
		args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want one argument, the file; got %d", len(args))}
			}
			return nil
		},
		parts: i.parts(),
		run: func(ctx context.Context, r *toolRun, args []string) error {
			return i.made(ctx, r, func(dir string) (tools.Imported, error) { return tools.OpenMetrics(ctx, args[0], dir, r.log) })
		},
	}
}

func newImportRemoteRead() *tool {
	i := newImporting()
	var match matchFlags
	from := tools.RemoteRead{Headers: map[string]string{}}
	timeout := model.Duration(5 * time.Minute)
	source := oneFlag(func(fs *flag.FlagSet) {
		fs.StringVar(&from.URL, "url", "", "Address of remote read, such as http://prometheus:9090/api/v1/read.")
		fs.Var(&timeout, "timeout", "How long to wait for the answer to a request, which asks for two hours.")
	})
	return &tool{
		use: "remote-read", short: "Bring what another store answers by remote read into a bucket",
		long: `Bring what another store answers by Prometheus' remote read into a bucket, as blocks
of two hours: the way for stores whose files can't be read.`,
		example: `  firnline tools import remote-read --url=http://prometheus:9090/api/v1/read --match='{job=~".+"}' --min-time=-2w --label='cluster="eu"' --objstore.config-file=bucket.yml`,
		parts: i.parts(&match, source, oneCheck(func() error {
			var errs []error
			if match.min.Millis(time.Now(), math.MinInt64) == math.MinInt64 {
				errs = append(errs, errors.New("--min-time: say from when on"))
			}
			return errors.Join(append(errs, checkURL("url", from.URL))...)
		})),
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			now := time.Now()
			from.MinTime, from.MaxTime = match.min.Millis(now, 0), match.max.Millis(now, now.UnixMilli())
			from.Matchers, from.Timeout, from.Log = match.matchers, time.Duration(timeout), r.log
			if len(from.Matchers) == 0 {
				from.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+")}
			}
			p := r.progress("remote read")
			from.Told = func(done, all int, _ int64) {
				p.tell(float64(done)/float64(all), fmt.Sprintf("%d of %s", done, counted(all, "window")), 0)
			}
			return i.made(ctx, r, func(dir string) (tools.Imported, error) {
				defer p.end()
				return from.Blocks(ctx, dir)
			})
		},
	}
}
