package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// promptly is how long a Store may take for what it should do at once. No machine
// is so busy that it takes longer, and no timeout of a Store is so short.
const promptly = 2 * time.Minute

// Option changes what Run demands.
type Option func(*suite)

// RequiresMatchers demands that Series refuses a selection without a matcher
// for a label that is not external.
func RequiresMatchers() Option { return func(s *suite) { s.requiresMatchers = true } }

// Run runs the conformance suite over the Stores that newStore makes of an Input.
func Run(t *testing.T, newStore func(t *testing.T, in Input) storeapi.Store, opts ...Option) {
	s := &suite{newStore: newStore, in: dataSet()}
	for _, o := range opts {
		o(s)
	}
	t.Run("info", s.info)
	t.Run("series", s.series)
	t.Run("matchers", s.matchers)
	t.Run("external labels", s.external)
	t.Run("times", s.times)
	t.Run("options", s.options)
	t.Run("sharding", s.sharding)
	t.Run("without replica labels", s.withoutReplicaLabels)
	t.Run("labels", s.labels)
	t.Run("bad requests", s.badRequests)
	t.Run("endings", s.endings)
}

type suite struct {
	newStore         func(t *testing.T, in Input) storeapi.Store
	in               Input
	requiresMatchers bool
}

func (s *suite) store(t *testing.T) storeapi.Store {
	t.Helper()
	store := s.newStore(t, s.in)
	require.NotNil(t, store)
	return store
}

// all selects the whole time range.
func (s *suite) all(ms ...*labels.Matcher) storeapi.Selection {
	return storeapi.Selection{Mint: s.in.Mint, Maxt: s.in.Maxt, Matchers: ms}
}

// want is what a correct Store answers to sel: series with the samples in the
// selection's time range. It works the slow way, over samples.
func (s *suite) want(sel storeapi.Selection) []Series {
	merged := map[string]*Series{}
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, in := range s.in.Series {
		b.Reset(in.Labels)
		s.in.External.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		if lset := b.Labels(); !matches(lset, sel.Matchers) {
			continue
		}
		lset := b.Del(sel.WithoutReplicaLabels...).Labels()
		samples := Within(in.Samples, sel.Mint, sel.Maxt)
		if mine, _ := sel.Shard.Matches(lset, nil); !mine || len(samples) == 0 {
			continue
		}
		m := merged[lset.String()]
		if m == nil {
			m = &Series{Labels: lset}
			merged[lset.String()] = m
		}
		m.Samples = append(m.Samples, samples...)
	}
	var out []Series
	for _, m := range merged {
		m.Samples = tidy(m.Samples)
		if sel.SkipChunks {
			m.Samples = nil
		}
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return out
}

// get reads what a Store answers to sel, checking what holds for every answer.
func get(t *testing.T, store storeapi.Store, sel storeapi.Selection) []Series {
	t.Helper()
	set, err := store.Series(t.Context(), sel)
	require.NoError(t, err)
	defer set.Close()
	out := drain(t, set, sel)
	require.NoError(t, set.Err())
	require.Empty(t, set.Report().Warnings)
	require.False(t, set.Next(), "Next after the end")
	return out
}

// drain reads a set to its end and checks the order of series and chunks.
func drain(t *testing.T, set storeapi.SeriesSet, sel storeapi.Selection) (out []Series) {
	t.Helper()
	for set.Next() {
		at := set.At()
		if n := len(out); n > 0 {
			require.Negative(t, labels.Compare(out[n-1].Labels, at.Labels), "%s is followed by %s", out[n-1].Labels, at.Labels)
		}
		name, dup := at.Labels.HasDuplicateLabelNames()
		require.False(t, dup, "label %s is there twice in %s", name, at.Labels)
		checkChunks(t, at, sel)
		series := Series{Labels: at.Labels}
		if !sel.SkipChunks {
			series.Samples = Samples(t, at.Chunks, sel.Mint, sel.Maxt)
		}
		// Chunks may overlap the selection without a sample in it.
		if sel.SkipChunks || len(series.Samples) > 0 {
			out = append(out, series)
		}
	}
	return out
}

func checkChunks(t *testing.T, s storeapi.Series, sel storeapi.Selection) {
	t.Helper()
	if sel.SkipChunks {
		require.Empty(t, s.Chunks, "chunks of %s were to be skipped", s.Labels)
		return
	}
	require.NotEmpty(t, s.Chunks, "series %s has no chunks", s.Labels)
	for i, c := range s.Chunks {
		require.LessOrEqual(t, c.MinTime, c.MaxTime)
		require.True(t, c.MinTime <= sel.Maxt && c.MaxTime >= sel.Mint, "chunk %d..%d of %s is outside of the selection", c.MinTime, c.MaxTime, s.Labels)
		if i == 0 {
			continue
		}
		prev := s.Chunks[i-1]
		require.True(t, prev.MinTime < c.MinTime || prev.MinTime == c.MinTime && prev.MaxTime <= c.MaxTime, "chunks of %s are out of order", s.Labels)
	}
}

func matcher(t *testing.T, typ labels.MatchType, name, value string) *labels.Matcher {
	t.Helper()
	m, err := labels.NewMatcher(typ, name, value)
	require.NoError(t, err)
	return m
}

func equal(t *testing.T, name, value string) *labels.Matcher {
	t.Helper()
	return matcher(t, labels.MatchEqual, name, value)
}
