package storeapi

import (
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// histogramChunks returns a chunk of each encoding of histograms, and each kind of layout.
func histogramChunks(t testing.TB) (list []Data) {
	custom, threshold := tsdbutil.GenerateTestCustomBucketsHistogram(3), tsdbutil.GenerateTestHistogram(4)
	threshold.ZeroThreshold = 0.1
	for _, h := range []*histogram.Histogram{tsdbutil.GenerateTestHistogram(3), custom, threshold, {Schema: -4}} {
		for _, st := range []bool{false, true} {
			ints, floats := Encoder{StartTimestamps: st}, Encoder{StartTimestamps: st}
			for i := range int64(3) {
				require.NoError(t, ints.Histogram(1, i*1000, h.Copy()))
				require.NoError(t, floats.FloatHistogram(1, i*1000, h.ToFloat(nil)))
			}
			list = append(list, ints.Chunks()[0].Raw, floats.Chunks()[0].Raw)
		}
	}
	return list
}

func countSamples(d Data) (n int, err error) {
	c, err := d.Chunk()
	if err != nil {
		return 0, err
	}
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		n++
	}
	return n, it.Err()
}

func TestCheckLayout(t *testing.T) {
	for _, d := range histogramChunks(t) {
		n, err := countSamples(d)
		require.NoError(t, err, d.Encoding)
		require.Equal(t, 3, n)
	}
	// A sample; threshold 0, schema 0, one positive span of 2^32-1 buckets at offset 0, no negative ones.
	bomb := append([]byte{0, 1, 0, 0}, pack("0"+"10"+"001"+"11111110"+strings.Repeat("0", 24)+strings.Repeat("1", 32)+"0"+"0"+strings.Repeat("0", 80))...)
	for _, e := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		_, err := countSamples(Data{Encoding: e, Bytes: bomb})
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "announces 4294967295 buckets")
	}
}

// pack makes bytes of zeros and ones.
func pack(bits string) []byte {
	b := make([]byte, (len(bits)+7)/8)
	for i := range len(bits) {
		b[i/8] |= (bits[i] - '0') << (7 - i%8)
	}
	return b
}

// Whatever a peer sends as a histogram costs memory in proportion to its size.
func FuzzHistogramChunk(f *testing.F) {
	for _, d := range histogramChunks(f) {
		f.Add(uint8(d.Encoding), d.Bytes)
	}
	f.Fuzz(func(t *testing.T, e uint8, b []byte) {
		enc := chunkenc.Encoding(e % (uint8(chunkenc.EncFloatHistogramST) + 1))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = countSamples(Data{Encoding: enc, Bytes: b})
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20+2000*len(b)))
	})
}
