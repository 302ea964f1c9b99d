package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// rewriter writes one block anew. It holds the labels of all series and where
// their chunks are.
type rewriter struct {
	*Rewriting
	from *localblock.Block
	meta *block.Meta // of the result
	told *Rewritten

	series  []plannedSeries // in order of their new labels
	symbols map[string]struct{}
	changed bool
}

// plannedSeries is one of the result.
type plannedSeries struct {
	lset   labels.Labels
	chunks []chunks.Meta // of the source
	cuts   tombstones.Intervals
}

// plan decides about each series.
func (w *rewriter) plan(ctx context.Context) error {
	w.symbols = map[string]struct{}{}
	for s, err := range w.from.All(ctx) {
		if err != nil {
			return err
		}
		w.told.Series++
		lset, keep := s.Labels, true
		if len(w.Relabels) > 0 {
			b := labels.NewBuilder(s.Labels)
			keep = relabel.ProcessBuilder(b, w.Relabels...)
			lset = b.Labels()
		}
		if !keep || lset.IsEmpty() {
			w.told.SeriesDropped++
			w.changed = true
			if err := w.countDropped(s.Chunks); err != nil {
				return err
			}
			continue
		}
		if !labels.Equal(lset, s.Labels) {
			w.told.SeriesChanged++
			w.changed = true
		}
		w.series = append(w.series, plannedSeries{lset.Copy(), slices.Clone(s.Chunks), w.cuts(withExternal(s.Labels, w.from.Meta.Labels()))})
		lset.Range(func(l labels.Label) {
			w.symbols[strings.Clone(l.Name)] = struct{}{}
			w.symbols[strings.Clone(l.Value)] = struct{}{}
		})
	}
	slices.SortStableFunc(w.series, func(a, b plannedSeries) int { return labels.Compare(a.lset, b.lset) })
	for i := 1; i < len(w.series); i++ {
		if labels.Equal(w.series[i-1].lset, w.series[i].lset) {
			return fmt.Errorf("block %s: relabelling makes one series of several, such as %s: choose rules that keep them apart", w.from.Meta.ULID, w.series[i].lset)
		}
	}
	return nil
}

// withExternal adds external labels, which override a series' own.
func withExternal(lset, ext labels.Labels) labels.Labels {
	b := labels.NewBuilder(lset)
	ext.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// countDropped counts the samples of a series that goes whole.
func (w *rewriter) countDropped(metas []chunks.Meta) error {
	for _, m := range metas {
		c, err := w.from.Load(m)
		if err != nil {
			return err
		}
		w.told.Samples += uint64(c.NumSamples())
		w.told.SamplesDropped += uint64(c.NumSamples())
	}
	return nil
}

// run writes the block into dir.
func (w *rewriter) run(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDirname))
	if err != nil {
		return err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(dir, block.IndexFilename))
	if err != nil {
		return errors.Join(err, cw.Close())
	}
	err = w.copySeries(ctx, iw, cw)
	if err := errors.Join(err, cw.Close(), iw.Close()); err != nil {
		return err
	}
	w.told.Unchanged = !w.changed
	return block.WriteMeta(dir, w.meta)
}

func (w *rewriter) copySeries(ctx context.Context, iw *index.Writer, cw *chunks.Writer) error {
	w.symbols[""] = struct{}{}
	for _, s := range slices.Sorted(maps.Keys(w.symbols)) {
		if err := iw.AddSymbol(s); err != nil {
			return err
		}
	}
	for _, s := range w.series {
		if err := ctx.Err(); err != nil {
			return err
		}
		metas, err := w.content(s)
		if err != nil {
			return fmt.Errorf("block %s: series %s: %w", w.from.Meta.ULID, s.lset, err)
		}
		if len(metas) == 0 {
			w.told.SeriesDropped++
			continue
		}
		if err := cw.WriteChunks(metas...); err != nil {
			return err
		}
		if err := iw.AddSeries(storage.SeriesRef(w.meta.Stats.NumSeries), s.lset, metas...); err != nil {
			return err
		}
		w.meta.Stats.NumSeries++
		w.meta.Stats.NumChunks += uint64(len(metas))
	}
	return nil
}

// content returns the chunks of a series of the result, without what is cut.
func (w *rewriter) content(s plannedSeries) ([]chunks.Meta, error) {
	var out []chunks.Meta
	for i, m := range s.chunks {
		c, err := w.from.Load(m)
		if err != nil {
			return nil, err
		}
		m.Chunk = c
		before := c.NumSamples()
		kept := []chunks.Meta{m}
		if len(s.cuts) > 0 {
			if kept, err = w.cut(s, i, m); err != nil {
				return nil, err
			}
		}
		after := 0
		for _, k := range kept {
			after += k.Chunk.NumSamples()
			w.count(k.Chunk)
		}
		w.told.Samples += uint64(before)
		w.told.SamplesDropped += uint64(before - after)
		w.changed = w.changed || after != before
		out = append(out, kept...)
	}
	return out, nil
}

// count adds a chunk of the result to its statistics.
func (w *rewriter) count(c chunkenc.Chunk) {
	n := uint64(c.NumSamples())
	w.meta.Stats.NumSamples += n
	switch c.Encoding() {
	case chunkenc.EncXOR, chunkenc.EncXOR2, downsample.Encoding:
		w.meta.Stats.NumFloatSamples += n
	default:
		w.meta.Stats.NumHistogramSamples += n
	}
}

// cut takes what is to go out of the i-th chunk of a series.
func (w *rewriter) cut(s plannedSeries, i int, m chunks.Meta) ([]chunks.Meta, error) {
	if a, ok := m.Chunk.(*localblock.Aggregate); ok {
		return w.cutAggregate(s, i, m, a)
	}
	if (tombstones.Interval{Mint: m.MinTime, Maxt: m.MaxTime}).IsSubrange(s.cuts) {
		return nil, nil
	}
	if !slices.ContainsFunc(s.cuts, func(iv tombstones.Interval) bool { return iv.Mint <= m.MaxTime && m.MinTime <= iv.Maxt }) {
		return []chunks.Meta{m}, nil
	}
	left := &storage.SeriesEntry{Lset: s.lset, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return &tsdb.DeletedIterator{Iter: m.Chunk.Iterator(nil), Intervals: slices.Clone(s.cuts)}
	}}
	it := storage.NewSeriesToChunkEncoder(left).Iterator(nil)
	var out []chunks.Meta
	for it.Next() {
		out = append(out, it.At())
	}
	return out, it.Err()
}

// cutAggregate is cut of a downsampled chunk.
func (w *rewriter) cutAggregate(s plannedSeries, i int, m chunks.Meta, a *localblock.Aggregate) ([]chunks.Meta, error) {
	var next *float64
	if i+1 < len(s.chunks) {
		c, err := w.from.Load(s.chunks[i+1])
		if err != nil {
			return nil, err
		}
		next = firstOfCounter(c)
	}
	left, ok, err := downsample.Cut(a.Bytes(), w.from.Meta.Resolution(), slices.Clone(s.cuts), next)
	if err != nil || !ok {
		return nil, err
	}
	if bytes.Equal(left.Payload, a.Bytes()) {
		return []chunks.Meta{m}, nil
	}
	c, err := localblock.NewAggregate(left.Payload)
	if err != nil {
		return nil, err
	}
	return []chunks.Meta{{MinTime: left.MinTime, MaxTime: left.MaxTime, Chunk: c}}, nil
}

// firstOfCounter is the first value of a downsampled chunk's counter, if that
// holds floats.
func firstOfCounter(c chunkenc.Chunk) *float64 {
	a, ok := c.(*localblock.Aggregate)
	if !ok || !a.Has(downsample.Counter) {
		return nil
	}
	it, err := a.Sub(downsample.Counter)
	if err != nil || it.Next() != chunkenc.ValFloat {
		return nil
	}
	_, v := it.At()
	return &v
}
