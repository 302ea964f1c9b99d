package compact

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/compact/internal/output"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Windows are the ranges that inputs are read in. Shorter ones than minWindow
// aren't worth a request of their own. All of a job's together take no more than
// comfortableBytes, as long as they are longer than that. The inputs are read
// ahead side by side, so more of each doesn't make it faster: what is in memory of
// all lasts longer than a request takes.
const (
	minWindow        = 128 << 10
	comfortableBytes = 24 << 20
)

// window is how long the ranges are that inputs are read in: shorter the more
// inputs there are, and so that the job keeps to --compact.memory.
func (a *attempt) window() (int64, error) {
	cfg := merge.Config{Targets: make([]merge.Target, len(a.job.Outputs)), Output: output.Config{MemoryBytes: a.postingsMemory()}}
	for window := int64(input.DefaultWindowBytes); ; window = max(window*3/4, minWindow) {
		in := input.Config{WindowBytes: window}
		if window > minWindow && a.readAhead(in) > comfortableBytes {
			continue
		}
		need := merge.MemoryBytes(a.job.Inputs, in, cfg)
		if need <= int64(a.cfg.JobMemory) {
			a.metrics.jobMemory.Set(float64(need))
			return window, nil
		}
		if window == minWindow {
			return 0, fmt.Errorf("%w: merging %d blocks takes %s of memory, and --compact.memory is %s", errRoom, len(a.job.Inputs), size(need), size(int64(a.cfg.JobMemory)))
		}
	}
}

// readAhead is what all windows take as a rule.
func (a *attempt) readAhead(in input.Config) (sum int64) {
	for _, m := range a.job.Inputs {
		sum += input.ReadAheadBytes(m, in)
	}
	return sum
}

// postingsMemory is for sorting the postings of one result.
func (a *attempt) postingsMemory() int64 { return int64(a.cfg.JobMemory) / 32 }

// merging is a merge that is ready to begin.
type merging struct {
	todo    []plan.Output // shards with their bounds
	cfg     merge.Config
	sources []merge.Source
}

// overInputs opens the inputs, has by merge them, and closes them.
func (a *attempt) overInputs(ctx context.Context, todo []plan.Output, by func(context.Context, merging) ([]made, error)) (out []made, err error) {
	a.progress.at(stageMerge)
	window, err := a.window()
	if err != nil {
		return nil, err
	}
	var m merging
	if m.todo, err = a.bounded(ctx, todo, window); err != nil {
		return nil, err
	}
	if m.cfg, err = a.mergeConfig(m.todo); err != nil {
		return nil, err
	}
	sources, closeAll, err := a.open(ctx, window)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	m.sources = sources
	if out, err = by(ctx, m); err != nil {
		return nil, err
	}
	return out, a.point(ctx, pointMerged, a.job.Key)
}

// merge reads the inputs once and writes results to disk. Results without a
// series are left out.
func (a *attempt) merge(ctx context.Context, in merging) ([]made, error) {
	report, err := merge.Run(ctx, in.cfg, in.sources)
	if err != nil {
		return nil, err
	}
	a.observe(report)
	return a.take(in.todo, report)
}

// mergeIndexes is merge for a result whose segments are copied within the bucket.
func (a *attempt) mergeIndexes(ctx context.Context, in merging) ([]made, error) {
	out := in.todo[0]
	m := *out.Meta
	around, err := merge.Indexes(ctx, in.cfg, in.sources, a.dirOf(m.ULID))
	if err != nil {
		return nil, err
	}
	m.Stats = around.Stats
	a.metrics.readBytes.Add(float64(around.Reads.Bytes))
	a.metrics.reads.Add(float64(around.Reads.Requests))
	a.metrics.chunks.WithLabelValues("stayed").Add(float64(around.Stats.NumChunks))
	a.progress.toSend.Add(around.Content.SizeBytes())
	out.Meta = &m
	return []made{{Output: out, dir: a.dirOf(m.ULID), content: around.Content, around: around.Segments}}, nil
}

// openAtOnce is how many inputs are opened side by side.
const openAtOnce = 8

// open opens the inputs.
func (a *attempt) open(ctx context.Context, window int64) (_ []merge.Source, closeAll func() error, err error) {
	sources := make([]merge.Source, len(a.job.Inputs))
	closeAll = func() error {
		var errs []error
		for _, s := range sources {
			if s.Block != nil {
				errs = append(errs, s.Block.Close())
			}
		}
		return errors.Join(errs...)
	}
	g, opening := errgroup.WithContext(ctx)
	g.SetLimit(openAtOnce)
	for i, m := range a.job.Inputs {
		g.Go(func() error {
			b, err := input.Open(opening, a.bkt, m, input.Config{WindowBytes: window})
			sources[i] = merge.Source{Block: b, Replica: a.replica(m)}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, errors.Join(err, closeAll())
	}
	return sources, closeAll, nil
}

// replica tells replicas apart by the labels that deduplication takes off; all
// are one where there is none.
func (a *attempt) replica(m *block.Meta) uint64 {
	if len(a.cfg.ReplicaLabels) == 0 {
		return 0
	}
	h := xxhash.New()
	for _, name := range a.cfg.ReplicaLabels {
		_, _ = fmt.Fprintf(h, "%q", m.Thanos.Labels[name]) // a hash takes everything
	}
	return h.Sum64()
}

func (a *attempt) mergeConfig(todo []plan.Output) (merge.Config, error) {
	r, err := newRemoval(a.job)
	if err != nil {
		return merge.Config{}, err
	}
	cfg := merge.Config{
		Dedup: a.kind, Resolution: a.job.Resolution, MinTime: a.job.MinTime, MaxTime: a.job.MaxTime,
		KeepStartTimestamps: a.cfg.KeepStartTimestamps, Progress: func(n int64) { a.progress.read.Store(n) },
		Output: output.Config{MemoryBytes: a.postingsMemory()},
	}
	if !r.nothing() {
		cfg.Cut = r.cut
	}
	for _, out := range todo {
		shard, err := shardOf(out.Meta)
		if err != nil {
			return merge.Config{}, err
		}
		if shard != nil {
			cfg.From, cfg.To = shard.From, shard.To
		}
		cfg.Targets = append(cfg.Targets, merge.Target{Resolution: out.Meta.Resolution(), Dir: a.dirOf(out.Meta.ULID)})
	}
	return cfg, nil
}

func shardOf(m *block.Meta) (*block.Shard, error) {
	ext, _, err := m.Extension()
	return ext.Shard, err
}

// cut is what is to go of a series.
func (r *removal) cut(lset labels.Labels) (drop bool, cuts tombstones.Intervals) {
	full := r.full(lset)
	for _, class := range r.job.Expired {
		if class.Matches(full) {
			return true, nil
		}
	}
	return false, r.hider.Intervals(full)
}

// take checks what was merged and completes the metas of the results.
func (a *attempt) take(todo []plan.Output, report merge.Report) ([]made, error) {
	if err := a.plausible(report); err != nil {
		return nil, err
	}
	var out []made
	var empty []string
	for i, o := range todo {
		t := report.Targets[i]
		if t.Content == nil {
			empty = append(empty, a.emptyKeys(o)...)
			continue
		}
		m := *o.Meta
		m.Stats = t.Stats
		o.Meta = &m
		a.progress.toSend.Add(t.Content.SizeBytes())
		out = append(out, made{Output: o, dir: a.dirOf(m.ULID), content: t.Content})
	}
	if len(empty) > 0 {
		a.log.Info("a result has no series and is not written")
		return out, a.finds.add(a.known.snap.Metas, empty...)
	}
	return out, nil
}

// emptyKeys are what is to be remembered of a result without series: that there
// is no such block and, of a coarser one, that the inputs have nothing for it. One
// shard tells that of its own part alone.
func (a *attempt) emptyKeys(o plan.Output) []string {
	out := []string{plan.VoidKey(o.Meta.ULID)}
	if o.Meta.Resolution() > a.job.Resolution && a.job.Kind != plan.Split {
		for _, m := range a.job.Inputs {
			out = append(out, plan.EmptyKey(m.ULID, o.Meta.Resolution()))
		}
	}
	return out
}

// plausible compares what went in with what came out. merge has balanced its
// books; this is about the inputs' metas, which it doesn't believe or doubt.
func (a *attempt) plausible(report merge.Report) error {
	c := report.Counts
	if c.SamplesOut+c.SamplesEqual+c.SamplesCut > c.SamplesIn && a.singleReplica() {
		return fmt.Errorf("internal error: %d samples came out of %d", c.SamplesOut+c.SamplesEqual+c.SamplesCut, c.SamplesIn)
	}
	var known uint64
	for _, m := range a.job.Inputs {
		known += m.Stats.NumSeries
	}
	if c.Series == 0 && known > 0 && !a.sharded() {
		return fmt.Errorf("internal error: no series was read of inputs that have %d", known)
	}
	return nil
}

func (a *attempt) singleReplica() bool {
	first := a.replica(a.job.Inputs[0])
	return !slices.ContainsFunc(a.job.Inputs, func(m *block.Meta) bool { return a.replica(m) != first })
}

func (a *attempt) sharded() bool {
	return slices.ContainsFunc(a.job.Outputs, func(o plan.Output) bool { s, err := shardOf(o.Meta); return err == nil && s != nil })
}

func (a *attempt) observe(r merge.Report) {
	m := a.metrics
	m.readBytes.Add(float64(r.Reads.Bytes))
	m.reads.Add(float64(r.Reads.Requests))
	for name, n := range map[string]uint64{
		"copied": r.Copied, "encoded": r.Encoded, "equal": r.Equal, "mended": r.Mended, "cut": r.Cut, "empty": r.Empty,
	} {
		m.chunks.WithLabelValues(name).Add(float64(n))
	}
	if r.Mended > 0 {
		a.log.Warn("chunks had to be mended: out of order, overlapping, or other times than the index says", "chunks", r.Mended)
	}
}

// bounded fills in the bounds of shards that are the first of their split.
func (a *attempt) bounded(ctx context.Context, todo []plan.Output, window int64) ([]plan.Output, error) {
	out := slices.Clone(todo)
	for i, o := range out {
		if !o.FindBounds {
			continue
		}
		ext, _, err := o.Meta.Extension()
		if err != nil {
			return nil, err
		}
		cuts, err := findCuts(ctx, a.bkt, largest(a.job.Inputs), ext.Shard, input.Config{WindowBytes: window})
		if err != nil {
			return nil, err
		}
		shard := *ext.Shard
		bounds := slices.Concat([]labels.Labels{shard.From}, cuts, []labels.Labels{shard.To})
		shard.From, shard.To = bounds[shard.Index], bounds[shard.Index+1]
		ext.Shard = &shard
		m := *o.Meta
		if err := m.SetExtension(ext); err != nil {
			return nil, err
		}
		out[i].Meta = &m
	}
	return out, nil
}

// largest is the input whose series the bounds of shards are taken from; of
// those of equal size it is the one with the lowest ULID.
func largest(in []*block.Meta) *block.Meta {
	best := in[0]
	for _, m := range in[1:] {
		if size, most := indexSize(m), indexSize(best); size > most || size == most && m.ULID.Compare(best.ULID) < 0 {
			best = m
		}
	}
	return best
}

// indexSize is what meta.json says of a block's index or, where it says nothing,
// something that grows with it.
func indexSize(m *block.Meta) int64 {
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.IndexFilename {
			return f.SizeBytes
		}
	}
	return int64(min(m.Stats.NumSeries, math.MaxInt64))
}
