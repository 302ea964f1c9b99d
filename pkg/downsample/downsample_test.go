package downsample

import (
	"errors"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

type sample struct {
	t int64
	v float64
}

func xor(tb testing.TB, samples ...sample) *chunkenc.XORChunk {
	tb.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(tb, err)
	for _, s := range samples {
		app.Append(0, s.t, s.v)
	}
	return c
}

func floats(tb testing.TB, it chunkenc.Iterator) (out []sample) {
	tb.Helper()
	for it.Next() == chunkenc.ValFloat {
		t, v := it.At()
		out = append(out, sample{t, v})
	}
	require.NoError(tb, it.Err())
	return out
}

func TestChunkRoundTrip(t *testing.T) {
	sub := Sub{Encoding: chunkenc.EncXOR, Bytes: xor(t, sample{1, 2}, sample{3, 4}).Bytes()}
	for name, in := range map[string]Chunk{
		"all":             {sub, sub, sub, sub, sub},
		"histogram shape": {Count: sub, Sum: sub, Counter: sub},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := in.Append(nil)
			require.NoError(t, err)
			got, err := Decode(b)
			require.NoError(t, err)
			require.Equal(t, in, got)
			require.Equal(t, 2, got.NumSamples())
		})
	}
	_, err := Chunk{Count: sub}.Append(nil)
	require.Error(t, err, "a payload must not end in an absent entry")
}

func TestDecodeRefusesDamage(t *testing.T) {
	sub := Sub{Encoding: chunkenc.EncXOR, Bytes: xor(t, sample{1, 2}).Bytes()}
	whole, err := Chunk{sub, sub, sub, sub, sub}.Append(nil)
	require.NoError(t, err)
	for n := range whole {
		_, err := Decode(whole[:n])
		require.Truef(t, errors.Is(err, ErrCorrupt), "cut to %d of %d bytes: %v", n, len(whole), err)
	}
	huge := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, whole...)
	_, err = Decode(huge)
	require.ErrorIs(t, err, ErrCorrupt)
}

func FuzzDecode(f *testing.F) {
	sub := Sub{Encoding: chunkenc.EncXOR, Bytes: []byte{0, 1, 2, 3}}
	b, err := Chunk{sub, sub, {}, {}, sub}.Append(nil)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := Decode(in)
		if err != nil || !c.Has(Counter) {
			return
		}
		out, err := c.Append(nil)
		require.NoError(t, err)
		again, err := Decode(out)
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

func TestAverage(t *testing.T) {
	it := NewAverage(
		xor(t, sample{10, 2}, sample{20, 4}, sample{30, 1}).Iterator(nil),
		xor(t, sample{10, 10}, sample{20, 10}, sample{30, 7}).Iterator(nil))
	require.Equal(t, []sample{{10, 5}, {20, 2.5}, {30, 7}}, floats(t, it))

	it = NewAverage(xor(t, sample{10, 2}).Iterator(nil), xor(t, sample{11, 2}).Iterator(nil))
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.ErrorIs(t, it.Err(), ErrCorrupt)

	it = NewAverage(xor(t, sample{10, 2}, sample{20, 1}).Iterator(nil), xor(t, sample{10, 2}).Iterator(nil))
	require.Equal(t, chunkenc.ValFloat, it.Next())
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.ErrorIs(t, it.Err(), ErrCorrupt)
}

func TestCounterAcrossChunks(t *testing.T) {
	// Raw: 1 2 4 | reset 1 3 | no reset, 5 9. Each chunk: first raw value, window
	// ends corrected, true last value at the timestamp of the one before.
	a := xor(t, sample{0, 1}, sample{100, 4}, sample{100, 4})
	b := xor(t, sample{110, 1}, sample{200, 3}, sample{200, 3})
	c := xor(t, sample{210, 5}, sample{300, 9}, sample{300, 9})
	it := NewCounter([]chunkenc.Iterator{a.Iterator(nil), b.Iterator(nil), c.Iterator(nil)})
	require.Equal(t, []sample{{0, 1}, {100, 4}, {110, 5}, {200, 7}, {210, 9}, {300, 13}}, floats(t, it))
}

func TestCounterTrueLastValueTellsResets(t *testing.T) {
	// Inside a: 10, reset, 3; corrected end 13, true end 3. b begins at 5: no reset, +2.
	a := xor(t, sample{0, 10}, sample{100, 13}, sample{100, 3})
	b := xor(t, sample{110, 5}, sample{200, 6}, sample{200, 6})
	it := NewCounter([]chunkenc.Iterator{a.Iterator(nil), b.Iterator(nil)})
	require.Equal(t, []sample{{0, 10}, {100, 13}, {110, 15}, {200, 16}}, floats(t, it))
}

func TestCounterGoesOnWithRawChunks(t *testing.T) {
	a := xor(t, sample{0, 10}, sample{100, 13}, sample{100, 3})
	raw := xor(t, sample{90, 99}, sample{110, 4}, sample{120, 1}, sample{130, math.Float64frombits(value.StaleNaN)}, sample{140, 2})
	it := NewCounter([]chunkenc.Iterator{a.Iterator(nil), raw.Iterator(nil)})
	got := floats(t, it)
	require.Len(t, got, 6)
	require.Equal(t, []sample{{0, 10}, {100, 13}, {110, 14}, {120, 15}}, got[:4])
	require.True(t, value.IsStaleNaN(got[4].v))
	require.Equal(t, sample{140, 16}, got[5])
}

func TestCounterSeek(t *testing.T) {
	a := xor(t, sample{0, 1}, sample{100, 4}, sample{100, 4})
	b := xor(t, sample{110, 1}, sample{200, 3}, sample{200, 3})
	it := NewCounter([]chunkenc.Iterator{a.Iterator(nil), b.Iterator(nil)})
	require.Equal(t, chunkenc.ValFloat, it.Seek(105))
	ts, v := it.At()
	require.Equal(t, sample{110, 5}, sample{ts, v})
	require.Equal(t, chunkenc.ValFloat, it.Seek(50), "a seek backwards stays")
	require.Equal(t, int64(110), it.AtT())
	require.Equal(t, chunkenc.ValNone, it.Seek(201))
	require.Equal(t, chunkenc.ValNone, it.Seek(201))
}

func TestCounterHistograms(t *testing.T) {
	chunk := func(t0 int64, counts ...int64) chunkenc.Iterator {
		c := chunkenc.NewFloatHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for i, n := range counts {
			h := tsdbutil.GenerateTestFloatHistogram(0)
			h = h.Mul(float64(n))
			h.CounterResetHint = histogram.UnknownCounterReset
			next, _, _, err := app.AppendFloatHistogram(nil, 0, t0+int64(i)*10, h, true)
			require.NoError(t, err)
			require.Nil(t, next)
		}
		return c.Iterator(nil)
	}
	it := NewCounter([]chunkenc.Iterator{chunk(0, 2, 5), chunk(100, 1, 3)})
	one := tsdbutil.GenerateTestFloatHistogram(0)
	for i, want := range []float64{2, 5, 6, 8} {
		require.Equal(t, chunkenc.ValFloatHistogram, it.Next())
		_, h := it.AtFloatHistogram(nil)
		require.InDeltaf(t, want*one.Count, h.Count, 1e-9, "sample %d", i)
	}
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.NoError(t, it.Err())
}
