package storeapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/labelpb"
)

// recorder keeps frames as a peer decodes them with generated code.
type recorder struct {
	t      testing.TB
	frames []*storepb.SeriesResponse
	sizes  []int
	fail   error
}

func (r *recorder) SendMsg(m any) error {
	data, err := newCodec().Marshal(m)
	require.NoError(r.t, err)
	defer data.Free()
	var f storepb.SeriesResponse
	require.NoError(r.t, proto.Unmarshal(data.Materialize(), &f))
	r.frames, r.sizes = append(r.frames, &f), append(r.sizes, data.Len())
	return r.fail
}

// shape writes frames as text: s:1 is a series, b:2 a batch of two, w a warning, h hints.
func (r *recorder) shape() (out []string) {
	for _, f := range r.frames {
		switch f.Result.(type) {
		case *storepb.SeriesResponse_Series:
			out = append(out, "s")
		case *storepb.SeriesResponse_Batch:
			out = append(out, fmt.Sprintf("b%d", len(f.GetBatch().Series)))
		case *storepb.SeriesResponse_Warning:
			out = append(out, "w")
		case *storepb.SeriesResponse_Hints:
			out = append(out, "h")
		}
	}
	return out
}

// What is batched, and that a batch goes out before warnings and hints do.
func TestBatching(t *testing.T) {
	for _, c := range []struct {
		series, batch int64
		want          []string
	}{
		{0, 0, []string{"w", "h"}},
		{2, 0, []string{"s", "s", "w", "h"}},
		{2, 1, []string{"s", "s", "w", "h"}},
		{2, -7, []string{"s", "s", "w", "h"}},
		{2, 2, []string{"b2", "w", "h"}},
		{3, 2, []string{"b2", "b1", "w", "h"}},
		{3, 64, []string{"b3", "w", "h"}},
		{0, 64, []string{"w", "h"}},
	} {
		t.Run(fmt.Sprintf("series=%d/batch=%d", c.series, c.batch), func(t *testing.T) {
			rec := &recorder{t: t}
			w := newFrameWriter(rec, c.batch, nil)
			defer w.close()
			for i := range c.series {
				require.NoError(t, w.series(series([]Chunk{chunk(0, 1, 0)}, "a", fmt.Sprint(i))))
			}
			require.NoError(t, w.flush())
			require.NoError(t, sendReport(rec, Report{Warnings: []string{"w"}}, true, true))
			require.Equal(t, c.want, rec.shape())
		})
	}
}

// Frames are bounded in bytes: batches are sent early, long series are split.
func TestFrameBytes(t *testing.T) {
	for _, batch := range []int64{0, 64} {
		t.Run(fmt.Sprintf("batch=%d", batch), func(t *testing.T) {
			rec := &recorder{t: t}
			w := newFrameWriter(rec, batch, nil)
			defer w.close()
			var want []Series
			for i := range 4 {
				s := series(nil, "a", fmt.Sprint(i))
				for c := range int64(200) {
					s.Chunks = append(s.Chunks, Chunk{MinTime: c, MaxTime: c + 1, Raw: Data{chunkenc.EncXOR, make([]byte, 10_000)}})
				}
				want = append(want, s)
				require.NoError(t, w.series(s))
			}
			require.NoError(t, w.flush())
			require.Greater(t, len(rec.frames), 7)
			for _, n := range rec.sizes {
				require.Less(t, n, maxFrameBytes+20_000)
			}
			require.Equal(t, want, read(Merge(framesSet(t, rec.frames))))
		})
	}
}

// framesSet decodes frames made by generated code, splits included.
func framesSet(t testing.TB, frames []*storepb.SeriesResponse) SeriesSet {
	var all []Series
	for _, m := range frames {
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		var f inFrame
		require.NoError(t, f.decode(data))
		all = append(all, f.series...)
	}
	return SliceSet(all, Report{})
}

func TestFrameSendFails(t *testing.T) {
	rec := &recorder{t: t, fail: errors.New("gone")}
	w := newFrameWriter(rec, 1, nil)
	defer w.close()
	require.ErrorIs(t, w.series(series(nil, "a", "1")), rec.fail)
}

// A frame has the fields and values that generated code reads and writes.
func TestFrameAgainstGenerated(t *testing.T) {
	aggr := &Aggregates{Count: Data{chunkenc.EncXOR, []byte{1}}, Sum: Data{chunkenc.EncXOR, []byte{2}}, Min: Data{chunkenc.EncXOR, []byte{3}}, Max: Data{chunkenc.EncXOR, []byte{4}}, Counter: Data{chunkenc.EncHistogram, []byte{5}}}
	in := series([]Chunk{
		{MinTime: -5, MaxTime: 0, Raw: Data{chunkenc.EncXOR, []byte{9}}},
		{MinTime: 0, MaxTime: 300, Raw: Data{chunkenc.EncHistogram, []byte{8}}},
		{MinTime: 301, MaxTime: 1 << 60, Raw: Data{chunkenc.EncFloatHistogram, []byte{7}}},
		{MinTime: 400, MaxTime: 1 << 60, Aggr: aggr},
		{MinTime: 500, MaxTime: 1 << 60, Aggr: &Aggregates{Counter: aggr.Counter}},
	}, "a", "1", "b", string(make([]byte, 300)))
	rec := &recorder{t: t}
	w := newFrameWriter(rec, 0, nil)
	require.NoError(t, w.series(in))

	xor := func(b byte) *storepb.Chunk { return &storepb.Chunk{Data: []byte{b}} }
	counter := &storepb.Chunk{Type: storepb.Chunk_HISTOGRAM, Data: []byte{5}}
	want := &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: &storepb.Series{
		Labels: []*labelpb.Label{{Name: "a", Value: "1"}, {Name: "b", Value: string(make([]byte, 300))}},
		Chunks: []*storepb.AggrChunk{
			{MinTime: -5, Raw: xor(9)},
			{MaxTime: 300, Raw: &storepb.Chunk{Type: storepb.Chunk_HISTOGRAM, Data: []byte{8}}},
			{MinTime: 301, MaxTime: 1 << 60, Raw: &storepb.Chunk{Type: storepb.Chunk_FLOAT_HISTOGRAM, Data: []byte{7}}},
			{MinTime: 400, MaxTime: 1 << 60, Count: xor(1), Sum: xor(2), Min: xor(3), Max: xor(4), Counter: counter},
			{MinTime: 500, MaxTime: 1 << 60, Counter: counter},
		},
	}}}
	require.True(t, proto.Equal(want, rec.frames[0]), "%v", rec.frames[0])
	require.Equal(t, []Series{in}, read(framesSet(t, rec.frames)))
}

// Random series survive writing and reading, in one frame or several.
// Replicas are told apart between our own components; others are not sent what
// they don't know.
func TestFrameReplica(t *testing.T) {
	in := series([]Chunk{{MinTime: 1, MaxTime: 2, Raw: Data{chunkenc.EncXOR, []byte{9}}, Replica: 1 << 31}}, "a", "1")
	for _, c := range []struct {
		encodings []uint32
		want      uint32
	}{{nil, 0}, {extraEncodings(), 1 << 31}} {
		rec := &recorder{t: t}
		require.NoError(t, newFrameWriter(rec, 0, c.encodings).series(in))
		require.Equal(t, c.want, rec.frames[0].GetSeries().Chunks[0].FirnlineReplica)
		require.Equal(t, c.want, read(framesSet(t, rec.frames))[0].Chunks[0].Replica)
	}
}

func TestFrameRandom(t *testing.T) {
	for seed := range int64(200) {
		rnd := rand.New(rand.NewSource(seed))
		rec := &recorder{t: t}
		w := newFrameWriter(rec, int64(rnd.Intn(5)), extraEncodings())
		w.maxBytes = 1 + rnd.Intn(5000)
		var want []Series
		for i := range 1 + rnd.Intn(20) {
			s := series(nil, "a", fmt.Sprintf("%03d", i), "b", string(make([]byte, 1+rnd.Intn(400))))
			for c := range int64(rnd.Intn(20)) {
				d := Data{chunkenc.Encoding(1 + rnd.Intn(6)), make([]byte, 3+rnd.Intn(400))}
				s.Chunks = append(s.Chunks, Chunk{MinTime: c, MaxTime: c + rnd.Int63n(1<<40), Raw: d})
			}
			want = append(want, s)
			require.NoError(t, w.series(s))
		}
		require.NoError(t, w.flush())
		got := read(Merge(framesSet(t, rec.frames)))
		require.Len(t, got, len(want), "seed %d", seed)
		for i := range got {
			require.True(t, labels.Equal(want[i].Labels, got[i].Labels), "seed %d", seed)
			require.True(t, slices.EqualFunc(want[i].Chunks, got[i].Chunks, func(a, b Chunk) bool { return compareChunks(a, b) == 0 }), "seed %d", seed)
		}
	}
}

func TestFrameRefuses(t *testing.T) {
	for name, s := range map[string]*storepb.Series{
		"label twice":    {Labels: []*labelpb.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}},
		"chunk type":     {Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Type: 3}}}},
		"times reversed": {Chunks: []*storepb.AggrChunk{{MinTime: 2, MaxTime: 1, Raw: &storepb.Chunk{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := proto.Marshal(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: s}})
			require.NoError(t, err)
			require.ErrorIs(t, new(inFrame).decode(data), ErrCorrupt)
		})
	}
	require.ErrorIs(t, new(inFrame).decode([]byte{0x0a, 0xff}), ErrCorrupt)

	w := newFrameWriter(&recorder{t: t}, 0, []uint32{9})
	require.ErrorIs(t, w.series(series([]Chunk{{Raw: Data{9, []byte{1, 2, 3}}}}, "a", "1")), ErrCorrupt)
}

// Labels out of order and empty ones are put right.
func TestFrameLabels(t *testing.T) {
	data, err := proto.Marshal(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: &storepb.Series{
		Labels: []*labelpb.Label{{Name: "b", Value: "2"}, {Name: "c"}, {Name: "a", Value: "1"}},
	}}})
	require.NoError(t, err)
	var f inFrame
	require.NoError(t, f.decode(data))
	require.Equal(t, labels.FromStrings("a", "1", "b", "2"), f.series[0].Labels)
}

// What can't be right in the messages beside series neither panics nor makes an
// answer that can't be written as JSON.
func TestOddValues(t *testing.T) {
	long := strings.Repeat("x", 1<<24)
	require.Equal(t, labels.FromStrings("a", long[1:]), toLabels([]*labelpb.Label{{Name: "a", Value: long}}))
	for _, odd := range []*timestamppb.Timestamp{nil, {Seconds: 1 << 60}, {Nanos: -1}} {
		_, err := json.Marshal(toRuleGroup(&storepb.RuleGroup{LastEvaluation: odd}))
		require.NoError(t, err)
	}
}

// histograms returns samples whose layout grows, with a counter reset, so that more than one chunk is needed.
func histograms() []*histogram.Histogram {
	hs := tsdbutil.GenerateTestHistograms(10)
	wide := tsdbutil.GenerateTestHistogram(20)
	wide.PositiveSpans = []histogram.Span{{Offset: 0, Length: 4}}
	return append(hs, wide, tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestHistogram(2))
}

// Every encoding goes as it is to who takes it, and with the same samples but
// for start timestamps to who doesn't.
func TestEncodings(t *testing.T) {
	floats, ints, fractions := Encoder{StartTimestamps: true}, Encoder{StartTimestamps: true}, Encoder{StartTimestamps: true}
	for i, h := range histograms() {
		t0 := int64(1000 * i)
		require.NoError(t, floats.Float(5, t0, float64(i)))
		require.NoError(t, ints.Histogram(5, t0, h.Copy()))
		require.NoError(t, fractions.FloatHistogram(5, t0, h.ToFloat(nil)))
	}
	for _, chunks := range [][]Chunk{floats.Chunks(), ints.Chunks(), fractions.Chunks()} {
		t.Run(chunks[0].Raw.Encoding.String(), func(t *testing.T) {
			rec := &recorder{t: t}
			require.NoError(t, newFrameWriter(rec, 0, extraEncodings()).series(series(chunks, "a", "1")))
			require.Equal(t, []Series{series(chunks, "a", "1")}, read(framesSet(t, rec.frames)))

			rec = &recorder{t: t}
			require.NoError(t, newFrameWriter(rec, 0, nil).series(series(chunks, "a", "1")))
			plain := read(framesSet(t, rec.frames))[0].Chunks
			require.Equal(t, sampleTexts(t, chunks), sampleTexts(t, plain))
			for _, c := range plain {
				require.LessOrEqual(t, c.Raw.Encoding, chunkenc.EncFloatHistogram)
				require.Equal(t, chunks[0].Raw.Encoding-3, c.Raw.Encoding)
			}
		})
	}
}

func sampleTexts(t *testing.T, chunks []Chunk) (out []string) {
	for _, c := range chunks {
		data, err := c.Raw.Chunk()
		require.NoError(t, err)
		first, it := true, data.Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if first {
				require.Equal(t, c.MinTime, it.AtT())
				first = false
			}
			switch typ {
			case chunkenc.ValFloat:
				_, v := it.At()
				out = append(out, fmt.Sprint(it.AtT(), v))
			default:
				_, h := it.AtFloatHistogram(nil)
				out = append(out, fmt.Sprint(it.AtT(), h.Compact(0).String()))
			}
			if it.AtT() == c.MaxTime {
				require.Equal(t, chunkenc.ValNone, it.Next())
				break
			}
		}
		require.NoError(t, it.Err())
	}
	return out
}

func TestAggregatesWithStartTimestamps(t *testing.T) {
	e := Encoder{StartTimestamps: true}
	require.NoError(t, e.Float(1, 2, 3))
	in := Chunk{MinTime: 2, MaxTime: 2, Aggr: &Aggregates{Sum: e.Chunks()[0].Raw}}
	rec := &recorder{t: t}
	require.NoError(t, newFrameWriter(rec, 0, nil).series(series([]Chunk{in}, "a", "1")))
	got := read(framesSet(t, rec.frames))[0].Chunks
	require.Equal(t, chunkenc.EncXOR, got[0].Aggr.Sum.Encoding)
	require.Equal(t, chunkenc.EncXOR2, in.Aggr.Sum.Encoding, "the input must not be changed")
}

// Whatever a peer sends, decoding ends with series or ErrCorrupt, and what was
// decoded can be written and read again.
func FuzzFrame(f *testing.F) {
	for _, batch := range []int64{0, 2} {
		sink := &keeper{}
		w := newFrameWriter(sink, batch, nil)
		for i := range 3 {
			if err := w.series(series([]Chunk{chunk(0, 1, byte(i)), {Aggr: &Aggregates{Sum: Data{1, []byte{1}}}}}, "a", fmt.Sprint(i))); err != nil {
				f.Fatal(err)
			}
		}
		for _, b := range sink.frames {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in inFrame
		if err := in.decode(slices.Clone(data)); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		for _, s := range in.series {
			sink := &keeper{}
			w := newFrameWriter(sink, 0, extraEncodings())
			require.NoError(t, w.series(s))
			var again inFrame
			require.NoError(t, again.decode(sink.frames[0]))
			require.True(t, labels.Equal(s.Labels, again.series[0].Labels))
			require.Len(t, again.series[0].Chunks, len(s.Chunks))
		}
	})
}

// keeper keeps frames as bytes.
type keeper struct{ frames [][]byte }

func (k *keeper) SendMsg(m any) error {
	b := m.(framed).buffers()
	defer b.Free()
	k.frames = append(k.frames, b.Materialize())
	return nil
}

// What has no generated code goes through the standard codec.
func TestCodecFallsThrough(t *testing.T) {
	c := newCodec()
	require.Equal(t, "proto", c.Name())
	want := toAny("x", fromStats(Stats{BlocksQueried: 1}))
	data, err := c.Marshal(want)
	require.NoError(t, err)
	got := want.ProtoReflect().New().Interface()
	require.NoError(t, c.Unmarshal(data, got))
	require.True(t, proto.Equal(want, got))
	require.Error(t, c.Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, &storepb.Series{}))
}

// BenchmarkFrame is a batch of 64 series with four labels and ten chunks each.
func BenchmarkFrame(b *testing.B) {
	in := benchSeries(64)
	sink := &keeper{}
	write := func() {
		w := newFrameWriter(sink, 64, nil)
		for _, s := range in {
			if err := w.series(s); err != nil {
				b.Fatal(err)
			}
		}
	}
	write()
	data := sink.frames[0]
	b.Run("write/series=64/chunks=10", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink.frames = sink.frames[:0]
			write()
		}
	})
	b.Run("read/series=64/chunks=10", func(b *testing.B) {
		b.ReportAllocs()
		var f inFrame
		for b.Loop() {
			if err := f.decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
