package replicate

import (
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// randomWrite makes a Write with everything that may be in one.
func randomWrite(r *rand.Rand) *batch.Write {
	b := &batch.Batch{}
	w := &batch.Write{Tenant: "team-a", Batch: b}
	r.Read(w.Session[:])
	var names []labels.Labels
	plain := r.Intn(3) == 0
	for i := range r.Intn(40) {
		s := batch.Series{ID: 1 + r.Uint64()%(1<<uint(1+r.Intn(60))), Hash: r.Uint64()}
		s.Floats.From = uint32(len(b.Floats))
		floats := r.Intn(4)
		if plain {
			floats = 1
		}
		for range floats {
			x := batch.Float{T: r.Int63n(1e13) - 1e6, V: r.NormFloat64()}
			if !plain && r.Intn(2) == 0 {
				x.ST = x.T - r.Int63n(1e6) + 1000
			}
			b.Floats = append(b.Floats, x)
		}
		s.Floats.To = uint32(len(b.Floats))
		s.Histograms.From, s.Exemplars.From = uint32(len(b.Histograms)), uint32(len(b.Exemplars))
		if !plain {
			randomExtras(r, b)
		}
		s.Histograms.To, s.Exemplars.To = uint32(len(b.Histograms)), uint32(len(b.Exemplars))
		b.Series = append(b.Series, s)
		names = append(names, labels.FromStrings("__name__", fmt.Sprintf("m%d", r.Intn(5)), "i", fmt.Sprint(i)))
		if r.Intn(5) > 0 {
			w.Only = append(w.Only, uint32(i))
		}
	}
	for i := range r.Intn(4) {
		b.Families = append(b.Families, batch.Family{Name: fmt.Sprintf("m%d", i), Metadata: metadata.Metadata{Type: model.MetricTypeCounter, Unit: "s", Help: "what it is"}})
	}
	b.Labels = func(i int) (labels.Labels, error) { return names[i], nil }
	return w
}

func randomExtras(r *rand.Rand, b *batch.Batch) {
	for range r.Intn(3) {
		h := batch.Histogram{T: r.Int63n(1e13)}
		switch r.Intn(4) {
		case 0:
			h.H, h.ST = tsdbutil.GenerateTestHistogram(r.Int63n(100)), h.T-5
		case 1:
			h.FH = tsdbutil.GenerateTestFloatHistogram(r.Int63n(100))
		case 2:
			h.H = tsdbutil.GenerateTestCustomBucketsHistogram(r.Int63n(100))
		case 3:
			h.FH = &histogram.FloatHistogram{CounterResetHint: histogram.GaugeType, Sum: r.Float64()}
		}
		b.Histograms = append(b.Histograms, h)
	}
	for range r.Intn(2) {
		b.Exemplars = append(b.Exemplars, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprint(r.Int())), Value: r.Float64(), Ts: r.Int63n(1e13), HasTs: r.Intn(2) == 0})
	}
}

// requireSameWrite compares what was sent with what arrived: there the series of Only are all there are.
func requireSameWrite(t *testing.T, sent, got *batch.Write, defined func(uint64) bool) {
	t.Helper()
	require.Equal(t, sent.Tenant, got.Tenant)
	require.Equal(t, sent.Session, got.Session)
	require.Len(t, got.Only, len(sent.Only))
	a, b := sent.Batch, got.Batch
	for i, n := range sent.Only {
		x, y := a.Series[n], b.Series[i]
		require.Equal(t, uint32(i), got.Only[i])
		require.Equal(t, x.ID, y.ID)
		require.ElementsMatch(t, a.Floats[x.Floats.From:x.Floats.To], b.Floats[y.Floats.From:y.Floats.To])
		require.ElementsMatch(t, a.Histograms[x.Histograms.From:x.Histograms.To], b.Histograms[y.Histograms.From:y.Histograms.To])
		require.ElementsMatch(t, a.Exemplars[x.Exemplars.From:x.Exemplars.To], b.Exemplars[y.Exemplars.From:y.Exemplars.To])
		ls, err := b.Labels(i)
		if !defined(x.ID) {
			require.ErrorIs(t, err, batch.ErrNoLabels)
			continue
		}
		require.NoError(t, err)
		want, err := a.Labels(int(n))
		require.NoError(t, err)
		require.Equal(t, want, ls)
		require.Equal(t, x.Hash, y.Hash)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	var writer frameWriter
	var reader frameReader
	var pool batch.Pool
	var scratch []byte
	var only []uint32
	for range 300 {
		w := randomWrite(r)
		defined := func(id uint64) bool { return id%3 == 0 }
		payload, err := writer.write(w, defined, func(i int) bool { return i > 0 })
		require.NoError(t, err)
		payload, err = unseal(seal(nil, payload, r.Intn(2) == 0), 1<<20, &scratch, noPlace{}.Grow)
		require.NoError(t, err)
		got := &batch.Write{Batch: pool.Get(), Only: only}
		require.NoError(t, reader.read(payload, got))
		requireSameWrite(t, w, got, defined)
		require.ElementsMatch(t, w.Batch.Families[min(1, len(w.Batch.Families)):], got.Batch.Families)
		only = got.Only
		pool.Put(got.Batch)
	}
}

func TestEnvelope(t *testing.T) {
	payload := []byte("0123456789 0123456789 0123456789 0123456789")
	var scratch []byte
	for _, compress := range []bool{false, true} {
		good := seal(nil, payload, compress)
		got, err := unseal(good, 100, &scratch, noPlace{}.Grow)
		require.NoError(t, err)
		require.Equal(t, payload, got)
		for i := range good {
			bad := append([]byte{}, good...)
			bad[i] ^= 0x40
			_, err := unseal(bad, 100, &scratch, noPlace{}.Grow)
			require.Error(t, err, "byte %d", i)
		}
		for i := range good {
			_, err := unseal(good[:i], 100, &scratch, noPlace{}.Grow)
			require.ErrorIs(t, err, block.ErrCorrupt)
		}
		_, err = unseal(good, 42, &scratch, noPlace{}.Grow)
		require.ErrorContains(t, err, "at most 42")
		good[0] = 2
		_, err = unseal(good, 100, &scratch, noPlace{}.Grow)
		require.ErrorContains(t, err, "version 2 is not known")
	}
	zeros := make([]byte, 1<<20)
	got, err := unseal(seal(nil, zeros, true), 1<<20, &scratch, noPlace{}.Grow)
	require.NoError(t, err, "what compresses too well is sent as it is")
	require.Equal(t, zeros, got)
}

func TestAnswerRoundTrip(t *testing.T) {
	old, limit := refuse.Errorf(refuse.SampleTooOld, "x", "too old"), refuse.Errorf(refuse.SeriesLimit, "x", "too many")
	res := batch.Result{Unknown: []uint32{3, 9}, Refused: []batch.Refused{{Series: 1, Samples: 2, Err: old}, {Series: 1, Samples: 1, Err: limit}, {Series: 5, Samples: 1, Err: refuse.Errorf(refuse.SampleTooOld, "x", "also too old")}}}
	got, err := readAnswer(appendAnswer(nil, res, nil), 10, "x")
	require.NoError(t, err)
	require.Equal(t, res.Unknown, got.Unknown)
	require.Len(t, got.Refused, 3)
	require.Equal(t, "too old [sample-too-old]", got.Refused[2].Err.Error(), "one text a reason")
	require.Equal(t, limit, got.Refused[1].Err)
	_, err = readAnswer(appendAnswer(nil, res, nil), 9, "x")
	require.ErrorIs(t, err, block.ErrCorrupt)
	_, err = readAnswer(appendAnswer(nil, batch.Result{}, limit), 10, "x")
	require.Equal(t, limit, errors.Unwrap(fmt.Errorf("%w", err)))
	_, err = readAnswer([]byte{7}, 10, "x")
	require.ErrorIs(t, err, block.ErrCorrupt)
}

// RELIABILITY section 5: no panic, and memory in proportion to what was sent.
func FuzzFrame(f *testing.F) {
	r := rand.New(rand.NewSource(1))
	var writer frameWriter
	for range 20 {
		payload, err := writer.write(randomWrite(r), func(id uint64) bool { return id%2 == 0 }, func(int) bool { return true })
		require.NoError(f, err)
		f.Add(append([]byte{}, payload...))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var reader frameReader
		w := &batch.Write{Batch: &batch.Batch{}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := reader.read(payload, w)
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, 64<<10+400*uint64(len(payload)))
		if err != nil {
			return
		}
		for i := range w.Batch.Series {
			if _, err := w.Batch.Labels(i); err != nil {
				require.ErrorIs(t, err, batch.ErrNoLabels)
			}
		}
		again, err := writer.write(w, func(uint64) bool { return false }, func(int) bool { return true })
		require.NoError(t, err)
		require.NoError(t, new(frameReader).read(again, &batch.Write{Batch: &batch.Batch{}}))
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add(seal(nil, []byte("payload"), false))
	f.Add(seal(nil, make([]byte, 100), true))
	f.Fuzz(func(t *testing.T, b []byte) {
		var scratch []byte
		payload, err := unseal(b, 1<<16, &scratch, noPlace{}.Grow)
		if err == nil {
			require.LessOrEqual(t, len(payload), 1<<16)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, batch.Result{Unknown: []uint32{1}, Refused: []batch.Refused{{Series: 2, Samples: 1, Err: refuse.Errorf(refuse.SampleTooOld, "x", "old")}}}, nil))
	f.Add(appendAnswer(nil, batch.Result{}, refuse.Errorf(refuse.Overloaded, "x", "busy")))
	f.Fuzz(func(t *testing.T, b []byte) {
		res, err := readAnswer(b, 5, "x")
		if err != nil {
			return
		}
		for _, n := range res.Unknown {
			require.Less(t, n, uint32(5))
		}
		for _, x := range res.Refused {
			require.Less(t, x.Series, uint32(5))
		}
	})
}

func benchmarkWrite(series int) *batch.Write {
	r := newRouter("bench")
	var all []string
	for i := range series {
		all = append(all, fmt.Sprintf("metric_%d", i))
	}
	w := r.write(1_700_000_000_000, 1, all...)
	for i := range w.Batch.Floats {
		w.Batch.Floats[i].V = float64(i) * 1.1
	}
	return w
}

func BenchmarkEncode(b *testing.B) {
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("series=2000/compress=%t", compress), func(b *testing.B) {
			w := benchmarkWrite(2000)
			var f frameWriter
			var frame []byte
			b.ReportAllocs()
			for b.Loop() {
				payload, _ := f.write(w, func(uint64) bool { return false }, func(int) bool { return true })
				frame = seal(frame[:0], payload, compress)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/sample")
			b.ReportMetric(float64(len(frame))/2000, "B/sample")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	w := benchmarkWrite(2000)
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("series=2000/compress=%t", compress), func(b *testing.B) {
			payload, _ := new(frameWriter).write(w, func(uint64) bool { return false }, func(int) bool { return true })
			frame := seal(nil, payload, compress)
			var r frameReader
			var pool batch.Pool
			var scratch []byte
			got := batch.Write{}
			b.ReportAllocs()
			for b.Loop() {
				payload, err := unseal(frame, 1<<20, &scratch, noPlace{}.Grow)
				if err != nil {
					b.Fatal(err)
				}
				got.Batch = pool.Get()
				if err := r.read(payload, &got); err != nil {
					b.Fatal(err)
				}
				pool.Put(got.Batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/sample")
		})
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, nodes := range []int{3, 9} {
		b.Run(fmt.Sprintf("nodes=%d/series=2000", nodes), func(b *testing.B) {
			cl := startCluster(b, nodes, 3, testConfig())
			v, err := cl.parts.Ring.View("team")
			require.NoError(b, err)
			w := benchmarkWrite(2000)
			var s split
			b.ReportAllocs()
			for b.Loop() {
				s.cut(v, w)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/sample")
		})
	}
}
