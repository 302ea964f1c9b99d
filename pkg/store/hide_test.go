package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

func hide(t testing.TB, bkt block.Bucket, mint, maxt int64, selectors ...string) *block.DeleteRequest {
	t.Helper()
	r, err := block.CreateDelete(t.Context(), bkt, block.DeleteRequest{Selectors: selectors, MinTime: mint, MaxTime: maxt})
	require.NoError(t, err)
	return r
}

// timesOf decodes the times of all samples, whatever was asked for.
func timesOf(t testing.TB, chunks []storeapi.Chunk) (out []int64) {
	t.Helper()
	for _, c := range chunks {
		d := c.Raw
		if c.Aggr != nil {
			d = c.Aggr.Count
		}
		chunk, err := d.Chunk()
		require.NoError(t, err)
		for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
			out = append(out, it.AtT())
		}
	}
	return out
}

// TestHiddenAsIfRemoved asks the gateway for random selections of a bucket with
// random delete requests. Its answers are those of Prometheus' querier without
// the samples that the requests name, and nothing of these is in any chunk.
func TestHiddenAsIfRemoved(t *testing.T) {
	const seed = 31
	rnd := rand.New(rand.NewPCG(seed, seed))
	series := odd(rnd, 60)
	w := newTwin(t, series, blocktest.Options{SegmentBytes: 20_000}, "--debug.series-batch-size=17", "--store.chunk-window-size=5000")
	hidden := 0
	for i := range 120 {
		var requests []*block.DeleteRequest
		for range 1 + rnd.IntN(3) {
			var parts []string
			for _, m := range randomMatchers(t, rnd) {
				parts = append(parts, m.String())
			}
			if rnd.IntN(3) == 0 {
				parts = append(parts, []string{`A="x"`, `A="y"`, `A=~"x|z"`}[rnd.IntN(3)])
			}
			from := int64(rnd.IntN(5_000_000))
			requests = append(requests, &block.DeleteRequest{Selectors: []string{"{" + strings.Join(parts, ",") + "}"}, MinTime: from, MaxTime: from + int64(rnd.IntN(3_000_000))})
		}
		bkt := bucket.NewMemory()
		for _, r := range requests {
			r.Everything = true
			_, err := block.CreateDelete(t.Context(), bkt, *r)
			require.NoError(t, err)
		}
		w.store.deletes = block.NewDeleteWatcher(w.store.cfg.Deletes, bkt, slog.New(slog.DiscardHandler), nil)
		require.NoError(t, w.store.deletes.Look(t.Context()))
		gone := removed(t, requests)

		sel := storeapi.Selection{Matchers: randomMatchers(t, rnd)}
		sel.Mint = int64(rnd.IntN(5_000_000))
		sel.Maxt = sel.Mint + int64(rnd.IntN(4_000_000))
		all, _ := drain(t, w.store, sel)
		for _, s := range all {
			require.NotEmpty(t, s.Chunks)
			for _, at := range timesOf(t, s.Chunks) {
				require.False(t, gone(s.Labels, at), "selection %d: %s at %d", i, s.Labels, at)
			}
		}
		want, left := w.left(t, sel, gone)
		hidden += left
		require.Equal(t, want, withSamples(w.got(t, sel)), "seed %d, selection %d", seed, i)

		sel.SkipChunks = true
		names := map[string]bool{}
		all, _ = drain(t, w.store, sel)
		for _, s := range all {
			names[labels.NewBuilder(s.Labels).Del("A").Labels().String()] = true
		}
		for _, l := range want {
			require.True(t, names[l[:strings.LastIndex(l, "}")+1]], "what has samples has labels: %s", l)
		}
	}
	require.Greater(t, hidden, 1000, "most requests should hide something")
}

// removed is the slow and obvious Hider.
func removed(t testing.TB, requests []*block.DeleteRequest) func(labels.Labels, int64) bool {
	var sets [][][]*labels.Matcher
	for _, r := range requests {
		ms, err := r.Matchers()
		require.NoError(t, err)
		sets = append(sets, ms)
	}
	return func(lset labels.Labels, at int64) bool {
		for i, r := range requests {
			if at < r.MinTime || at > r.MaxTime {
				continue
			}
			for _, ms := range sets[i] {
				if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) }) {
					return true
				}
			}
		}
		return false
	}
}

// left is what Prometheus' querier answers without what is gone, as wanted
// writes it, and how many samples that took away.
func (w twin) left(t testing.TB, sel storeapi.Selection, gone func(labels.Labels, int64) bool) (out []string, n int) {
	for _, line := range w.wanted(t, sel) {
		name := line[:strings.LastIndex(line, "}")+1]
		ms := selection(t, name).Matchers
		b := labels.NewScratchBuilder(len(ms) + 1)
		b.Add("A", "x")
		for _, m := range ms {
			b.Add(m.Name, m.Value)
		}
		b.Sort()
		lset := b.Labels()
		kept := name
		for _, sample := range strings.Fields(line[len(name):]) {
			stamp, _, _ := strings.Cut(sample, ":")
			at, err := strconv.ParseInt(stamp, 10, 64)
			require.NoError(t, err)
			if gone(lset, at) {
				n++
			} else {
				kept += " " + sample
			}
		}
		if kept != name {
			out = append(out, kept)
		}
	}
	return out, n
}

// TestHiddenByReplicaLabel: what is hidden is told by all labels, also by those
// that the answer is to be without, external or the series' own.
func TestHiddenByReplicaLabel(t *testing.T) {
	lset := labels.FromStrings("__name__", "m")
	samples := func(v float64) []blocktest.Sample {
		return blocktest.Floats(0, 600_000, 15_000, func(int64) float64 { return v })
	}
	for name, own := range map[string]bool{"external": false, "the series' own": true} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			if own {
				var both []blocktest.Series
				for i, r := range []string{"a", "b"} {
					both = append(both, blocktest.Series{Labels: labels.FromStrings("__name__", "m", "replica", r), Samples: samples(float64(i))})
				}
				upload(t, bkt, both, labels.FromStrings("cluster", "c"), blocktest.Options{})
			} else {
				for i, r := range []string{"a", "b"} {
					upload(t, bkt, []blocktest.Series{{Labels: lset, Samples: samples(float64(i))}}, labels.FromStrings("cluster", "c", "replica", r), blocktest.Options{})
				}
			}
			hide(t, bkt, 100_000, 200_000, `m{replica="a"}`)
			sel := selection(t, `{__name__="m"}`)
			sel.WithoutReplicaLabels = []string{"replica"}
			got, _ := drain(t, newGateway(t, bkt), sel)
			require.Len(t, got, 1)
			require.Equal(t, `{__name__="m", cluster="c"}`, got[0].Labels.String())
			seen := map[float64]int{}
			for _, c := range got[0].Chunks {
				chunk, err := c.Raw.Chunk()
				require.NoError(t, err)
				for it := chunk.Iterator(nil); it.Next() != chunkenc.ValNone; {
					at, v := it.At()
					require.False(t, v == 0 && at >= 100_000 && at <= 200_000)
					seen[v]++
				}
			}
			require.Equal(t, map[float64]int{0: 33, 1: 40}, seen)
		})
	}
}

func TestHiddenWindowsOfDownsampledBlocks(t *testing.T) {
	const m5 = block.Resolution5m
	bkt := bucket.NewMemory()
	var series []blocktest.Series
	for i := range 3 {
		end := int64(i+1)*m5 - 1
		one := downsampled(t, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), end, end)
		series = append(series, one)
	}
	upload(t, bkt, series, cluster, blocktest.Options{Resolution: m5, MinTime: 0, MaxTime: 3 * m5})
	hide(t, bkt, m5+1, m5+1, `m`)
	sel := selection(t, `{__name__="m"}`)
	sel.MaxResolution, sel.Aggregates = m5, []storeapi.Aggregate{storeapi.AggregateCount}
	got, _ := drain(t, newGateway(t, bkt), sel)
	require.Len(t, got, 2, "a window goes whole")
	require.Equal(t, []int64{m5 - 1}, timesOf(t, got[0].Chunks))
	require.Equal(t, []int64{3*m5 - 1}, timesOf(t, got[1].Chunks))
	require.EqualValues(t, 300_000, downsample.Resolution5m)
}

// TestHiddenChunksAreNotRead: what is hidden as a whole costs no read.
func TestHiddenChunksAreNotRead(t *testing.T) {
	bkt := bucket.NewMemory()
	upload(t, bkt, pods(1), cluster, blocktest.Options{})
	hide(t, bkt, 0, 7_200_000, `{pod="pod-0000",__name__!="metric_3"}`)
	got, report := drain(t, newGateway(t, bkt), selection(t, `{job="kubelet"}`))
	require.Len(t, got, 1)
	require.EqualValues(t, len(got[0].Chunks), report.Stats.ChunksFetched)
	require.EqualValues(t, 10, report.Stats.SeriesTouched)
}

// TestHiddenWithinTheInterval: a gateway that runs hides what is asked for, and
// shows it again when that is cancelled.
func TestHiddenWithinTheInterval(t *testing.T) {
	bkt := bucket.NewMemory()
	upload(t, bkt, pods(1), cluster, blocktest.Options{})
	s, err := New(newConfig(t, "--delete-requests.interval=10ms"), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, s.Run(ctx)) })
	defer wg.Wait()
	defer cancel()
	shown := func(want int) func() bool {
		return func() bool {
			if s.Ready() != nil {
				return false
			}
			got, _ := drain(t, s, selection(t, `{job="kubelet"}`))
			return len(got) == want
		}
	}
	require.Eventually(t, shown(10), 5*time.Minute, 5*time.Millisecond)
	r := hide(t, bkt, 0, 7_200_000, `metric_1`)
	require.Eventually(t, shown(9), 5*time.Minute, 5*time.Millisecond)
	_, err = block.CancelDelete(t.Context(), bkt, r.ID)
	require.NoError(t, err)
	require.Eventually(t, shown(10), 5*time.Minute, 5*time.Millisecond)
}

// deletesAway is a bucket whose delete requests can't be listed.
type deletesAway struct{ *bucket.Memory }

func (b deletesAway) ListSizes(ctx context.Context, prefix string, f func(block.Object) error) error {
	if strings.HasPrefix(prefix, "firnline/deletes/") {
		return errors.New("access denied")
	}
	return b.Memory.ListSizes(ctx, prefix, f)
}

// TestNotReadyBeforeDeletesAreKnown: rather no answer than one that shows what
// was to be hidden.
func TestNotReadyBeforeDeletesAreKnown(t *testing.T) {
	bkt := deletesAway{bucket.NewMemory()}
	upload(t, bkt, pods(1), cluster, blocktest.Options{})
	s, err := New(newConfig(t), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	for range startTries + 1 {
		require.ErrorContains(t, s.sync(t.Context()), "list delete requests")
	}
	require.ErrorContains(t, s.Ready(), "access denied")
	_, err = s.Series(t.Context(), selection(t, `{job="kubelet"}`))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
}
