package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// Analysis tells what blocks are full of. It comes from their indexes alone.
type Analysis struct {
	Blocks  int    `json:"blocks"`
	Series  uint64 `json:"series"` // one that is in several blocks counts once for each
	Chunks  uint64 `json:"chunks"`
	Samples uint64 `json:"samples"`
	Bytes   int64  `json:"chunk_bytes"`

	Metrics []MetricCost `json:"metrics"` // those that take most bytes first
	Labels  []LabelCost  `json:"labels"`  // those with most values first
}

// MetricCost is what one metric takes.
type MetricCost struct {
	Name   string `json:"name"`
	Series uint64 `json:"series"`
	Chunks uint64 `json:"chunks"`
	Bytes  int64  `json:"bytes"` // of chunks
	// BytesPerSample is by the mean samples of the blocks' chunks: above that of
	// others it tells of values that compress badly, or of many short chunks.
	BytesPerSample float64 `json:"estimated_bytes_per_sample"`
	// ShortLived are series that lived for less than half of their block: churn.
	ShortLived uint64 `json:"short_lived_series"`
}

// LabelCost is what one label name takes.
type LabelCost struct {
	Name   string `json:"name"`
	Values int    `json:"values"` // different ones
	Series uint64 `json:"series"` // that have it
	Bytes  int64  `json:"bytes"`  // of the values, each counted once
}

// Analyzer adds up blocks.
type Analyzer struct {
	Matchers []*labels.Matcher // of series; none: all

	blocks  int
	samples uint64
	metrics map[string]*metricSum
	labels  map[string]*labelSum
}

type metricSum struct {
	MetricCost
	samples float64 // estimated
}

type labelSum struct {
	series uint64
	values map[string]struct{}
}

// chunkAt is where a chunk begins and whose it is.
type chunkAt struct {
	ref    chunks.ChunkRef
	metric *metricSum
}

// Bucket adds the blocks of a bucket, whose indexes are put into dir one after the
// other. One that can't be read stops no other and is in the error.
func (a *Analyzer) Bucket(ctx context.Context, bkt block.Bucket, metas []*block.Meta, dir string, told func(done, all int, bytes int64)) error {
	var errs []error
	t := newTally(len(metas), told)
	for _, m := range metas {
		err := a.remote(ctx, bkt, m, dir)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
		t.add(0)
	}
	return errors.Join(errs...)
}

func (a *Analyzer) remote(ctx context.Context, bkt block.Bucket, m *block.Meta, dir string) error {
	local, err := os.MkdirTemp(dir, "analyze-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(local)
	local = filepath.Join(local, m.ULID.String())
	if err := os.Mkdir(local, 0o777); err != nil {
		return err
	}
	if err := downloadFile(ctx, bkt, block.Name(m.ULID, block.IndexFilename), filepath.Join(local, block.IndexFilename)); err != nil {
		return err
	}
	if err := block.WriteMeta(local, m); err != nil {
		return err
	}
	return a.Dir(ctx, local)
}

// Dir adds the block in a folder.
func (a *Analyzer) Dir(ctx context.Context, dir string) (err error) {
	b, err := localblock.OpenIndex(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if a.metrics == nil {
		a.metrics, a.labels = map[string]*metricSum{}, map[string]*labelSum{}
	}
	var at []chunkAt
	half := (b.Meta.MaxTime - b.Meta.MinTime) / 2
	perChunk := float64(b.Meta.Stats.NumSamples) / float64(max(b.Meta.Stats.NumChunks, 1))
	for s, err := range b.All(ctx) {
		if err != nil {
			return err
		}
		if !matchesAll(s.Labels, a.Matchers) {
			for _, c := range s.Chunks {
				at = append(at, chunkAt{c.Ref, nil}) // where it begins others end
			}
			continue
		}
		m := a.metric(s.Labels.Get(model.MetricNameLabel))
		m.Series++
		m.Chunks += uint64(len(s.Chunks))
		m.samples += perChunk * float64(len(s.Chunks))
		if n := len(s.Chunks); n > 0 && s.Chunks[n-1].MaxTime-s.Chunks[0].MinTime < half {
			m.ShortLived++
		}
		for _, c := range s.Chunks {
			at = append(at, chunkAt{c.Ref, m})
		}
		s.Labels.Range(a.label)
	}
	a.blocks++
	a.samples += b.Meta.Stats.NumSamples
	measure(at, dir, b.Meta)
	return nil
}

func (a *Analyzer) metric(name string) *metricSum {
	m := a.metrics[name]
	if m == nil {
		name = strings.Clone(name)
		m = &metricSum{MetricCost: MetricCost{Name: name}}
		a.metrics[name] = m
	}
	return m
}

func (a *Analyzer) label(l labels.Label) {
	s := a.labels[l.Name]
	if s == nil {
		s = &labelSum{values: map[string]struct{}{}}
		a.labels[strings.Clone(l.Name)] = s
	}
	s.series++
	if _, ok := s.values[l.Value]; !ok {
		s.values[strings.Clone(l.Value)] = struct{}{}
	}
}

// measure finds how long chunks are: each ends where the next begins, the last of
// a segment where that ends.
func measure(at []chunkAt, dir string, m *block.Meta) {
	slices.SortFunc(at, func(a, b chunkAt) int { return cmp.Compare(a.ref, b.ref) })
	for i, c := range at {
		segment, start := chunks.BlockChunkRef(c.ref).Unpack()
		end := 0
		if i+1 < len(at) {
			if s, e := chunks.BlockChunkRef(at[i+1].ref).Unpack(); s == segment {
				end = e
			}
		}
		if end == 0 {
			end = segmentBytes(dir, m, segment)
		}
		if end > start && c.metric != nil {
			c.metric.Bytes += int64(end - start)
		}
	}
}

// segmentBytes is how long a segment is, by meta.json or by the file; 0: unknown.
func segmentBytes(dir string, m *block.Meta, segment int) int {
	name := fmt.Sprintf("%s/%06d", block.ChunksDirname, segment+1)
	for _, f := range m.Thanos.Files {
		if f.RelPath == name {
			return int(f.SizeBytes)
		}
	}
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// Result sums up; metrics and labels are cut to the top n, 0: all are there.
func (a *Analyzer) Result(n int) Analysis {
	out := Analysis{Blocks: a.blocks, Samples: a.samples, Metrics: []MetricCost{}, Labels: []LabelCost{}}
	for _, m := range a.metrics {
		c := m.MetricCost
		if m.samples > 0 {
			c.BytesPerSample = float64(c.Bytes) / m.samples
		}
		out.Series, out.Chunks, out.Bytes = out.Series+c.Series, out.Chunks+c.Chunks, out.Bytes+c.Bytes
		out.Metrics = append(out.Metrics, c)
	}
	slices.SortFunc(out.Metrics, func(x, y MetricCost) int {
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(y.Series, x.Series), strings.Compare(x.Name, y.Name))
	})
	for _, name := range slices.Sorted(maps.Keys(a.labels)) {
		s := a.labels[name]
		c := LabelCost{Name: name, Values: len(s.values), Series: s.series}
		for v := range s.values {
			c.Bytes += int64(len(v))
		}
		out.Labels = append(out.Labels, c)
	}
	slices.SortStableFunc(out.Labels, func(x, y LabelCost) int { return cmp.Compare(y.Values, x.Values) })
	if n > 0 {
		out.Metrics = out.Metrics[:min(n, len(out.Metrics))]
		out.Labels = out.Labels[:min(n, len(out.Labels))]
	}
	return out
}
