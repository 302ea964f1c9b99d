package tools_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// samplesOf reads a raw block of a bucket: samples by labels and time, as text.
func samplesOf(t *testing.T, b block.Bucket, m *block.Meta) map[string]map[int64]string {
	t.Helper()
	dir, err := tools.Download(t.Context(), b, m, t.TempDir())
	require.NoError(t, err)
	_, err = block.Verify(t.Context(), dir)
	require.NoError(t, err)
	local, err := localblock.Open(dir)
	require.NoError(t, err)
	defer local.Close()
	out := map[string]map[int64]string{}
	for s, err := range local.All(t.Context()) {
		require.NoError(t, err)
		it, err := local.Samples(s.Chunks)
		require.NoError(t, err)
		samples := map[int64]string{}
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			switch vt {
			case chunkenc.ValFloat:
				ts, v := it.At()
				samples[ts] = fmt.Sprint(v)
			case chunkenc.ValHistogram:
				ts, h := it.AtHistogram(nil)
				samples[ts] = h.String()
			default:
				ts, h := it.AtFloatHistogram(nil)
				samples[ts] = h.String()
			}
		}
		require.NoError(t, it.Err())
		out[s.Labels.String()] = samples
	}
	return out
}

// mixed uploads a block of floats and histograms.
func mixed(t *testing.T, b block.Bucket, n int, r *rand.Rand) *block.Meta {
	t.Helper()
	dir := t.TempDir()
	var series []blocktest.Series
	for i := range 20 {
		var samples []blocktest.Sample
		for at := int64(0); at < 2*hour; at += 15_000 + r.Int64N(30_000) {
			s := blocktest.Sample{T: at, F: r.Float64()}
			if i%5 == 4 {
				s = blocktest.Sample{T: at, H: blocktest.Histogram(at / 15_000)}
			}
			samples = append(samples, s)
		}
		series = append(series, blocktest.Series{Labels: labels.FromStrings("__name__", fmt.Sprintf("m%d", i%4), "i", fmt.Sprint(i)), Samples: samples})
	}
	m := blocktest.Write(t, dir, series, labels.FromStrings("cluster", "a"), blocktest.Options{ID: id(n), MaxTime: 2 * hour})
	m = blocktest.Upload(t, b, dir, m)
	return &m
}

func rewriting(t *testing.T, deletes, relabels string) *tools.Rewriting {
	t.Helper()
	r, err := tools.ParseRewriting([]byte(deletes), []byte(relabels))
	require.NoError(t, err)
	return r
}

// TestRewriteTakesOutWhatWasAsked compares with samples taken out one by one.
func TestRewriteTakesOutWhatWasAsked(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			b := bucket.NewMemory()
			m := mixed(t, b, 5, r)
			want := samplesOf(t, b, m)
			from := r.Int64N(2 * hour)
			to := from + r.Int64N(hour)
			name := fmt.Sprintf("m%d", r.IntN(4))
			dropped := uint64(0)
			for lset, samples := range want {
				hit := len(lset) > 14 && lset[:len(`{__name__="m0"`)] == `{__name__="`+name+`"`
				for at := range samples {
					if hit && from <= at && at <= to {
						delete(samples, at)
						dropped++
					}
				}
				if len(samples) == 0 {
					delete(want, lset)
				}
			}
			rw := rewriting(t, fmt.Sprintf(`[{matchers: '%s{cluster="a"}', intervals: [{mint: %d, maxt: %d}]}]`, name, from, to), "")
			p := tools.RewriteParts{Bucket: b, Log: quiet, Dir: t.TempDir(), DryRun: true}
			before := len(b.Objects())
			done, err := rw.Block(t.Context(), p, m.ULID)
			require.NoError(t, err)
			require.Equal(t, dropped, done.SamplesDropped)
			require.Equal(t, before, len(b.Objects()), "a dry run writes nothing")
			p.DryRun = false
			done, err = rw.Block(t.Context(), p, m.ULID)
			require.NoError(t, err)
			if dropped == 0 {
				require.True(t, done.Unchanged)
				return
			}
			next, err := block.FetchMeta(t.Context(), b, done.New)
			require.NoError(t, err)
			require.Equal(t, want, samplesOf(t, b, next))
			require.Equal(t, uint64(len(want)), next.Stats.NumSeries)
			require.Equal(t, block.SourceBucketRewrite, next.Thanos.Source)
			require.Equal(t, m.Sources(), next.Sources())
			mark, err := block.ReadDeletionMark(t.Context(), b, m.ULID)
			require.NoError(t, err)
			require.Contains(t, mark.Details, next.ULID.String())
			require.Equal(t, []ulid.ULID{m.ULID}, block.Duplicates(map[ulid.ULID]*block.Meta{m.ULID: m, next.ULID: next}), "the new one is read from the moment it is there")
			again, err := rw.Block(t.Context(), p, m.ULID)
			require.NoError(t, err)
			require.Equal(t, done.New, again.New)
		})
	}
}

func TestRewriteRelabels(t *testing.T) {
	b := bucket.NewMemory()
	m := mixed(t, b, 5, rand.New(rand.NewPCG(1, 1)))
	was := samplesOf(t, b, m)
	rw := rewriting(t, "", `[{action: drop, source_labels: [__name__], regex: m0}, {action: replace, source_labels: [i], target_label: z, replacement: "z$1"}, {action: labeldrop, regex: i}]`)
	done, err := rw.Block(t.Context(), tools.RewriteParts{Bucket: b, Log: quiet, Dir: t.TempDir(), ChangeLog: true}, m.ULID)
	require.NoError(t, err)
	require.Equal(t, [3]uint64{20, 5, 15}, [3]uint64{done.Series, done.SeriesDropped, done.SeriesChanged})
	next, err := block.FetchMeta(t.Context(), b, done.New)
	require.NoError(t, err)
	got := samplesOf(t, b, next)
	require.Len(t, got, 15)
	require.Equal(t, was[`{__name__="m1", i="13"}`], got[`{__name__="m1", z="z13"}`])
	require.Contains(t, string(b.Objects()[block.Name(done.New, "change.log")]), "5 of 20 series dropped")
	var ext block.Extension
	ext, ok, err := next.Extension()
	require.NoError(t, err)
	require.True(t, ok && ext.Thinned, "what was downsampled before can't be made of it")
	require.True(t, json.Valid(next.Thanos.Rewrites[0].RelabelsApplied[0]))

	_, err = rewriting(t, "", `[{action: labeldrop, regex: i}]`).Block(t.Context(), tools.RewriteParts{Bucket: b, Log: quiet, Dir: t.TempDir()}, m.ULID)
	require.ErrorContains(t, err, "makes one series of several")
	all := rewriting(t, `[{matchers: '{cluster="a"}'}]`, "")
	done, err = all.Block(t.Context(), tools.RewriteParts{Bucket: b, Log: quiet, Dir: t.TempDir()}, m.ULID)
	require.NoError(t, err)
	require.Equal(t, uint64(20), done.SeriesDropped)
	_, err = block.FetchMeta(t.Context(), b, done.New)
	require.ErrorIs(t, err, block.ErrPartial, "nothing is left, so there is no block")
}

func TestParseRewriting(t *testing.T) {
	for name, tc := range map[string][3]string{
		"nothing":   {"", "", "give one of them"},
		"selector":  {"[{matchers: 'up{'}]", "", "matchers"},
		"interval":  {"[{matchers: up, intervals: [{mint: 2, maxt: 1}]}]", "", "ends before it begins"},
		"rules":     {"", "[{action: dance}]", "to-relabel-config"},
		"empty":     {"", "[null]", "is empty"},
		"misspelt":  {"[{matchers: up, interval: []}]", "", "line 1: unknown key \"interval\""},
		"not lists": {"a: b", "", "to-delete-config"},
	} {
		_, err := tools.ParseRewriting([]byte(tc[0]), []byte(tc[1]))
		require.ErrorContains(t, err, tc[2], name)
	}
}

func TestUploadGoesOn(t *testing.T) {
	dir := t.TempDir()
	for n := range 3 {
		blocktest.Write(t, dir, []blocktest.Series{{Labels: labels.FromStrings("__name__", "up"), Samples: blocktest.Floats(int64(n)*hour, int64(n+1)*hour, 15_000, func(int64) float64 { return 1 })}}, labels.EmptyLabels(), blocktest.Options{ID: id(n)})
	}
	b := bucket.NewMemory()
	u := tools.Upload{Bucket: b, Log: quiet}
	_, err := u.Dir(t.Context(), dir)
	require.ErrorContains(t, err, "has no external labels: give them by --label")

	u.Labels = labels.FromStrings("cluster", "a")
	u.Bucket = bucket.WithFaults(b, func(_ context.Context, point, object string) error {
		if point == "bucket/upload/before" && object == block.Name(id(1), "index") {
			return errors.New("cut off")
		}
		return nil
	})
	sent, err := u.Dir(t.Context(), dir)
	require.ErrorContains(t, err, "cut off")
	require.Len(t, sent, 3, "one that fails stops no other")
	require.NotEmpty(t, sent[1].Error)
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	require.Len(t, v.Metas, 2)

	u.Bucket = b
	var last [2]int64
	u.Sent = func(done, all int64) { last = [2]int64{done, all} }
	sent, err = u.Dir(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, [3]bool{true, false, true}, [3]bool{sent[0].Already, sent[1].Already, sent[2].Already})
	require.Equal(t, last[1], last[0])
	m, err := block.FetchMeta(t.Context(), b, id(1))
	require.NoError(t, err)
	require.Equal(t, block.SourceBucketUpload, m.Thanos.Source)
	require.Equal(t, `{cluster="a"}`, m.Labels().String())
	_, err = u.Dir(t.Context(), t.TempDir())
	require.ErrorIs(t, err, tools.ErrNoBlocks)
}

// TestReplicateSurvivesACut: killed before any object it copies, a block is not
// visible in the second bucket, and another run makes both equal.
func TestReplicateSurvivesACut(t *testing.T) {
	from := bucket.NewMemory()
	ship(t, from, 1, 0, 2, "a")
	ship(t, from, 2, 2, 4, "a")
	ship(t, from, 3, 0, 2, "b")
	v, err := look(t, `--selector=cluster="a"`).In(t.Context(), from, quiet)
	require.NoError(t, err)
	to := bucket.NewMemory()
	cut := errors.New("cut off")
	runs := 0
	for ; ; runs++ {
		require.Less(t, runs, 20)
		steps := 0
		r := tools.Replication{From: from, To: to, Log: quiet, Fault: func(string, string) error {
			if steps++; steps > 1 { // one step a run
				return cut
			}
			return nil
		}}
		_, err := r.Blocks(t.Context(), v)
		for _, m := range v.Metas {
			if got, err := block.FetchMeta(t.Context(), to, m.ULID); err == nil {
				require.NoError(t, block.VerifyRemote(t.Context(), to, got), "what is visible is whole")
			}
		}
		if err == nil {
			break
		}
		require.ErrorIs(t, err, cut)
	}
	require.Positive(t, runs)
	for name, data := range to.Objects() {
		require.Equal(t, from.Objects()[name], data, name)
	}
	require.Len(t, to.Objects(), 6)

	c := counted(to)
	r := tools.Replication{From: from, To: c, Log: quiet, SkipMarked: true}
	sent, err := r.Blocks(t.Context(), v)
	require.NoError(t, err)
	require.True(t, sent[0].Already && sent[1].Already)
	require.Len(t, c.calls, 2, "what is there costs one request")
	r = tools.Replication{From: from, To: bucket.NewMemory(), Log: quiet, Resolutions: []int64{block.Resolution5m}}
	sent, err = r.Blocks(t.Context(), v)
	require.NoError(t, err)
	require.Empty(t, sent)
	r.Resolutions, r.MinLevel = nil, 2
	sent, err = r.Blocks(t.Context(), v)
	require.NoError(t, err)
	require.Empty(t, sent)
}
