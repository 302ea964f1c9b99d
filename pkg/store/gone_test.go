package store

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/storeapi"
)

// publisher keeps a manifest of bkt, as a compactor does.
func publisher(t testing.TB, bkt block.Bucket) *block.Fetcher {
	t.Helper()
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Owner = "compactor"
	f, err := block.NewFetcher(cfg, bkt, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	for range 2 {
		publish(t, f)
	}
	return f
}

func publish(t testing.TB, f *block.Fetcher) {
	t.Helper()
	_, err := f.Fetch(t.Context())
	require.NoError(t, err)
	require.NoError(t, f.Publish(t.Context()))
}

// takeAway removes all objects of a block, or those that end in suffix.
func takeAway(t testing.TB, bkt *watched, id ulid.ULID, suffix string) (taken map[string][]byte) {
	t.Helper()
	taken = map[string][]byte{}
	for name, body := range bkt.Objects() {
		if strings.HasPrefix(name, id.String()) && strings.HasSuffix(name, suffix) {
			taken[name] = body
			require.NoError(t, bkt.Delete(t.Context(), name))
		}
	}
	return taken
}

// logged is newGateway with its log.
func logged(t testing.TB, bkt block.Bucket, args ...string) (*Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := New(newConfig(t, args...), bkt, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	s.now = standing()
	t.Cleanup(s.dropAll)
	require.NoError(t, s.sync(t.Context()))
	return s, &log
}

var headerModes = map[string]string{
	HeaderEager: "--store.index-header-lazy-download-strategy=eager",
	HeaderLazy:  "--store.index-header-lazy-download-strategy=lazy",
}

// RELIABILITY G1: a block that the manifest lists and the bucket no longer has is
// found out when it is loaded, and no query hears of it.
func TestGoneBeforeLoad(t *testing.T) {
	bkt := newWatched()
	first, _ := twoBlocks(t, bkt)
	publisher(t, bkt)
	takeAway(t, bkt, first.ULID, "")
	s, log := logged(t, bkt)
	require.True(t, s.byManifest)
	require.Equal(t, []string{"meta.json"}, bkt.takeAsked(first.ULID), "once")
	series, report := drain(t, s, selection(t, `{__name__="metric_1"}`))
	require.Len(t, series, 1)
	require.Empty(t, report.Warnings)
	require.Zero(t, testutil.ToFloat64(s.metrics.blocksBroken))
	require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksLoaded))
	require.Contains(t, log.String(), first.ULID.String())
	for range 3 {
		require.NoError(t, s.sync(t.Context()))
		require.Empty(t, bkt.takeAsked(first.ULID))
	}
}

// RELIABILITY G1: a block that is removed while it is served is named by the
// queries that need it until the next look, which drops it. Meanwhile nobody asks
// the bucket for it again.
func TestGoneAfterLoad(t *testing.T) {
	for name, mode := range headerModes {
		t.Run(name, func(t *testing.T) {
			bkt := newWatched()
			first, _ := twoBlocks(t, bkt)
			publisher(t, bkt)
			s, log := logged(t, bkt, mode)
			takeAway(t, bkt, first.ULID, "")
			sel := selection(t, `{__name__="metric_1"}`)
			_, _, err := readAll(t, s, sel)
			require.ErrorIs(t, err, storeapi.ErrUnavailable)
			require.ErrorContains(t, err, "block "+first.ULID.String()+" was removed or is incomplete")
			require.ErrorContains(t, err, first.ULID.String()+"/index")

			sel.PartialResponse = true
			bkt.takeReads()
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					series, report, err := readAll(t, s, sel)
					if err != nil || len(series) != 1 || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], first.ULID.String()+"/index") {
						t.Errorf("%d series, %v, %v", len(series), report.Warnings, err)
					}
				})
			}
			wg.Wait()
			require.Empty(t, bkt.takeAsked(first.ULID))
			for _, r := range bkt.reads {
				require.NotContains(t, r.name, first.ULID.String())
			}

			require.Len(t, s.lookAgain, 1)
			require.NoError(t, s.sync(t.Context()))
			require.Equal(t, []string{"meta.json"}, bkt.takeAsked(first.ULID), "once")
			series, report := drain(t, s, selection(t, `{__name__="metric_1"}`))
			require.Len(t, series, 1)
			require.Empty(t, report.Warnings)
			require.NoDirExists(t, s.cfg.DataDir+"/"+first.ULID.String())
			require.Contains(t, log.String(), first.ULID.String())
			require.Zero(t, testutil.ToFloat64(s.metrics.blocksBroken))
		})
	}
}

// RELIABILITY G1, P2: a block whose meta.json is there while other objects are
// not is set aside, for two small requests a look, and answers again when they
// are back.
func TestIncompleteBlock(t *testing.T) {
	for name, c := range map[string]struct {
		object string
		before bool // it is gone before the block is loaded
		plain  bool // meta.json doesn't tell which objects there are
	}{
		"index before load":                   {object: "index", before: true},
		"index before load, not in meta.json": {object: "index", before: true, plain: true},
		"index after load":                    {object: "index"},
		"segment before load":                 {object: "chunks/000001", before: true},
		"segment before load, not in meta":    {object: "chunks/000001", before: true, plain: true},
		"segment after load":                  {object: "chunks/000001"},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := newWatched()
			first, _ := twoSegments(t, bkt)
			if c.plain {
				first.Thanos.Files, first.Thanos.SegmentFiles = nil, nil
				body, err := first.Encode()
				require.NoError(t, err)
				require.NoError(t, bkt.Upload(t.Context(), block.Name(first.ULID, block.MetaFilename), bytes.NewReader(body)))
			}
			publisher(t, bkt)
			var taken map[string][]byte
			if c.before {
				taken = takeAway(t, bkt, first.ULID, c.object)
			}
			s, log := logged(t, bkt)
			if !c.before {
				taken = takeAway(t, bkt, first.ULID, c.object)
			}
			sel := selection(t, `{__name__=~"metric_.*"}`)
			for range 3 {
				_, _, err := readAll(t, s, sel)
				require.ErrorContains(t, err, first.ULID.String()+"/"+c.object)
				partial := sel
				partial.PartialResponse = true
				series, report, err := readAll(t, s, partial)
				require.NoError(t, err)
				require.True(t, slices.ContainsFunc(series, func(s storeapi.Series) bool { return s.Labels.Get("pod") == "late" }))
				require.Len(t, report.Warnings, 1)
				require.Contains(t, report.Warnings[0], first.ULID.String()+"/"+c.object)
				series, report = drain(t, s, selection(t, `{__name__="metric_1"} 8000000 9000000`))
				require.Len(t, series, 1)
				require.Empty(t, report.Warnings)

				bkt.takeAsked(first.ULID)
				bkt.takeReads()
				require.NoError(t, s.sync(t.Context()))
				require.LessOrEqual(t, len(bkt.takeAsked(first.ULID)), 2)
				require.Equal(t, "nothing\n", bkt.takeReads())
				require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken))
			}
			require.Equal(t, 1, strings.Count(log.String(), "can't be read"), log.String())
			for name, body := range taken {
				require.NoError(t, bkt.Upload(t.Context(), name, bytes.NewReader(body)))
			}
			require.NoError(t, s.sync(t.Context()))
			require.Zero(t, testutil.ToFloat64(s.metrics.blocksBroken))
			series, _ := drain(t, s, sel)
			require.Len(t, series, 31)
		})
	}
}

// twoSegments is twoBlocks with several segments in the first.
func twoSegments(t testing.TB, bkt block.Bucket) (first, second block.Meta) {
	t.Helper()
	first = upload(t, bkt, pods(3), cluster, blocktest.Options{SegmentBytes: 4096})
	later := []blocktest.Series{{Labels: labels.FromStrings("__name__", "metric_1", "pod", "late"),
		Samples: blocktest.Floats(7_200_000, 14_400_000, 15_000, func(t int64) float64 { return float64(t) })}}
	return first, upload(t, bkt, later, cluster, blocktest.Options{})
}

// A compacted block that lacks a segment hides nothing while the blocks it was
// made from are there, look after look, and takes over once it is whole.
func TestIncompleteBlockHidesNothing(t *testing.T) {
	bkt := newWatched()
	first, second := twoBlocks(t, bkt)
	merged := upload(t, bkt, pods(7), cluster, blocktest.Options{Level: 2, Sources: []ulid.ULID{first.ULID, second.ULID}})
	s := newGateway(t, bkt)
	taken := takeAway(t, bkt, merged.ULID, "chunks/000001")
	sel := selection(t, `{__name__="metric_1"}`)
	_, _, err := readAll(t, s, sel)
	require.ErrorContains(t, err, merged.ULID.String())
	for range 3 {
		require.NoError(t, s.sync(t.Context()))
		series, report := drain(t, s, sel)
		require.Len(t, series, 4)
		require.Empty(t, report.Warnings)
		require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken))
	}
	for name, body := range taken {
		require.NoError(t, bkt.Upload(t.Context(), name, bytes.NewReader(body)))
	}
	require.NoError(t, s.sync(t.Context()))
	series, _ := drain(t, s, sel)
	require.Len(t, series, 7)
	require.Empty(t, s.incomplete)
}

// RELIABILITY G1: blocks that went while what replaces them was not known yet
// are planned around, once: the query waits for a look and is whole.
func TestPlannedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := newWatched()
		first, second := twoBlocks(t, bkt)
		s, err := New(newConfig(t, "--sync-block-duration=1h"), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, s.Run(ctx)) })
		synctest.Wait()
		require.NoError(t, s.Ready())

		upload(t, bkt, pods(7), cluster, blocktest.Options{Level: 2, Sources: []ulid.ULID{first.ULID, second.ULID}})
		takeAway(t, bkt, first.ULID, "")
		sel := selection(t, `{__name__="metric_1"}`)
		series, report := drain(t, s, sel)
		require.Len(t, series, 7)
		require.Empty(t, report.Warnings)

		takeAway(t, bkt, s.view.Load().blocks[0].meta.ULID, "chunks/000001") // and nothing else stands for it
		_, _, err = readAll(t, s, sel)
		require.ErrorContains(t, err, "chunks/000001")
		names, _, err := s.LabelNames(t.Context(), selection(t, `{}`))
		require.ErrorContains(t, err, "chunks/000001")
		require.Empty(t, names)
		cancel()
		wg.Wait()
	})
}
