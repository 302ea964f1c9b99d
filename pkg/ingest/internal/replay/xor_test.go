package replay

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// TestXORChunk: the bytes are those of package chunkenc, after each sample.
func TestXORChunk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := newRand(seed)
	times := map[string]func() int64{
		"even":   func() int64 { return 15_000 },
		"uneven": func() int64 { return 1 + r.Int64N(20_000) },
		"gaps":   func() int64 { return 1 + r.Int64N(1<<uint(1+r.IntN(62))) },
		"edges": func() int64 {
			return 1<<20 + int64(r.IntN(2)*2-1)<<uint(12+r.IntN(9)) + int64(r.IntN(5)-2)
		},
	}
	values := map[string]func(float64) float64{
		"same":     func(v float64) float64 { return v },
		"counter":  func(v float64) float64 { return v + float64(r.IntN(100)) },
		"any":      func(float64) float64 { return r.Float64() },
		"any bits": func(float64) float64 { return math.Float64frombits(r.Uint64()) },
		"few bits": func(float64) float64 { return math.Float64frombits(r.Uint64() >> uint(r.IntN(64)) << uint(r.IntN(64))) },
	}
	for tn, next := range times {
		for vn, value := range values {
			t.Run(fmt.Sprintf("%s times, %s values", tn, vn), func(t *testing.T) {
				var c xorChunk
				for range 3 { // the bytes are taken again
					c.begin()
					sameAsChunkenc(t, &c, r.Int64()-math.MaxInt64/2, next, value)
				}
			})
		}
	}
}

func sameAsChunkenc(t *testing.T, c *xorChunk, at int64, next func() int64, value func(float64) float64) {
	want := chunkenc.NewXORChunk()
	app, err := want.Appender()
	require.NoError(t, err)
	before, v := int64(0), 1.0
	for range 150 {
		c.append(before, at, v)
		app.Append(0, at, v)
		require.Equal(t, want.Bytes(), c.bytes())
		require.Equal(t, len(want.Bytes()), c.size())
		before, at, v = at, at+next(), value(v)
	}
}
