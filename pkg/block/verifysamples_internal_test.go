package block

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/layout"
)

// TestSamplesOfHostileChunks: bytes that no chunk has, under a checksum that is
// right, are an error and no panic. RELIABILITY C4, P12
func TestSamplesOfHostileChunks(t *testing.T) {
	for enc := range chunkenc.EncFloatHistogramST + 1 {
		for n := range 24 {
			for _, b := range []byte{0, 1, 0x7f, 0xff} {
				content := []byte{byte(enc)}
				for range n {
					content = append(content, b)
				}
				require.NotPanics(t, func() { _ = checkSamples(layout.Chunk{MaxTime: 1000}, content) }, "%d bytes of %d, encoding %d", n, b, enc)
			}
		}
	}
	require.Error(t, checkSamples(layout.Chunk{}, []byte{byte(chunkenc.EncXOR), 0}))
}
