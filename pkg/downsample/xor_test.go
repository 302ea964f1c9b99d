package downsample

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// randomFloats returns n samples of the shapes that series have: regular and
// ragged times; gauges, counters, constants, bit noise.
func randomFloats(rnd *rand.Rand, n int) (ts []int64, vs []float64) {
	t, step := rnd.Int63n(1<<41), 1+rnd.Int63n(120_000)
	v, shape, jitter := 0.0, rnd.Intn(6), int64(1)<<uint(rnd.Intn(24))
	for range n {
		if rnd.Intn(3) == 0 {
			t += rnd.Int63n(jitter)
		}
		if rnd.Intn(200) == 0 {
			t += rnd.Int63n(1 << 42)
		}
		switch shape {
		case 0:
			v += float64(rnd.Intn(100))
		case 1:
			v = rnd.NormFloat64()
		case 2:
			v = math.Float64frombits(rnd.Uint64())
		case 3:
			v = []float64{0, 1, math.Inf(1), math.NaN(), math.Float64frombits(value.StaleNaN), -0.5}[rnd.Intn(6)]
		case 4:
			v += rnd.Float64()
		}
		ts, vs = append(ts, t), append(vs, v)
		t += step
	}
	return ts, vs
}

// xorBytes encodes with the TSDB's own appender.
func xorBytes(tb testing.TB, ts []int64, vs []float64) []byte {
	tb.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(tb, err)
	for i := range ts {
		app.Append(0, ts[i], vs[i])
	}
	return c.Bytes()
}

// bitsOf makes floats comparable.
func bitsOf(vs []float64) []uint64 {
	out := make([]uint64, len(vs))
	for i, v := range vs {
		out[i] = math.Float64bits(v)
	}
	return out
}

func TestXORIsTheTSDBs(t *testing.T) {
	for seed := range int64(300) {
		rnd := rand.New(rand.NewSource(seed))
		ts, vs := randomFloats(rnd, rnd.Intn(300))
		want := xorBytes(t, ts, vs)
		require.Equalf(t, want, AppendXORChunk([]byte{}, ts, vs), "seed %d", seed)
		// With a byte less behind it each time, the chunk is cut before its end.
		gotT, gotV, err := AppendXOR([]int64{7}, []float64{8}, want)
		require.NoErrorf(t, err, "seed %d", seed)
		require.Equalf(t, append([]int64{7}, ts...), gotT, "seed %d", seed)
		require.Equalf(t, bitsOf(append([]float64{8}, vs...)), bitsOf(gotV), "seed %d", seed)
		for cut := 1; cut < 20 && cut <= len(want); cut++ {
			gotT, gotV, err = AppendXOR(nil, nil, want[:len(want)-cut:len(want)-cut])
			if len(ts) > 0 || cut > 0 {
				require.ErrorIsf(t, err, ErrCorrupt, "seed %d, cut %d", seed, cut)
			}
			require.Empty(t, gotT)
			require.Empty(t, gotV)
		}
	}
}

// FuzzXOR holds AppendXOR against the TSDB's iterator. It may refuse only what
// no writer makes.
func FuzzXOR(f *testing.F) {
	for seed := range int64(12) {
		ts, vs := randomFloats(rand.New(rand.NewSource(seed)), 20)
		f.Add(xorBytes(f, ts, vs))
	}
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		in = in[:len(in):len(in)]
		ts, vs, err := AppendXOR(nil, nil, in)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			require.Empty(t, ts)
			require.Empty(t, vs)
			return
		}
		it := chunkOf(in).Iterator(nil)
		for i := range ts {
			require.Equal(t, chunkenc.ValFloat, it.Next(), "sample %d", i)
			wantT, wantV := it.At()
			require.Equal(t, wantT, ts[i], "sample %d", i)
			require.Equal(t, math.Float64bits(wantV), math.Float64bits(vs[i]), "sample %d", i)
		}
		require.Equal(t, chunkenc.ValNone, it.Next())
		require.NoError(t, it.Err())
		// What was read is written in the TSDB's bytes, and read again.
		again, vagain, err := AppendXOR(nil, nil, AppendXORChunk(nil, ts, vs))
		require.NoError(t, err)
		require.Equal(t, ts, again)
		require.Equal(t, bitsOf(vs), bitsOf(vagain))
	})
}

func chunkOf(b []byte) chunkenc.Chunk {
	c := chunkenc.NewXORChunk()
	c.Reset(b)
	return c
}

func TestXORRefuses(t *testing.T) {
	first := binary.AppendVarint([]byte{0, 2}, 1000)
	first = binary.BigEndian.AppendUint64(first, math.Float64bits(1))
	first = binary.AppendUvarint(first, 15)
	pad := make([]byte, 16)
	for name, bits := range map[string]byte{
		"a window used again that isn't there": 0b10_000000,
		"a window wider than a value":          0b11_11111_1, // 31 leading zeros, 32 bits and more
	} {
		b := append(append(append([]byte{}, first...), bits, 0xff), pad...)
		_, _, err := AppendXOR(nil, nil, b)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
	_, _, err := AppendXOR(nil, nil, []byte{0})
	require.ErrorIs(t, err, ErrCorrupt)
}

func BenchmarkXOR(b *testing.B) {
	for _, shape := range []string{"counter", "gauge", "constant"} {
		rnd := rand.New(rand.NewSource(1))
		ts, vs, v := make([]int64, 120), make([]float64, 120), 0.0
		for i := range ts {
			ts[i] = 1_700_000_000_000 + int64(i)*15_000
			switch shape {
			case "counter":
				v += float64(rnd.Intn(50))
			case "gauge":
				v = rnd.NormFloat64()
			}
			vs[i] = v
		}
		chunk := xorBytes(b, ts, vs)
		perSample := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ts)), "ns/sample")
			b.ReportAllocs()
		}
		b.Run(fmt.Sprintf("decode/%s", shape), func(b *testing.B) {
			for b.Loop() {
				ts, vs, _ = AppendXOR(ts[:0], vs[:0], chunk)
			}
			perSample(b)
		})
		b.Run(fmt.Sprintf("decode-tsdb/%s", shape), func(b *testing.B) {
			var it chunkenc.Iterator
			for b.Loop() {
				it = chunkOf(chunk).Iterator(it)
				for i := 0; it.Next() != chunkenc.ValNone; i++ {
					ts[i], vs[i] = it.At()
				}
			}
			perSample(b)
		})
		b.Run(fmt.Sprintf("encode/%s", shape), func(b *testing.B) {
			var out []byte
			for b.Loop() {
				out = AppendXORChunk(out[:0], ts, vs)
			}
			perSample(b)
		})
	}
}
