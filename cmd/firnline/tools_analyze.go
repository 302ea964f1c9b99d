package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

// analyzeFlags say what is looked for.
type analyzeFlags struct {
	limit                        int
	unused                       bool
	dashboards, rules, queryLogs []string
}

// RegisterFlags implements configurer.
func (a *analyzeFlags) RegisterFlags(fs *flag.FlagSet) {
	fs.IntVar(&a.limit, "limit", 20, "Longest list of metrics and of labels; 0: all.")
	fs.BoolVar(&a.unused, "unused", false, "List the metrics that no dashboard, rule or query asks for, with relabel rules that drop them.")
	add := func(to *[]string, name, usage string) {
		fs.Func(name, usage+" Repeatable.", func(s string) error { *to = append(*to, s); return nil })
	}
	add(&a.dashboards, "dashboards", "Grafana dashboard as JSON, or a folder with such.")
	add(&a.rules, "rules", "File of Prometheus' rules, or a folder with such.")
	add(&a.queryLogs, "query-log", "Log of queries, a JSON object a line: ours or Prometheus'.")
}

// Validate implements configurer.
func (a *analyzeFlags) Validate() error {
	given := len(a.dashboards) + len(a.rules) + len(a.queryLogs)
	if a.unused != (given > 0) {
		return errors.New("--unused: give it together with --dashboards, --rules or --query-log")
	}
	return nil
}

// usage reads what metrics are asked for.
func (a *analyzeFlags) usage() (*tools.Usage, error) {
	u := &tools.Usage{}
	var errs []error
	each := func(paths []string, endings []string, read func([]byte) error) {
		for _, p := range paths {
			errs = append(errs, u.Files(p, endings, read))
		}
	}
	each(a.dashboards, []string{".json"}, u.Dashboard)
	each(a.rules, []string{".yml", ".yaml"}, u.Rules)
	each(a.queryLogs, []string{".log", ".jsonl", ".json"}, func(data []byte) error { return u.QueryLog(bytes.NewReader(data)) })
	return u, errors.Join(errs...)
}

func newAnalyze() *tool {
	var what analyzeFlags
	var out outputConfig
	var from blockSource
	var match matchFlags
	return &tool{
		use: "analyze", short: "Find what takes most room, changes most, or nobody asks for",
		long: `Find what takes most room in blocks, from their indexes alone: metrics by bytes and
series, those that compress badly (BYTES/SAMPLE, estimated), series that come and go
(SHORT-LIVED: less than half of their block), and label names by values. Of a bucket
it takes the blocks that --id names, or the newest raw one of each set of external
labels. With --unused it compares with what dashboards, rules and queries ask for, and
prints relabel rules ready to be pasted; what it can't read for sure counts as used.`,
		example: `  firnline tools analyze --objstore.config-file=bucket.yml
  firnline tools analyze --path=/var/lib/prometheus --unused --dashboards=./dashboards --rules=./rules --query-log=query.log`,
		parts: []configurer{&what, &match, &out, &from},
		run: func(ctx context.Context, r *toolRun, _ []string) error {
			var usage *tools.Usage
			if what.unused {
				var err error
				if usage, err = what.usage(); err != nil {
					return usageError{err}
				}
			}
			a := tools.Analyzer{Matchers: match.matchers}
			broken, err := r.analyze(ctx, &a, &from, &match)
			if err != nil {
				return err
			}
			if usage != nil {
				err = r.tellUnused(a.Result(0), usage, &out)
			} else {
				res := a.Result(what.limit)
				err = out.print(r.out, res, func(w io.Writer) error { return analysisTable(w, res) })
			}
			return errors.Join(err, errProblems(broken, "broken block"))
		},
	}
}

// analyze adds the blocks that were asked for, and counts those that can't be read.
func (r *toolRun) analyze(ctx context.Context, a *tools.Analyzer, from *blockSource, match *matchFlags) (broken int, err error) {
	if from.path != "" {
		return 0, from.local(ctx, r, func(dirs []string) error {
			for _, dir := range dirs {
				if err := a.Dir(ctx, dir); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = r.withBucket(ctx, &from.bkt, func(b *bucket.Handle) error {
		v, err := r.look(ctx, allBlocks(), b)
		if err != nil {
			return err
		}
		broken = len(v.Problems)
		metas := tools.Newest(v)
		if len(from.ids) > 0 {
			metas = nil
			for _, id := range from.ids {
				if v.Metas[id] == nil {
					return fmt.Errorf("block %s: %w", id, tools.ErrNoBlock)
				}
				metas = append(metas, v.Metas[id])
			}
		}
		p := r.progress("analyze")
		defer p.end()
		return a.Bucket(ctx, b, within(metas, match), from.dir, p.blocks)
	})
	return broken, err
}

// within leaves out blocks that have nothing between the times.
func within(metas []*block.Meta, match *matchFlags) []*block.Meta {
	d := match.dump("", false)
	var out []*block.Meta
	for _, m := range metas {
		if m.Overlaps(d.MinTime, d.MaxTime) {
			out = append(out, m)
		}
	}
	return out
}

func analysisTable(w io.Writer, a tools.Analysis) error {
	fmt.Fprintf(w, "%s, %d series, %d chunks, %d samples, %s of chunks\n\n", counted(a.Blocks, "block"), a.Series, a.Chunks, a.Samples, humanBytes(a.Bytes))
	t := &table{columns: columnsOf("metric", "series", "bytes", "share", "bytes/sample", "short-lived")}
	for _, m := range a.Metrics {
		t.add(m.Name, strconv.FormatUint(m.Series, 10), humanBytes(m.Bytes), fmt.Sprintf("%.1f%%", 100*float64(m.Bytes)/float64(max(a.Bytes, 1))),
			fmt.Sprintf("%.2f", m.BytesPerSample), fmt.Sprintf("%.0f%%", 100*float64(m.ShortLived)/float64(max(m.Series, 1))))
	}
	if err := t.write(w, true); err != nil {
		return err
	}
	fmt.Fprintln(w)
	l := &table{columns: columnsOf("label", "values", "series", "bytes of values")}
	for _, c := range a.Labels {
		l.add(c.Name, strconv.Itoa(c.Values), strconv.FormatUint(c.Series, 10), humanBytes(c.Bytes))
	}
	return l.write(w, true)
}

// unusedReport is what nobody asks for.
type unusedReport struct {
	Metrics []tools.MetricCost `json:"unused"`
	Rules   string             `json:"drop_rules"`
}

// tellUnused prints metrics that nobody asks for, and the rules that drop them.
func (r *toolRun) tellUnused(a tools.Analysis, u *tools.Usage, out *outputConfig) error {
	rep := unusedReport{Metrics: u.Unused(a.Metrics)}
	rep.Rules = tools.DropRules(rep.Metrics)
	var bytes int64
	for _, m := range rep.Metrics {
		bytes += m.Bytes
	}
	fmt.Fprintf(r.talk, "%d of %s not asked for in %s: %s of %s.\n", len(rep.Metrics), counted(len(a.Metrics), "metric"), counted(u.Parsed, "expression"),
		humanBytes(bytes), humanBytes(a.Bytes))
	if u.Unclear > 0 {
		fmt.Fprintf(r.talk, "%s could not be read as PromQL; each word in them counts as a metric in use.\n", counted(u.Unclear, "expression"))
	}
	for i, q := range u.Nameless {
		if i == 3 {
			fmt.Fprintf(r.talk, "… and %d more.\n", len(u.Nameless)-i)
			break
		}
		fmt.Fprintf(r.talk, "This one names no metric and may mean any: %s\n", q)
	}
	return out.print(r.out, rep, func(w io.Writer) error {
		t := &table{columns: columnsOf("metric", "series", "bytes")}
		for _, m := range rep.Metrics {
			t.add(m.Name, strconv.FormatUint(m.Series, 10), humanBytes(m.Bytes))
		}
		if err := t.write(w, true); err != nil {
			return err
		}
		_, err := fmt.Fprint(w, "\n", rep.Rules)
		return err
	})
}

// statFile tells of a file that isn't there before any work begins.
func statFile(flagName, path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("--%s: %w", flagName, err)
	}
	return nil
}
