package blockreader

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// encodeEntry writes a series entry as an index has it, without length and checksum.
func encodeEntry(e entry) []byte {
	b := binary.AppendUvarint(nil, uint64(len(e.Labels)))
	for _, l := range e.Labels {
		b = binary.AppendUvarint(b, uint64(l.Name))
		b = binary.AppendUvarint(b, uint64(l.Value))
	}
	b = binary.AppendUvarint(b, uint64(len(e.Chunks)))
	var last layout.Chunk
	for i, c := range e.Chunks {
		if i == 0 {
			b = binary.AppendVarint(b, c.MinTime)
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendUvarint(b, c.Ref)
		} else {
			b = binary.AppendUvarint(b, uint64(c.MinTime-last.MaxTime))
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendVarint(b, int64(c.Ref)-int64(last.Ref))
		}
		last = c
	}
	return b
}

func randomEntry(rnd *rand.Rand) entry {
	var e entry
	name := uint32(0)
	for range rnd.IntN(6) {
		name += 1 + uint32(rnd.IntN(1000))
		e.Labels = append(e.Labels, layout.Label{Name: name, Value: uint32(rnd.IntN(1 << 20))})
	}
	at, ref := int64(rnd.IntN(1_000_000)-500_000), uint64(rnd.IntN(1<<30))
	for range rnd.IntN(9) {
		c := layout.Chunk{MinTime: at, MaxTime: at + int64(rnd.IntN(10_000)), Ref: ref}
		e.Chunks = append(e.Chunks, c)
		at, ref = c.MaxTime+int64(rnd.IntN(1000)), ref+uint64(rnd.IntN(1<<33))
	}
	return e
}

// TestDecodeEntry compares with Prometheus' decoder.
func TestDecodeEntry(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	dec := index.Decoder{LookupSymbol: func(_ context.Context, o uint32) (string, error) { return strconv.Itoa(int(o)), nil }}
	for range 2000 {
		want := randomEntry(rnd)
		b := encodeEntry(want)
		got, err := decodeEntry(b)
		require.NoError(t, err)
		require.Equal(t, want, got)

		builder := labels.NewScratchBuilder(8)
		var metas []chunks.Meta
		require.NoError(t, dec.Series(b, &builder, &metas))
		require.Len(t, metas, len(got.Chunks))
		for i, m := range metas {
			require.Equal(t, layout.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Ref: uint64(m.Ref)}, got.Chunks[i])
		}
		lset := builder.Labels()
		i := 0
		lset.Range(func(l labels.Label) {
			require.Equal(t, l.Name, strconv.Itoa(int(got.Labels[i].Name)))
			require.Equal(t, l.Value, strconv.Itoa(int(got.Labels[i].Value)))
			i++
		})
		require.Len(t, got.Labels, i)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 9))
	for range 5 {
		f.Add(encodeEntry(randomEntry(rnd)))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(e.Labels)+len(e.Chunks), len(b))
		for i, c := range e.Chunks {
			require.LessOrEqual(t, c.MinTime, c.MaxTime)
			if i > 0 {
				require.LessOrEqual(t, e.Chunks[i-1].MinTime, c.MinTime)
			}
		}
		again, err := decodeEntry(encodeEntry(e))
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 9))
	raw := make([][]byte, 1000)
	for i := range raw {
		raw[i] = encodeEntry(randomEntry(rnd))
	}
	b.Run("ids", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := decodeEntry(raw[i%len(raw)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("upstream", func(b *testing.B) {
		dec := index.Decoder{LookupSymbol: func(context.Context, uint32) (string, error) { return "symbol", nil }}
		builder := labels.NewScratchBuilder(8)
		var metas []chunks.Meta
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := dec.Series(raw[i%len(raw)], &builder, &metas); err != nil {
				b.Fatal(err)
			}
			_ = builder.Labels()
		}
	})
}
