package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Behaviour is how a Fake misbehaves. The zero value is a faultless Store.
type Behaviour struct {
	Delay       time.Duration // before each answer
	SeriesDelay time.Duration // before each series
	Err         error         // of each call, after Delay
	StreamErr   error         // ends a set after FailAfter series
	FailAfter   int
	Report      storeapi.Report // told beside each answer
}

// Fake is a Store in memory. It is safe for concurrent use.
type Fake struct {
	series   []storeapi.Series
	info     storeapi.Info
	requires bool // a matcher that speaks of more than external labels

	mu struct {
		sync.Mutex
		behaviour  Behaviour
		selections []storeapi.Selection
		open       int
	}
}

var _ storeapi.Store = (*Fake)(nil)

// NewFake returns a Store of series, given in any order with all their labels,
// external ones included; those with equal labels become one. It shards and
// removes replica labels only where info says that it can.
func NewFake(series []storeapi.Series, info storeapi.Info) *Fake {
	return &Fake{series: mergeEqual(slices.Clone(series)), info: info}
}

// NewFakeOf returns a Fake of in, which behaves as a sidecar does: it refuses
// selections without matchers on labels that are not external.
func NewFakeOf(t testing.TB, in Input) *Fake {
	t.Helper()
	var series []storeapi.Series
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range in.Series {
		b.Reset(s.Labels)
		in.External.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		series = append(series, storeapi.Series{Labels: b.Labels(), Chunks: Chunks(t, s.Samples, false, 0)})
	}
	f := NewFake(series, storeapi.Info{
		Component: "sidecar", LabelSets: []labels.Labels{in.External}, Mint: in.Mint, Maxt: in.Maxt,
		TSDBs:            []storeapi.TSDBInfo{{Labels: in.External, Mint: in.Mint, Maxt: in.Maxt}},
		SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true},
	})
	f.requires = true
	return f
}

// Behave sets how the Fake behaves from the next call on.
func (f *Fake) Behave(b Behaviour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.behaviour = b
}

// Selections returns the selections of all calls so far, oldest first.
func (f *Fake) Selections() []storeapi.Selection {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.selections)
}

// Open returns how many sets have not been closed.
func (f *Fake) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.open
}

// Info returns what NewFake was given.
func (f *Fake) Info(ctx context.Context) (storeapi.Info, error) {
	if _, err := f.begin(ctx, nil); err != nil {
		return storeapi.Info{}, err
	}
	return f.info, nil
}

// Series implements storeapi.Store.
func (f *Fake) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	b, err := f.begin(ctx, &sel)
	if err != nil {
		return nil, err
	}
	if f.requires && !f.enoughMatchers(sel.Matchers) {
		return nil, fmt.Errorf("%w: no matchers specified (excluding external labels)", storeapi.ErrBadRequest)
	}
	selected := f.selectSeries(sel)
	if sel.Limit > 0 && len(selected) > sel.Limit {
		selected = selected[:sel.Limit]
	}
	f.mu.Lock()
	f.mu.open++
	f.mu.Unlock()
	return &fakeSet{ctx: ctx, fake: f, behaviour: b, series: selected, at: -1}, nil
}

// LabelNames implements storeapi.Store.
func (f *Fake) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	return f.strings(ctx, sel, func(l labels.Label) string { return l.Name })
}

// LabelValues implements storeapi.Store.
func (f *Fake) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	if name == "" {
		return nil, storeapi.Report{}, fmt.Errorf("%w: label name parameter cannot be empty", storeapi.ErrBadRequest)
	}
	return f.strings(ctx, sel, func(l labels.Label) string {
		if l.Name == name {
			return l.Value
		}
		return ""
	})
}

// strings collects what of returns for the labels of the selected series.
func (f *Fake) strings(ctx context.Context, sel storeapi.Selection, of func(labels.Label) string) ([]string, storeapi.Report, error) {
	b, err := f.begin(ctx, &sel)
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	var out []string
	for _, s := range f.selectSeries(sel) {
		s.Labels.Range(func(l labels.Label) {
			if v := of(l); v != "" {
				out = append(out, v)
			}
		})
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if sel.Limit > 0 && len(out) > sel.Limit {
		out = out[:sel.Limit]
	}
	return out, b.Report, nil
}

// begin takes note of a call and makes it wait or fail as it should.
func (f *Fake) begin(ctx context.Context, sel *storeapi.Selection) (Behaviour, error) {
	f.mu.Lock()
	b := f.mu.behaviour
	if sel != nil {
		f.mu.selections = append(f.mu.selections, *sel)
	}
	f.mu.Unlock()
	if err := wait(ctx, b.Delay); err != nil {
		return b, err
	}
	return b, b.Err
}

// enoughMatchers tells whether one speaks of a label that is not external.
func (f *Fake) enoughMatchers(ms []*labels.Matcher) bool {
	for _, ext := range f.info.LabelSets {
		if rest, ok := block.MatchExternal(ext, ms); len(rest) > 0 || !ok {
			return true
		}
	}
	return false
}

// selectSeries returns the series of a selection without its limit, sorted.
func (f *Fake) selectSeries(sel storeapi.Selection) []storeapi.Series {
	var out []storeapi.Series
	var buf []byte
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range f.series {
		if !matches(s.Labels, sel.Matchers) {
			continue
		}
		chunks := overlapping(s.Chunks, sel.Mint, sel.Maxt)
		if len(s.Chunks) > 0 && len(chunks) == 0 {
			continue
		}
		if sel.SkipChunks {
			chunks = nil
		}
		lset := s.Labels
		if f.info.SupportsWithoutReplicaLabels {
			b.Reset(lset)
			lset = b.Del(sel.WithoutReplicaLabels...).Labels()
		}
		var mine bool
		if mine, buf = sel.Shard.Matches(lset, buf); f.info.SupportsSharding && !mine {
			continue
		}
		out = append(out, storeapi.Series{Labels: lset, Chunks: chunks})
	}
	return mergeEqual(out)
}

func matches(lset labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

func overlapping(chunks []storeapi.Chunk, mint, maxt int64) (out []storeapi.Chunk) {
	for _, c := range chunks {
		if c.MinTime <= maxt && c.MaxTime >= mint {
			out = append(out, c)
		}
	}
	return out
}

// mergeEqual sorts series and makes one of those with equal labels.
func mergeEqual(series []storeapi.Series) []storeapi.Series {
	slices.SortStableFunc(series, func(a, b storeapi.Series) int { return labels.Compare(a.Labels, b.Labels) })
	var out []storeapi.Series
	for _, s := range series {
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels, s.Labels) {
			out[n-1].Chunks = storeapi.SortChunks(slices.Concat(out[n-1].Chunks, s.Chunks))
			continue
		}
		out = append(out, s)
	}
	return out
}

// wait returns nil after d, or the context's error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// fakeSet is one answer of a Fake.
type fakeSet struct {
	ctx       context.Context // of the call, which the set is a part of
	fake      *Fake
	behaviour Behaviour
	series    []storeapi.Series
	at        int
	err       error
	closed    bool
}

func (s *fakeSet) Next() bool {
	if s.err != nil || s.closed {
		return false
	}
	if s.err = wait(s.ctx, s.behaviour.SeriesDelay); s.err != nil {
		return false
	}
	s.at++
	if s.behaviour.StreamErr != nil && s.at >= s.behaviour.FailAfter {
		s.err = s.behaviour.StreamErr
		return false
	}
	return s.at < len(s.series)
}

func (s *fakeSet) At() storeapi.Series     { return s.series[s.at] }
func (s *fakeSet) Err() error              { return s.err }
func (s *fakeSet) Report() storeapi.Report { return s.behaviour.Report }

func (s *fakeSet) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.fake.mu.Lock()
	s.fake.mu.open--
	s.fake.mu.Unlock()
}
