package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	o.BlockReloadInterval = 24 * time.Hour // nothing happens by the clock
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
		StartTimestamps: o.EnableSTStorage, MaxExemplars: int(o.MaxExemplars), OutOfOrderWindow: o.OutOfOrderTimeWindow,
		BlocksMaxTime: blocksMaxTime,
	}
}

func open(t testing.TB, dir string, o *tsdb.Options) *tsdb.DB {
	t.Helper()
	return openWith(t, dir, o, nil)
}

func openWith(t testing.TB, dir string, o *tsdb.Options, reg prometheus.Registerer) *tsdb.DB {
	t.Helper()
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), reg, o, nil)
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
	reg := prometheus.NewRegistry()
	db := openWith(t, dir, &o, reg)
	require.Zero(t, failedSnapshots(t, reg))
	require.NoError(t, Remove(dir))
	return db, nil
}

// failedSnapshots counts those that the TSDB did not take.
func failedSnapshots(t testing.TB, reg *prometheus.Registry) float64 {
	t.Helper()
	all, err := reg.Gather()
	require.NoError(t, err)
	for _, m := range all {
		if m.GetName() == "prometheus_tsdb_snapshot_replay_error_total" {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
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
func requireSame(t testing.TB, want, got map[string][]string, what string) {
	t.Helper()
	for name, list := range want {
		have := got[name]
		for i := range max(len(list), len(have)) {
			if i >= len(list) || i >= len(have) || list[i] != have[i] {
				require.Equal(t, list[i:min(len(list), i+3)], have[i:min(len(have), i+3)], "%s: %s: sample %d of %d, here of %d", what, name, i, len(list), len(have))
			}
		}
	}
	require.Len(t, got, len(want), what)
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

	traces int
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
		w.traces++ // of two that are equal but for their time the TSDB may keep one
		o.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace", fmt.Sprint(w.traces)), Value: v, Ts: at, HasTs: true}}
	}
	_, err := app.Append(0, l, st, at, v, h, fh, o) // late ones may be too old, or there already
	if err != nil && !errors.Is(err, storage.ErrOutOfBounds) && !errors.Is(err, storage.ErrTooOldSample) && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) &&
		!errors.Is(err, storage.ErrOutOfOrderExemplar) {
		var partial *storage.AppendPartialError
		require.ErrorAs(w.t, err, &partial)
	}
}

// TestPreparedEqualsReplayed: a TSDB that starts from what Prepare leaves holds what it would
// hold had it read its log itself, through lives that end in order or not, with files that are damaged or
// missing, preparations that were killed, blocks that are cut, late samples, series that go and come back,
// and all kinds of samples.
//
// It runs two seeds, or new ones for as long as FIRNLINE_SOAK says, from FIRNLINE_SEED on: one alone for 1ns.
//
// RELIABILITY I2
func TestPreparedEqualsReplayed(t *testing.T) {
	seeds, until := []uint64{1, 2}, time.Time{}
	if s := os.Getenv("FIRNLINE_SOAK"); s != "" {
		last, err := time.ParseDuration(s)
		require.NoError(t, err, "FIRNLINE_SOAK")
		first, err := strconv.ParseUint(cmp.Or(os.Getenv("FIRNLINE_SEED"), fmt.Sprint(time.Now().Unix())), 10, 64)
		require.NoError(t, err, "FIRNLINE_SEED")
		seeds, until = []uint64{first}, time.Now().Add(last)
	}
	for i := 0; i < len(seeds); i++ {
		l := lives{t: t, rand: newRand(seeds[i]), st: seeds[i]%2 == 1}
		t.Logf("seed %d", seeds[i])
		l.run()
		t.Logf("prepared %d, left to the TSDB %v", l.prepared, l.left)
		if until.IsZero() {
			require.Positive(t, l.prepared)
		} else if time.Now().Before(until) && !t.Failed() {
			seeds = append(seeds, seeds[i]+1)
		}
	}
}

// lives are those of a TSDB.
type lives struct {
	t        *testing.T
	rand     *rand.Rand
	st       bool
	prepared int
	left     []string // why, of those that Prepare did not take
}

func (l *lives) run() {
	t, r := l.t, l.rand
	o := tsdbOptions(l.st)
	dir := t.TempDir()
	w := &world{t: t, rand: r, db: open(t, dir, o), now: 10 * blockRange, st: l.st}
	for life := range 5 {
		for range r.IntN(60) { // may be none: killed again at once
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
		if r.IntN(20) == 0 {
			require.NoError(t, w.db.Delete(t.Context(), w.now-blockRange/2, w.now, labels.MustNewMatcher(labels.MatchRegexp, "name", "s.1")))
		}
		if r.IntN(3) == 0 {
			require.NoError(t, w.db.Close())
		}
		killed := kill(t, dir)
		damage := l.damage(killed)
		plainDir, fastDir := kill(t, killed), kill(t, killed)
		cut := blocksMaxTime(w.db)
		_ = w.db.Close()
		plain := open(t, plainDir, o)
		interrupted := r.IntN(3) == 0
		if interrupted {
			l.interrupted(fastDir, configFor(o, cut))
		}
		require.NoError(t, Remove(fastDir)) // that of an end in order
		before := sizes(t, fastDir)
		fast, err := openPrepared(t, fastDir, *o, cut)
		if err != nil {
			l.left = append(l.left, err.Error())
			require.True(t, damage != "" || interrupted || errors.Is(err, ErrUnsure), err)
			if damage == "" && !interrupted {
				require.Equal(t, before, sizes(t, fastDir), err)
			}
			fast = open(t, fastDir, o)
		} else {
			l.prepared++
		}
		what := fmt.Sprintf("life %d, damage %q, interrupted %t, left %v", life, damage, interrupted, err)
		requireSame(t, dump(t, plain), dump(t, fast), what)
		require.Equal(t, dumpExemplars(t, plain), dumpExemplars(t, fast), what)
		require.Equal(t, plain.Head().NumSeries(), fast.Head().NumSeries(), what)
		// The TSDB counts late samples of its log, though they are not in order.
		require.LessOrEqual(t, plain.Head().MinTime(), fast.Head().MinTime(), what)
		require.Equal(t, plain.Head().MaxTime(), fast.Head().MaxTime(), what)
		require.Equal(t, plain.Head().MinOOOTime(), fast.Head().MinOOOTime(), what)
		require.Equal(t, plain.Head().MaxOOOTime(), fast.Head().MaxOOOTime(), what)
		if r.IntN(3) == 0 {
			fast, plain, fastDir = plain, fast, plainDir
		}
		_ = plain.Close()
		w.db, dir = fast, fastDir
	}
	require.NoError(t, w.db.Close())
}

// damage does what a crash or a bad disk may do to a folder, and tells what.
func (l *lives) damage(dir string) string {
	r := l.rand
	files := func(folder string) []string {
		all, err := filepath.Glob(filepath.Join(dir, folder, "0*"))
		require.NoError(l.t, err)
		return slices.DeleteFunc(all, func(path string) bool { return fileSize(l.t, path) == 0 })
	}
	cut := func(path string) {
		size := fileSize(l.t, path)
		require.NoError(l.t, os.Truncate(path, size-r.Int64N(min(size, 2000))))
	}
	head, log := files(chunksDir), files(walDir)
	switch n := r.IntN(12); {
	case n == 0 && len(head) > 0:
		require.NoError(l.t, os.Remove(head[len(head)-1]))
		return "last chunk file gone"
	case n == 1 && len(head) > 0:
		for _, path := range head {
			require.NoError(l.t, os.Remove(path))
		}
		return "all chunk files gone"
	case n == 2 && len(head) > 0:
		cut(head[len(head)-1])
		return "last chunk file torn"
	case n == 3 && len(head) > 0:
		path := head[r.IntN(len(head))]
		b, err := os.ReadFile(path)
		require.NoError(l.t, err)
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		require.NoError(l.t, os.WriteFile(path, b, 0o644))
		return "chunk file flipped"
	case n == 4 && len(log) > 0:
		cut(log[len(log)-1])
		return "log torn"
	}
	return ""
}

// interrupted is a preparation that was killed: at its end, or before all was written.
func (l *lives) interrupted(dir string, cfg Config) {
	before := sizes(l.t, dir)
	if _, err := Prepare(dir, cfg); err != nil {
		return
	}
	added := []string{}
	for path := range sizes(l.t, dir) {
		if _, ok := before[path]; !ok {
			added = append(added, path)
		}
	}
	slices.Sort(added)
	for _, path := range added {
		size := fileSize(l.t, filepath.Join(dir, path))
		switch l.rand.IntN(4) {
		case 0:
			require.NoError(l.t, os.Truncate(filepath.Join(dir, path), l.rand.Int64N(size+1)))
		case 1:
			require.NoError(l.t, os.Remove(filepath.Join(dir, path)))
		}
	}
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}

// sizes are those of all files of a folder, but for empty ones.
func sizes(t testing.TB, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if n := fileSize(t, path); n > 0 {
			out[rel] = n
		}
		return err
	}))
	return out
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
