package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/store/internal/indexcache"
	"github.com/firnline/firnline/pkg/storeapi"
)

var cluster = labels.FromStrings("cluster", "a")

// twoBlocks are a block of pods and, two hours later, another one.
func twoBlocks(t testing.TB, bkt block.Bucket) (first, second block.Meta) {
	t.Helper()
	first = upload(t, bkt, pods(3), cluster, blocktest.Options{})
	later := []blocktest.Series{{Labels: labels.FromStrings("__name__", "metric_1", "pod", "late"),
		Samples: blocktest.Floats(7_200_000, 14_400_000, 15_000, func(t int64) float64 { return float64(t) })}}
	return first, upload(t, bkt, later, cluster, blocktest.Options{})
}

// corrupted checks that the first block fails as it should and the second is served.
func corrupted(t *testing.T, s *Store, first block.Meta, object string) {
	t.Helper()
	sel := selection(t, `{__name__="metric_1"}`)
	_, _, err := readAll(t, s, sel)
	require.ErrorIs(t, err, storeapi.ErrCorrupt)
	require.ErrorContains(t, err, "block "+first.ULID.String())
	require.ErrorContains(t, err, object)

	sel.PartialResponse = true
	series, report, err := readAll(t, s, sel)
	require.NoError(t, err)
	require.Len(t, report.Warnings, 1)
	require.Contains(t, report.Warnings[0], first.ULID.String())
	require.Equal(t, `{__name__="metric_1", cluster="a", pod="late"}`, series[len(series)-1].Labels.String())

	late := selection(t, `{__name__="metric_1"} 8000000 9000000`)
	series, report, err = readAll(t, s, late)
	require.NoError(t, err, "a selection that doesn't need the block is not touched")
	require.Empty(t, report.Warnings)
	require.Len(t, series, 1)
}

// RELIABILITY B1: bytes cut or flipped in index and chunks. Once is mended by
// reading again; for good is an error naming object and offset, or a warning.
func TestBrokenBytes(t *testing.T) {
	// The series and postings sections are most of the index, so a flip in the
	// middle of each read hits what was asked for.
	flip := func(_ int64, b []byte) []byte {
		for i := range b {
			b[i] ^= 0x04
		}
		return b
	}
	cut := func(_ int64, b []byte) []byte { return b[:len(b)/2] }
	for name, change := range map[string]func(int64, []byte) []byte{"flipped": flip, "cut": cut} {
		for _, object := range []string{"index", "chunks/000001"} {
			t.Run(name+" "+object, func(t *testing.T) {
				bkt := newWatched()
				first, _ := twoBlocks(t, bkt)
				s := newGateway(t, bkt, "--index-cache-size=0")
				bkt.breakObject(first.ULID.String()+"/"+object, change)
				corrupted(t, s, first, object+" ")

				broken := 2
				bkt.breakObject(first.ULID.String()+"/"+object, func(off int64, b []byte) []byte {
					if broken--; broken >= 0 && broken%2 == 1 { // the first of each two
						return change(off, b)
					}
					return b
				})
				series, _ := drain(t, s, selection(t, `{__name__="metric_1"}`))
				require.Len(t, series, 4, "an answer that is broken once is asked for again")
			})
		}
	}
}

// RELIABILITY B1, P6: objects that are stored broken: no header can be built or
// a chunk file is short. The block is set aside, said so, and the others served.
func TestBrokenObjects(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"index: contents": func(b []byte) []byte { b[len(b)-20] ^= 1; return b },
		"index: symbols":  func(b []byte) []byte { b[30] ^= 1; return b },
		"index: magic":    func(b []byte) []byte { b[0] ^= 1; return b },
		"index: short":    func(b []byte) []byte { return b[:len(b)-100] },
		"index: nothing":  func(b []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			first, _ := twoBlocks(t, bkt)
			object := block.Name(first.ULID, "index")
			require.NoError(t, bkt.Upload(t.Context(), object, bytes.NewReader(damage(bytes.Clone(bkt.Objects()[object])))))
			s := newGateway(t, bkt)
			require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken))
			corrupted(t, s, first, "index")
		})
	}
	t.Run("chunks: short", func(t *testing.T) {
		bkt := bucket.NewMemory()
		first, _ := twoBlocks(t, bkt)
		object := block.Name(first.ULID, "chunks/000001")
		require.NoError(t, bkt.Upload(t.Context(), object, bytes.NewReader(bkt.Objects()[object][:2000])))
		s := newGateway(t, bkt)
		sel := selection(t, `{__name__="metric_1"}`)
		_, _, err := readAll(t, s, sel)
		require.ErrorContains(t, err, first.ULID.String())
		sel.PartialResponse = true
		_, report, err := readAll(t, s, sel)
		require.NoError(t, err)
		require.Len(t, report.Warnings, 1)
	})
}

// A block whose index never came, and metas that can't be used, don't stop the others.
func TestUnusableBlocks(t *testing.T) {
	bkt := bucket.NewMemory()
	first, second := twoBlocks(t, bkt)
	require.NoError(t, bkt.Delete(t.Context(), block.Name(first.ULID, "index")))
	newer, torn := ulid.Make(), ulid.Make()
	require.NoError(t, bkt.Upload(t.Context(), block.Name(newer, "meta.json"), strings.NewReader(`{"version":7,"ulid":"`+newer.String()+`"}`)))
	require.NoError(t, bkt.Upload(t.Context(), block.Name(torn, "meta.json"), strings.NewReader(`{"version":1,"ulid":`)))

	var log bytes.Buffer
	cfg := newConfig(t)
	s, err := New(cfg, bkt, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(s.dropAll)
	for range 3 {
		require.NoError(t, s.sync(t.Context()))
	}
	require.NoError(t, s.Ready())
	require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken))
	for _, id := range []ulid.ULID{newer, torn, first.ULID} {
		require.Contains(t, log.String(), id.String())
	}
	require.Equal(t, 3, strings.Count(log.String(), "level=WARN"), "each block is logged once: %s", log.String())

	_, _, err = readAll(t, s, selection(t, `{__name__="metric_1"}`))
	require.ErrorContains(t, err, first.ULID.String(), "a block that is known and can't be read is no silent hole")
	series, _ := drain(t, s, selection(t, `{__name__="metric_1"} 8000000 9000000`))
	require.Len(t, series, 1)
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, second.MaxTime, info.Maxt)
}

// A block that could not be prepared is tried again by the next sync.
func TestBrokenBlockRecovers(t *testing.T) {
	bkt := newWatched()
	first, _ := twoBlocks(t, bkt)
	bkt.breakObject(first.ULID.String()+"/index", func(_ int64, b []byte) []byte { return nil })
	s := newGateway(t, bkt)
	require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken))
	bkt.change = nil
	_, _, err := readAll(t, s, selection(t, `{__name__="metric_1"}`))
	require.Error(t, err, "not at once: a broken block is left alone for a while")
	require.NoError(t, s.sync(t.Context()))
	require.EqualValues(t, 0, testutil.ToFloat64(s.metrics.blocksBroken))
	series, _ := drain(t, s, selection(t, `{__name__="metric_1"}`))
	require.Len(t, series, 4)
}

// A compacted block that can't be read hides nothing while the blocks it was
// made from are there, and takes over once it can.
func TestBrokenBlockHidesNothing(t *testing.T) {
	bkt := newWatched()
	first, second := twoBlocks(t, bkt)
	merged := upload(t, bkt, pods(7), cluster, blocktest.Options{Level: 2, Sources: []ulid.ULID{first.ULID, second.ULID}})
	bkt.breakObject(merged.ULID.String()+"/index", func(_ int64, b []byte) []byte { return nil })
	s := newGateway(t, bkt)
	sel := selection(t, `{__name__="metric_1"}`)
	for range 2 {
		series, report := drain(t, s, sel)
		require.Len(t, series, 4, "three pods and a late one")
		require.Empty(t, report.Warnings, "nothing is missing")
		require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksBroken), "but it shows")
		require.NoError(t, s.sync(t.Context()))
	}
	bkt.change = nil
	require.NoError(t, s.sync(t.Context()))
	series, _ := drain(t, s, sel)
	require.Len(t, series, 7)
	require.EqualValues(t, 1, testutil.ToFloat64(s.metrics.blocksLoaded))
}

// What a broken block alone has is missed.
func TestNeeded(t *testing.T) {
	id := func(n byte) ulid.ULID { return ulid.ULID{15: n} }
	meta := func(n byte, sources ...ulid.ULID) *block.Meta {
		return &block.Meta{ULID: id(n), Compaction: block.Compaction{Sources: sources}, Thanos: block.Thanos{Labels: map[string]string{"a": "b"}}}
	}
	metas := map[ulid.ULID]*block.Meta{}
	for _, m := range []*block.Meta{meta(1), meta(2), meta(3), meta(4, id(1), id(2)), meta(5, id(1), id(2), id(3), id(9))} {
		metas[m.ULID] = m
	}
	names := func(out map[ulid.ULID]*block.Meta) (got []byte) {
		for id := range out {
			got = append(got, id[15])
		}
		slices.Sort(got)
		return got
	}
	require.Equal(t, []byte{5}, names(needed(metas, nil)))
	require.Equal(t, []byte{3, 4, 5}, names(needed(metas, map[ulid.ULID]bool{id(5): true})), "9 is in no other block")
	require.Equal(t, []byte{5}, names(needed(metas, map[ulid.ULID]bool{id(4): true})))
	require.Equal(t, []byte{1, 2, 3, 5}, names(needed(metas, map[ulid.ULID]bool{id(4): true, id(5): true})))
}

// RELIABILITY G1: a block that is dropped while a query reads it stays open
// until that query ends.
func TestDropDuringQuery(t *testing.T) {
	bkt := bucket.NewMemory()
	first, second := twoBlocks(t, bkt)
	s := newGateway(t, bkt, "--store.chunk-window-size=1", "--debug.series-batch-size=1")
	set, err := s.Series(t.Context(), selection(t, `{__name__=~"metric_.*"}`))
	require.NoError(t, err)
	require.True(t, set.Next())
	old := s.blocks[first.ULID]

	s.blocks = map[ulid.ULID]*loaded{second.ULID: s.blocks[second.ULID]}
	s.view.Store(newView(s.blocks))
	old.drop(s.log)
	require.DirExists(t, old.folder)
	n := 1
	for set.Next() {
		n++
	}
	require.NoError(t, set.Err())
	require.Equal(t, 31, n)
	set.Close()
	require.NoDirExists(t, old.folder, "the last user closes it and removes what was local")
	require.False(t, old.acquire())
}

// RELIABILITY G1: objects that go away under a query are an error naming the
// block, never a gap.
func TestObjectsGoneDuringQuery(t *testing.T) {
	bkt := bucket.NewMemory()
	first, _ := twoBlocks(t, bkt)
	s := newGateway(t, bkt)
	require.NoError(t, bkt.Delete(t.Context(), block.Name(first.ULID, "chunks/000001")))
	sel := selection(t, `{__name__="metric_1"}`)
	_, _, err := readAll(t, s, sel)
	require.ErrorContains(t, err, first.ULID.String())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	require.Len(t, s.lookAgain, 1, "a look into the bucket is wanted soon")
	sel.PartialResponse = true
	_, report, err := readAll(t, s, sel)
	require.NoError(t, err)
	require.Len(t, report.Warnings, 1)
}

// TestRest looks at the clock: a look before its time comes soon, not at once.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{lookAgain: make(chan struct{}, 1)}
		began := time.Now()
		require.True(t, s.rest(t.Context(), time.Minute))
		require.Equal(t, time.Minute, time.Since(began))
		s.lookAgain <- struct{}{}
		began = time.Now()
		require.True(t, s.rest(t.Context(), time.Minute))
		require.Equal(t, soon, time.Since(began))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.False(t, s.rest(ctx, time.Minute))
	})
}

// A local data folder may vanish or be damaged at any time. (RELIABILITY P9)
func TestDataFolderGone(t *testing.T) {
	bkt := bucket.NewMemory()
	twoBlocks(t, bkt)
	cfg := newConfig(t)
	s := newGatewayOf(t, bkt, cfg)
	want, _ := drain(t, s, selection(t, `{__name__=~".+"}`))
	s.dropAll() // closes the files
	again := newGatewayOf(t, bkt, cfg)
	got, _ := drain(t, again, selection(t, `{__name__=~".+"}`))
	require.Equal(t, want, got)
}

// RELIABILITY P7: each limit fails the request that exceeds it, names its flag
// and is never a mere warning.
func TestLimits(t *testing.T) {
	bkt := bucket.NewMemory()
	twoBlocks(t, bkt)
	for flag, value := range map[string]string{
		flagTouched: "10", flagFetchedSamples: "1000", flagDownloaded: "1000", flagRequestSeries: "10", flagRequestSamples: "1000",
		flagChunkPool: "1000",
	} {
		t.Run(flag, func(t *testing.T) {
			s := newGateway(t, bkt, "--"+flag+"="+value)
			sel := selection(t, `{__name__=~".+"}`)
			sel.PartialResponse = true
			_, _, err := readAll(t, s, sel)
			require.ErrorIs(t, err, storeapi.ErrLimit)
			require.ErrorContains(t, err, "--"+flag+" allows "+value)
			require.Zero(t, s.chunkPool.Used(), "what a request held is given back")

			s = newGateway(t, bkt, "--"+flag+"=100000000")
			series, _ := drain(t, s, sel)
			require.Len(t, series, 31)
			require.Zero(t, s.chunkPool.Used())
		})
	}
}

// Requests beyond the concurrency limit wait, and give up with their context.
func TestGate(t *testing.T) {
	bkt := bucket.NewMemory()
	twoBlocks(t, bkt)
	s := newGateway(t, bkt, "--"+flagConcurrency+"=1")
	set, err := s.Series(t.Context(), selection(t, `{__name__="metric_1"}`))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.Series(ctx, selection(t, `{__name__="metric_1"}`))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	require.ErrorContains(t, err, flagConcurrency)
	_, _, err = s.LabelNames(ctx, selection(t, `{__name__="metric_1"}`))
	require.ErrorContains(t, err, flagConcurrency, "label names are found by reading series, too")
	names, _, err := s.LabelNames(t.Context(), selection(t, `{}`))
	require.NoError(t, err, "what headers know needs no turn")
	require.Contains(t, names, "pod")
	set.Close()
	series, _ := drain(t, s, selection(t, `{__name__="metric_1"}`))
	require.Len(t, series, 4)
}

func TestNotReady(t *testing.T) {
	s, err := New(newConfig(t), bucket.NewMemory(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	require.Error(t, s.Ready())
	_, err = s.Info(t.Context())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, err = s.Series(t.Context(), selection(t, `{a="b"}`))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, _, err = s.LabelNames(t.Context(), selection(t, `{}`))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
}

// A bucket that can't be listed keeps the store from being ready, and says so.
func TestBucketUnreachable(t *testing.T) {
	bkt := newWatched()
	first, second := twoBlocks(t, bkt)
	bkt.listErr = errors.New("connection refused")
	s, err := New(newConfig(t), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(s.dropAll)
	for range startTries + 1 {
		require.Error(t, s.sync(t.Context()))
	}
	require.ErrorContains(t, s.Ready(), "connection refused")
	bkt.listErr = nil
	require.NoError(t, s.sync(t.Context()))
	require.NoError(t, s.Ready())
	bkt.listErr = errors.New("connection refused")
	require.Error(t, s.sync(t.Context()))
	require.NoError(t, s.Ready(), "what is known is served on")
	require.Len(t, s.view.Load().blocks, 2)
	require.Equal(t, first.ULID, s.view.Load().blocks[0].meta.ULID)
	require.Equal(t, second.ULID, s.view.Load().blocks[1].meta.ULID)
}

// One meta.json that can't be read delays the start and doesn't prevent it.
func TestMetaUnreadable(t *testing.T) {
	bkt := newWatched()
	first, second := twoBlocks(t, bkt)
	bkt.metaErr = first.ULID.String()
	s, err := New(newConfig(t), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(s.dropAll)
	for range startTries - 1 {
		require.Error(t, s.sync(t.Context()))
		require.Error(t, s.Ready())
	}
	require.Error(t, s.sync(t.Context()))
	require.NoError(t, s.Ready())
	require.Len(t, s.view.Load().blocks, 1)
	require.Equal(t, second.ULID, s.view.Load().blocks[0].meta.ULID)
	bkt.metaErr = ""
	require.NoError(t, s.sync(t.Context()))
	require.Len(t, s.view.Load().blocks, 2)
}

// A block of a resolution nobody knows is named by queries that would need it, once.
func TestUnknownResolution(t *testing.T) {
	bkt := newWatched()
	first, _ := twoBlocks(t, bkt)
	first.Thanos.Downsample.Resolution = 7
	encoded, err := first.Encode()
	require.NoError(t, err)
	require.NoError(t, bkt.Upload(t.Context(), block.Name(first.ULID, block.MetaFilename), bytes.NewReader(encoded)))
	s := newGateway(t, bkt)
	sel := selection(t, `{__name__="metric_1"}`)
	sel.MaxResolution, sel.PartialResponse = downsample.Resolution5m, true
	_, report := drain(t, s, sel)
	require.Equal(t, []string{"block " + first.ULID.String() + ": resolution of 7 ms in meta.json is none of 0, 300000 and 3600000"}, report.Warnings)
}

// RELIABILITY G2: values that were poisoned in the cache are found out and read again.
func TestPoisonedCache(t *testing.T) {
	bkt := newWatched()
	first, _ := twoBlocks(t, bkt)
	s := newGateway(t, bkt)
	sel := selection(t, `{__name__="metric_1"}`)
	want, _ := drain(t, s, sel)
	key := indexcache.Key{Kind: indexcache.Postings, Block: first.ULID, Name: "__name__", Value: "metric_1"}
	good, ok := s.parts.Cache.Get(key)
	require.True(t, ok)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		s.parts.Cache.Put(key, bad)
		bkt.takeReads()
		got, _ := drain(t, s, sel)
		require.Equal(t, want, got)
		require.Contains(t, bkt.takeReads(), "GET index ")
	}
}

func TestEmptyBucket(t *testing.T) {
	s := newGateway(t, bucket.NewMemory())
	require.NoError(t, s.Ready())
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, math.MaxInt64, info.Mint)
	require.EqualValues(t, math.MinInt64, info.Maxt)
	series, _ := drain(t, s, selection(t, `{a="b"}`))
	require.Empty(t, series)
}

// TestRun lives through a block that comes, one that goes, and the end.
func TestRun(t *testing.T) {
	bkt := bucket.NewMemory()
	first, _ := twoBlocks(t, bkt)
	s, err := New(newConfig(t, "--sync-block-duration=10ms", "--block-gone-delay=1ms", "--store.index-header-lazy-reader-idle-timeout=20ms"), bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, s.Run(ctx)) })
	eventually := func(what string, f func() bool) {
		require.Eventually(t, f, 5*time.Minute, 5*time.Millisecond, what)
	}
	loaded := func() []ulid.ULID {
		v := s.view.Load()
		if v == nil {
			return nil
		}
		ids := map[ulid.ULID]bool{}
		for _, l := range v.blocks {
			ids[l.meta.ULID] = true
		}
		return slices.Collect(maps.Keys(ids))
	}
	eventually("two blocks", func() bool { return s.Ready() == nil && len(loaded()) == 2 })
	third := upload(t, bkt, pods(1), labels.FromStrings("cluster", "b"), blocktest.Options{})
	eventually("a third", func() bool { return slices.Contains(loaded(), third.ULID) })
	drain(t, s, selection(t, `{__name__=~".+"}`))
	require.NoError(t, block.WriteDeletionMark(t.Context(), bkt, block.DeletionMark{ID: first.ULID, DeletionTime: 1}))
	eventually("a marked one gone", func() bool { return !slices.Contains(loaded(), first.ULID) })
	cancel()
	wg.Wait()
}

// One thousand blocks that an earlier process has known are there at once.
func TestStartWithThousandBlocks(t *testing.T) {
	bkt := newWatched()
	manyBlocks(t, bkt, 1000)
	cfg := newConfig(t)
	newGatewayOf(t, bkt, cfg)
	bkt.takeReads()
	began := time.Now()
	s := newGatewayOf(t, bkt, cfg)
	took := time.Since(began)
	t.Logf("1000 blocks from the local cache in %s", took)
	require.Len(t, s.view.Load().blocks, 1000)
	require.Equal(t, "nothing\n", bkt.takeReads(), "what is on disk is not fetched again")
}

// manyBlocks makes n blocks of one upload, which differ by name and time.
func manyBlocks(t testing.TB, bkt *watched, n int) {
	t.Helper()
	m := upload(t, bkt, pods(1), cluster, blocktest.Options{})
	objects := bkt.Objects()
	for i := range n - 1 {
		c := m
		c.ULID = ulid.Make()
		c.MinTime, c.MaxTime = m.MinTime+int64(i+1)*7_200_000, m.MaxTime+int64(i+1)*7_200_000
		c.Compaction.Sources = []ulid.ULID{c.ULID}
		for name, body := range objects {
			_, rel, _ := block.SplitName(name)
			if rel == block.MetaFilename {
				var err error
				body, err = c.Encode()
				require.NoError(t, err)
			}
			require.NoError(t, bkt.Upload(t.Context(), block.Name(c.ULID, rel), bytes.NewReader(body)))
		}
	}
}

func BenchmarkStart(b *testing.B) {
	bkt := newWatched()
	manyBlocks(b, bkt, 1000)
	cfg := newConfig(b)
	newGatewayOf(b, bkt, cfg)
	b.Run(fmt.Sprintf("blocks=%d", 1000), func(b *testing.B) {
		for b.Loop() {
			newGatewayOf(b, bkt, cfg)
		}
	})
}

// Copies of meta.json are where an operator, and Thanos, look for them.
func TestDataFolderLayout(t *testing.T) {
	bkt := bucket.NewMemory()
	first, _ := twoBlocks(t, bkt)
	cfg := newConfig(t)
	newGatewayOf(t, bkt, cfg)
	require.FileExists(t, filepath.Join(cfg.DataDir, "meta-syncer", first.ULID.String(), block.MetaFilename))
	require.FileExists(t, filepath.Join(cfg.DataDir, first.ULID.String(), "index-header"))
}

// Whether any series matches is known with the first that does.
func TestExternalValueStopsEarly(t *testing.T) {
	bkt := newWatched()
	upload(t, bkt, pods(300), cluster, blocktest.Options{})
	s := newGateway(t, bkt, "--debug.series-batch-size=10", "--index-cache-size=0")
	bkt.takeReads()
	values, _, err := s.LabelValues(t.Context(), "cluster", selection(t, `{pod=~"pod-.*"}`))
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, values)
	require.LessOrEqual(t, strings.Count(bkt.takeReads(), "GET"), 2, "postings, and one batch of series")
}

// What a writer says of the longest entries is a hint: whatever it is, answers
// are the same and no request takes more than it needs.
func TestIndexStatsThatLie(t *testing.T) {
	bkt := bucket.NewMemory()
	m := upload(t, bkt, pods(100), cluster, blocktest.Options{})
	sel := selection(t, `{__name__="metric_0", pod="pod-0000"}`)
	want, _ := drain(t, newGateway(t, bkt), sel)
	for _, size := range []int64{1, 50, 1 << 40, math.MaxInt64} {
		m.Thanos.IndexStats = block.IndexStats{SeriesMaxSize: size, ChunkMaxSize: size}
		body, err := m.Encode()
		require.NoError(t, err)
		require.NoError(t, bkt.Upload(t.Context(), block.Name(m.ULID, block.MetaFilename), bytes.NewReader(body)))
		got, _ := drain(t, newGateway(t, bkt, "--chunk-pool-size=2MiB"), sel)
		require.Equal(t, want, got, "said to be %d bytes", size)
	}
}
