package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// blockRange is short, and so are chunks and segments: all that time does happens in a few steps.
const (
	blockRange = int64(10 * 60 * 1000)
	interval   = int64(15_000)
)

func tsdbOptions(st bool) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.MinBlockDuration, o.MaxBlockDuration = blockRange, blockRange
	o.RetentionDuration = 1000 * blockRange
	o.WALSegmentSize = 64 << 10
	o.WALCompression = compression.Snappy
	o.SamplesPerChunk = 12
	o.StripeSize = 64
	o.HeadChunksWriteBufferSize = 64 << 10
	o.OutOfOrderTimeWindow, o.OutOfOrderCapMax = 2*blockRange, 8
	o.EnableExemplarStorage, o.MaxExemplars = true, 50
	o.EnableOverlappingCompaction = false
	if st {
		o.EnableSTStorage, o.EnableHistogramSTEncoding = true, true
		o.FloatChunkEncoding = chunkenc.EncXOR2
	}
	return o
}

func configFor(o *tsdb.Options, blocksMaxTime int64) Config {
	xor2, st := o.FloatChunkEncoding == chunkenc.EncXOR2, o.EnableHistogramSTEncoding
	return Config{
		ChunkRange: o.MinBlockDuration, SamplesPerChunk: o.SamplesPerChunk, WriteBuffer: o.HeadChunksWriteBufferSize,
		Floats:          chunkenc.ValFloat.ChunkEncoding(xor2, st),
		Histograms:      chunkenc.ValHistogram.ChunkEncoding(xor2, st),
		FloatHistograms: chunkenc.ValFloatHistogram.ChunkEncoding(xor2, st),
		StartTimestamps: o.EnableSTStorage, MaxExemplars: int(o.MaxExemplars), BlocksMaxTime: blocksMaxTime,
	}
}

func open(t testing.TB, dir string, o *tsdb.Options) *tsdb.DB {
	t.Helper()
	db, err := tsdb.Open(dir, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), nil, o, nil)
	require.NoError(t, err)
	db.DisableCompactions()
	return db
}

// openPrepared opens the TSDB in dir from what Prepare made of it.
func openPrepared(t testing.TB, dir string, o tsdb.Options, blocksMaxTime int64) (*tsdb.DB, error) {
	t.Helper()
	if _, err := Prepare(dir, configFor(&o, blocksMaxTime)); err != nil {
		return nil, err
	}
	o.EnableMemorySnapshotOnShutdown = true
	db := open(t, dir, &o)
	require.NoError(t, Remove(dir))
	return db, nil
}

// kill copies the folder of a TSDB that is open: what it has not written is gone.
func kill(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	require.NoError(t, os.RemoveAll(filepath.Join(to, "lock")))
	return to
}

func blocksMaxTime(db *tsdb.DB) int64 {
	most := int64(math.MinInt64)
	for _, b := range db.Blocks() {
		if m := b.Meta(); !m.Compaction.FromOutOfOrder() {
			most = max(most, m.MaxTime)
		}
	}
	return most
}

// dump is all that can be read, as text.
func dump(t testing.TB, db *tsdb.DB) map[string][]string {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	out := map[string][]string{}
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "name", ".*"))
	for set.Next() {
		s := set.At()
		var list []string
		it := s.Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				at, v := it.At()
				list = append(list, fmt.Sprintf("%d %x st %d", at, math.Float64bits(v), it.AtST()))
			case chunkenc.ValHistogram:
				at, h := it.AtHistogram(nil)
				list = append(list, fmt.Sprintf("%d int %s %x", at, h, math.Float64bits(h.Sum)))
			case chunkenc.ValFloatHistogram:
				at, h := it.AtFloatHistogram(nil)
				list = append(list, fmt.Sprintf("%d float %s %x", at, h, math.Float64bits(h.Sum)))
			}
		}
		require.NoError(t, it.Err())
		out[s.Labels().String()] = list
	}
	require.NoError(t, set.Err())
	return out
}

// requireSame names the first few samples that differ.
func requireSame(t testing.TB, want, got map[string][]string) {
	t.Helper()
	for name, list := range want {
		have := got[name]
		for i := range max(len(list), len(have)) {
			if i >= len(list) || i >= len(have) || list[i] != have[i] {
				require.Equal(t, list[i:min(len(list), i+3)], have[i:min(len(have), i+3)], "%s: sample %d of %d, here of %d", name, i, len(list), len(have))
			}
		}
	}
	require.Len(t, got, len(want))
}

func dumpExemplars(t testing.TB, db *tsdb.DB) []string {
	t.Helper()
	q, err := db.ExemplarQuerier(t.Context())
	require.NoError(t, err)
	got, err := q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "name", ".*")})
	require.NoError(t, err)
	var out []string
	for _, r := range got {
		out = append(out, fmt.Sprint(r.SeriesLabels, r.Exemplars))
	}
	return out
}

// world writes into a TSDB what senders may bring.
type world struct {
	t    *testing.T
	rand *rand.Rand
	db   *tsdb.DB
	now  int64
	st   bool
}

// step appends a sample of most series, as one of the kinds that a series may have.
func (w *world) step() {
	w.now += interval
	app := w.db.AppenderV2(context.Background())
	for i := range 40 {
		if i%10 == 9 && (w.now/(3*blockRange))%2 == 0 {
			continue // gone for longer than the head remembers it
		}
		if w.rand.IntN(10) == 0 {
			continue
		}
		at := w.now + int64(i)
		if w.rand.IntN(12) == 0 {
			at -= w.rand.Int64N(blockRange) // late
		}
		w.append(app, i, at)
	}
	require.NoError(w.t, app.Commit())
}

func (w *world) append(app storage.AppenderV2, i int, at int64) {
	l := labels.FromStrings("name", fmt.Sprintf("s%02d", i), "job", "test")
	st := int64(0)
	if w.st {
		st = at - 1000 - int64(w.rand.IntN(2))
	}
	n := int64(w.rand.IntN(20))
	kind := i % 5
	if w.rand.IntN(30) == 0 {
		kind = w.rand.IntN(6) // another than that of the series
	}
	var v float64
	var h *histogram.Histogram
	var fh *histogram.FloatHistogram
	switch kind {
	case 2:
		h = tsdbutil.GenerateTestHistogram(n)
	case 3:
		fh = tsdbutil.GenerateTestFloatHistogram(n)
	case 4:
		h = tsdbutil.GenerateTestCustomBucketsHistogram(n)
	case 5:
		v = math.Float64frombits(value.StaleNaN)
	default:
		v = float64(w.rand.IntN(1000))
	}
	var o storage.AOptions
	if w.rand.IntN(5) == 0 {
		o.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace", fmt.Sprint(n)), Value: v, Ts: at, HasTs: true}}
	}
	_, err := app.Append(0, l, st, at, v, h, fh, o) // late ones may be too old, or there already
	if err != nil && !errors.Is(err, storage.ErrOutOfBounds) && !errors.Is(err, storage.ErrTooOldSample) && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) &&
		!errors.Is(err, storage.ErrOutOfOrderExemplar) {
		var partial *storage.AppendPartialError
		require.ErrorAs(w.t, err, &partial)
	}
}

// TestPreparedEqualsReplayed: a TSDB that starts from what Prepare leaves holds what it would
// hold had it read its log itself, through lives that end in order or not, blocks that are cut, late samples,
// series that go and come back, and all kinds of samples.
//
// RELIABILITY I2
func TestPreparedEqualsReplayed(t *testing.T) {
	for _, st := range []bool{false, true} {
		t.Run(fmt.Sprintf("st=%t", st), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Log("seed", seed)
			prepared, left := lives(t, seed, st)
			t.Log("prepared", prepared, "left to the TSDB", left)
			require.Positive(t, prepared)
		})
	}
}

func lives(t *testing.T, seed uint64, st bool) (prepared, left int) {
	r := newRand(seed)
	o := tsdbOptions(st)
	dir := t.TempDir()
	w := &world{t: t, rand: r, db: open(t, dir, o), now: 10 * blockRange, st: st}
	for range 5 {
		for range 10 + r.IntN(60) {
			w.step()
			switch r.IntN(25) {
			case 0:
				w.db.ForceHeadMMap()
			case 1:
				require.NoError(t, w.db.Compact(t.Context()))
			case 2:
				require.NoError(t, w.db.CompactOOOHead(t.Context()))
			}
		}
		if r.IntN(3) == 0 {
			require.NoError(t, w.db.Close())
		}
		plainDir, fastDir := kill(t, dir), kill(t, dir)
		cut := blocksMaxTime(w.db)
		_ = w.db.Close()
		plain := open(t, plainDir, o)
		fast, err := openPrepared(t, fastDir, *o, cut)
		if errors.Is(err, ErrUnsure) {
			t.Log(err)
			left++
			w.db, dir = plain, plainDir
			continue
		}
		require.NoError(t, err)
		prepared++
		requireSame(t, dump(t, plain), dump(t, fast))
		require.Len(t, dumpExemplars(t, fast), len(dumpExemplars(t, plain)))
		require.Equal(t, plain.Head().NumSeries(), fast.Head().NumSeries())
		// The TSDB counts late samples of its log, though they are not in order.
		require.LessOrEqual(t, plain.Head().MinTime(), fast.Head().MinTime())
		require.Equal(t, plain.Head().MaxTime(), fast.Head().MaxTime())
		require.Equal(t, plain.Head().MinOOOTime(), fast.Head().MinOOOTime())
		require.Equal(t, plain.Head().MaxOOOTime(), fast.Head().MaxOOOTime())
		if r.IntN(3) == 0 {
			fast, plain, fastDir = plain, fast, plainDir
		}
		_ = plain.Close()
		w.db, dir = fast, fastDir
	}
	require.NoError(t, w.db.Close())
	return prepared, left
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
