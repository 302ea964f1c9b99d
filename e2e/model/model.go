// Package model is the reference that everything else is compared with: samples
// go in, and what any query over them must return comes out. It keeps all of it
// in memory, knows no blocks, chunks or replicas' merging, and is queryable by
// the standard PromQL engine, whose answer over it is the right one.
package model

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// Sample is a float or, where Hist or FloatHist is set, a histogram.
type Sample struct {
	Time      int64 // ms
	Value     float64
	Hist      *histogram.Histogram
	FloatHist *histogram.FloatHistogram
}

// Model holds series. Add to it from one goroutine; query it from any number
// once nothing is added any more.
type Model struct {
	series map[string]*series // by labels
}

type series struct {
	labels  labels.Labels
	samples []Sample // by time, each time once
}

// New returns a model without series.
func New() *Model { return &Model{series: map[string]*series{}} }

// Add puts samples, in any order, into a series. External labels override those
// that the series has itself. Of two samples of a time the first one stays.
func (m *Model) Add(external, lset labels.Labels, samples ...Sample) {
	full := withExternal(lset, external)
	s := m.series[full.String()]
	if s == nil {
		s = &series{labels: full}
		m.series[full.String()] = s
	}
	for _, sample := range samples {
		at, there := slices.BinarySearchFunc(s.samples, sample.Time, func(have Sample, t int64) int { return int(have.Time - t) })
		if !there {
			s.samples = slices.Insert(s.samples, at, sample)
		}
	}
}

// taken tells whether a series has a sample of a time.
func (m *Model) taken(external, lset labels.Labels, t int64) bool {
	s := m.series[withExternal(lset, external).String()]
	return s != nil && len(within(s.samples, t, t)) > 0
}

func (m *Model) remove(external, lset labels.Labels, t int64) {
	s := m.series[withExternal(lset, external).String()]
	s.samples = slices.DeleteFunc(s.samples, func(have Sample) bool { return have.Time == t })
}

// Without returns a model without some labels. Series that then are equal become
// one with the samples of all, which for equal replicas is what deduplication
// must come to.
func (m *Model) Without(names ...string) *Model {
	out := New()
	for _, key := range m.keys() {
		s := m.series[key]
		out.Add(labels.EmptyLabels(), labels.NewBuilder(s.labels).Del(names...).Labels(), s.samples...)
	}
	return out
}

// Has tells whether a series, by its full labels, has exactly this sample.
func (m *Model) Has(lset labels.Labels, want Sample) bool {
	s := m.series[lset.String()]
	if s == nil {
		return false
	}
	at, there := slices.BinarySearchFunc(s.samples, want.Time, func(have Sample, t int64) int { return int(have.Time - t) })
	return there && Equal(s.samples[at], want)
}

// Samples counts those at or after from and before to, ms.
func (m *Model) Samples(from, to int64) int {
	n := 0
	for _, s := range m.series {
		n += len(within(s.samples, from, to-1))
	}
	return n
}

// Equal compares samples bit for bit, histograms by what they say. A stale marker
// is one whatever its kind, which the TSDB adapts to the sample before.
func Equal(a, b Sample) bool {
	if a.stale() && b.stale() {
		return a.Time == b.Time
	}
	x, y := a.float(), b.float()
	if a.Time != b.Time || (x == nil) != (y == nil) {
		return false
	}
	if x == nil {
		return sameBits(a.Value, b.Value)
	}
	return sameHistogram(x, y)
}

func (s Sample) stale() bool {
	if h := s.float(); h != nil {
		return value.IsStaleNaN(h.Sum)
	}
	return value.IsStaleNaN(s.Value)
}

func (s Sample) float() *histogram.FloatHistogram {
	if s.Hist != nil {
		return s.Hist.ToFloat(nil)
	}
	return s.FloatHist
}

func (m *Model) keys() []string {
	keys := make([]string, 0, len(m.series))
	for k := range m.series {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// find returns the series that match and have a sample in [mint, maxt], sorted.
func (m *Model) find(mint, maxt int64, matchers []*labels.Matcher) []*series {
	var out []*series
	for _, s := range m.series {
		if matches(s.labels, matchers) && len(within(s.samples, mint, maxt)) > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
	return out
}

func matches(lset labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
}

func within(samples []Sample, mint, maxt int64) []Sample {
	byTime := func(s Sample, t int64) int {
		if s.Time < t {
			return -1
		}
		return 1
	}
	from, _ := slices.BinarySearchFunc(samples, mint, byTime)
	to := len(samples)
	if maxt+1 > maxt {
		to, _ = slices.BinarySearchFunc(samples, maxt+1, byTime)
	}
	return samples[from:max(from, to)]
}

func withExternal(lset, external labels.Labels) labels.Labels {
	b := labels.NewBuilder(lset)
	external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// Querier implements [storage.Queryable].
func (m *Model) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{model: m, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier is refused: a model has no chunks.
func (m *Model) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	return nil, errors.ErrUnsupported
}

type querier struct {
	model      *Model
	mint, maxt int64
}

func (q *querier) Close() error { return nil }

func (q *querier) Select(_ context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	var out []storage.Series
	for _, s := range q.model.find(mint, maxt, matchers) {
		var list []chunks.Sample
		for _, sample := range within(s.samples, mint, maxt) {
			list = append(list, point{sample})
		}
		out = append(out, storage.NewListSeries(s.labels, list))
	}
	return &set{series: out, at: -1}
}

func (q *querier) LabelValues(_ context.Context, name string, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	var out []string
	for _, s := range q.model.find(q.mint, q.maxt, matchers) {
		if v := s.labels.Get(name); v != "" {
			out = append(out, v)
		}
	}
	return sortedOnce(out), nil, nil
}

func (q *querier) LabelNames(_ context.Context, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	var out []string
	for _, s := range q.model.find(q.mint, q.maxt, matchers) {
		s.labels.Range(func(l labels.Label) { out = append(out, l.Name) })
	}
	return sortedOnce(out), nil, nil
}

func sortedOnce(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

type set struct {
	series []storage.Series
	at     int
}

func (s *set) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *set) At() storage.Series                { return s.series[s.at] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

// point is a sample as the storage package wants it. Histograms are handed out
// as copies, since whoever evaluates may change them.
type point struct{ Sample }

func (p point) T() int64            { return p.Time }
func (p point) ST() int64           { return 0 }
func (p point) F() float64          { return p.Value }
func (p point) Copy() chunks.Sample { return p }

func (p point) H() *histogram.Histogram {
	if p.Hist == nil {
		return nil
	}
	return p.Hist.Copy()
}

func (p point) FH() *histogram.FloatHistogram {
	if f := p.float(); f != nil {
		return f.Copy()
	}
	return nil
}

func (p point) Type() chunkenc.ValueType {
	switch {
	case p.Hist != nil:
		return chunkenc.ValHistogram
	case p.FloatHist != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}
