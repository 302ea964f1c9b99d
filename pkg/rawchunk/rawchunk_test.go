package rawchunk

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// pack makes bytes of zeros and ones.
func pack(bits string) []byte {
	b := make([]byte, (len(bits)+7)/8)
	for i := range len(bits) {
		b[i/8] |= (bits[i] - '0') << (7 - i%8)
	}
	return b
}

func TestOpen(t *testing.T) {
	var sound chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := sound.Appender()
	require.NoError(t, err)
	_, _, _, err = app.AppendFloatHistogram(nil, 0, 1, &histogram.FloatHistogram{Count: 2, ZeroCount: 2, ZeroThreshold: 0.1}, false)
	require.NoError(t, err)
	c, err := Open(sound.Encoding(), sound.Bytes())
	require.NoError(t, err)
	require.Equal(t, 1, c.NumSamples())

	// A sample; threshold 0, schema 0, one positive span of 2^32-1 buckets at offset 0, no negative ones.
	bomb := append([]byte{0, 1, 0, 0}, pack("0"+"10"+"001"+"11111110"+strings.Repeat("0", 24)+strings.Repeat("1", 32)+"0"+"0"+strings.Repeat("0", 80))...)
	for _, e := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		_, err := Open(e, bomb)
		require.ErrorContains(t, err, "announces 4294967295 buckets")
		_, err = Open(e, bomb[:2])
		require.ErrorContains(t, err, "its header alone has 3")
	}
	_, err = Open(chunkenc.EncXOR, bomb[:1])
	require.ErrorContains(t, err, "its header alone has 2")
	_, err = Open(77, bomb)
	require.ErrorContains(t, err, "encoding 77 is unknown")
}
