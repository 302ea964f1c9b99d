package store

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/storeapi"
)

// twin is a block behind a gateway and behind Prometheus' own querier. The
// external label's name sorts before all others, so that adding it does not
// change the order.
type twin struct {
	store *Store
	local *tsdb.Block
}

func newTwin(t testing.TB, series []blocktest.Series, opts blocktest.Options, args ...string) twin {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	m := blocktest.Write(t, dir, series, labels.FromStrings("A", "x"), opts)
	blocktest.Upload(t, bkt, dir, m)
	local, err := tsdb.OpenBlock(nil, filepath.Join(dir, m.ULID.String()), nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, local.Close()) })
	return twin{newGateway(t, bkt, args...), local}
}

// local answers from Prometheus' querier, as text, one line a series.
func (w twin) wanted(t testing.TB, sel storeapi.Selection) (out []string) {
	q, err := tsdb.NewBlockQuerier(w.local, sel.Mint, sel.Maxt)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(context.Background(), true, nil, sel.Matchers...)
	for set.Next() {
		at := set.At()
		out = append(out, at.Labels().String()+samplesOf(at.Iterator(nil), sel))
	}
	require.NoError(t, set.Err())
	return out
}

// got answers from the gateway.
func (w twin) got(t testing.TB, sel storeapi.Selection) (out []string) {
	series, _ := drain(t, w.store, sel)
	for _, s := range series {
		lset := labels.NewBuilder(s.Labels).Del("A").Labels()
		text := lset.String()
		for _, c := range s.Chunks {
			chunk, err := c.Raw.Chunk()
			require.NoError(t, err)
			text += samplesOf(chunk.Iterator(nil), sel)
		}
		out = append(out, text)
	}
	return out
}

func samplesOf(it chunkenc.Iterator, sel storeapi.Selection) (out string) {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if t := it.AtT(); t < sel.Mint || t > sel.Maxt {
			continue
		}
		switch typ {
		case chunkenc.ValFloat:
			ts, v := it.At()
			out += fmt.Sprintf(" %d:%x", ts, math.Float64bits(v))
		default:
			ts, h := it.AtFloatHistogram(nil)
			out += fmt.Sprintf(" %d:%s", ts, h)
		}
	}
	return out
}

// odd are series with labels that many of them lack, with shared prefixes and odd bytes.
func odd(rnd *rand.Rand, n int) (out []blocktest.Series) {
	seen := map[string]bool{}
	for len(out) < n {
		b := labels.NewBuilder(labels.FromStrings("__name__", []string{"a", "ab", "b"}[rnd.IntN(3)]))
		for _, name := range []string{"code", "host", "path", "zone"} {
			if rnd.IntN(3) > 0 {
				b.Set(name, oddValues[rnd.IntN(len(oddValues))])
			}
		}
		lset := b.Labels()
		if seen[lset.String()] {
			continue
		}
		seen[lset.String()] = true
		start := int64(rnd.IntN(3600)) * 1000
		out = append(out, blocktest.Series{Labels: lset, Samples: blocktest.Floats(start, start+int64(1+rnd.IntN(3_000_000)), 15_000,
			func(t int64) float64 { return float64(t) / 3 })})
	}
	return out
}

var oddValues = []string{"1", "10", "100", "2", "a", "ab", "abc", "b", "Ab", "x y", "ü", "\x00z", "foo", "foobar", "foobaz", "bar"}

var oddPatterns = []string{"", "1", "a", "abc", "foobar", "nothing", ".*", ".+", "foo.*", "foo|bar", "a.+", "(?i)AB", "1|", "|a", "1.*|2", "[a-c]+", "foo(bar|baz)", ".*bar", "^$", "ab?", "x y"}

func randomMatchers(t testing.TB, rnd *rand.Rand) []*labels.Matcher {
	names := []string{"__name__", "code", "host", "path", "zone", "absent"}
	var ms []*labels.Matcher
	for range 1 + rnd.IntN(4) {
		typ := labels.MatchType(rnd.IntN(4))
		m, err := labels.NewMatcher(typ, names[rnd.IntN(len(names))], oddPatterns[rnd.IntN(len(oddPatterns))])
		require.NoError(t, err)
		ms = append(ms, m)
	}
	return ms
}

// TestSameAsPrometheus asks the gateway and Prometheus' querier for the same
// random selections of the same block.
func TestSameAsPrometheus(t *testing.T) {
	seed := uint64(11)
	rnd := rand.New(rand.NewPCG(seed, seed))
	series := odd(rnd, 400)
	for name, args := range map[string][]string{
		"defaults": nil,
		"tiny":     {"--debug.series-batch-size=7", "--store.chunk-window-size=2000", "--store.read-gap=10", "--store.read-size=300", "--index-cache-size=0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwin(t, series, blocktest.Options{SegmentBytes: 20_000}, args...)
			matched := 0
			for i := range 400 {
				sel := storeapi.Selection{Matchers: randomMatchers(t, rnd)}
				sel.Mint = int64(rnd.IntN(5_000_000))
				sel.Maxt = sel.Mint + int64(rnd.IntN(4_000_000))
				want := w.wanted(t, sel)
				got := w.got(t, sel)
				// A chunk may overlap the range without having a sample in it; Prometheus leaves such series out.
				got = withSamples(got)
				require.True(t, slices.Equal(want, got), "seed %d, selection %d: %v [%d, %d]: %d series wanted, %d got",
					seed, i, sel.Matchers, sel.Mint, sel.Maxt, len(want), len(got))
				if len(want) > 0 {
					matched++
				}
			}
			require.Greater(t, matched, 100, "most selections should match something")
		})
	}
}

// withSamples keeps the lines that have a sample.
func withSamples(lines []string) (out []string) {
	for _, l := range lines {
		if l[len(l)-1] != '}' {
			out = append(out, l)
		}
	}
	return out
}

// TestLabelsSameAsPrometheus compares names and values.
func TestLabelsSameAsPrometheus(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	w := newTwin(t, odd(rnd, 300), blocktest.Options{})
	q, err := tsdb.NewBlockQuerier(w.local, 0, 1<<50)
	require.NoError(t, err)
	defer q.Close()
	for range 150 {
		sel := storeapi.Selection{Mint: 0, Maxt: 1 << 50, Matchers: randomMatchers(t, rnd)}
		names, _, err := w.store.LabelNames(t.Context(), sel)
		require.NoError(t, err)
		want, _, err := q.LabelNames(t.Context(), &storage.LabelHints{}, sel.Matchers...)
		require.NoError(t, err)
		if len(want) > 0 {
			want = insert(want, "A")
		}
		require.Equal(t, append([]string{}, want...), append([]string{}, names...), "%v", sel.Matchers)
		for _, name := range []string{"__name__", "code", "absent"} {
			values, _, err := w.store.LabelValues(t.Context(), name, sel)
			require.NoError(t, err)
			want, _, err := q.LabelValues(t.Context(), name, &storage.LabelHints{}, sel.Matchers...)
			require.NoError(t, err)
			require.Equal(t, append([]string{}, want...), append([]string{}, values...), "%s of %v", name, sel.Matchers)
		}
	}
}

func insert(sorted []string, s string) (out []string) {
	for i, v := range sorted {
		if v > s {
			return append(append(append([]string{}, sorted[:i]...), s), sorted[i:]...)
		}
	}
	return append(append([]string{}, sorted...), s)
}
