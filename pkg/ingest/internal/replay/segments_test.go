package replay

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// TestSegments: what is read from a segment is what package wlog reads from it. Of one that is
// damaged as well, or it is refused: nothing is left out without a word.
//
// RELIABILITY I2
func TestSegments(t *testing.T) {
	rnd := newRand(1)
	refused := 0
	for _, how := range []compression.Type{compression.None, compression.Snappy, compression.Zstd} {
		dir := t.TempDir()
		w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, dir, 64*logPage, how)
		require.NoError(t, err)
		for range 60 {
			rec := make([]byte, 1+rnd.IntN(1<<rnd.IntN(17)))
			for i := range rec[:len(rec)/2] {
				rec[i] = byte(rnd.Uint32())
			}
			require.NoError(t, w.Log(rec))
		}
		require.NoError(t, w.Close())
		path := wlog.SegmentName(dir, 0)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		want, err := wlogRecords(path)
		require.NoError(t, err)
		got, err := ourRecords(path)
		require.NoError(t, err)
		require.Equal(t, want, got)
		for range 300 {
			b := append([]byte(nil), whole...)
			at := rnd.IntN(len(b))
			if rnd.IntN(2) == 0 { // about a header, so that these are met
				at = at / logPage * logPage
			}
			switch rnd.IntN(4) {
			case 0:
				b = b[:at]
			case 1:
				clear(b[at:min(len(b), at+1+rnd.IntN(2*logPage))])
			case 2:
				b[at] = byte(rnd.Uint32())
			default:
				b[at] ^= 1 << rnd.IntN(8)
			}
			bad := filepath.Join(t.TempDir(), "00000000")
			require.NoError(t, os.WriteFile(bad, b, 0o644))
			got, err := ourRecords(bad)
			if err != nil {
				refused++
				continue
			}
			want, err := wlogRecords(bad)
			require.NoError(t, err, "taken by us, %s", how)
			require.Equal(t, len(want), len(got))
			require.Equal(t, want, got)
		}
	}
	require.Positive(t, refused)
}

func wlogRecords(path string) (out [][]byte, err error) {
	s, err := wlog.OpenReadSegment(path)
	if err != nil {
		return nil, err
	}
	in := wlog.NewSegmentBufReader(s)
	defer in.Close()
	r := wlog.NewReader(in)
	for r.Next() {
		out = append(out, append([]byte{}, r.Record()...))
	}
	return out, r.Err()
}

func ourRecords(path string) (out [][]byte, err error) {
	buf := compression.NewSyncDecodeBuffer()
	var bad error
	r := segmentReader{
		next: func() (*batch, error) { return &batch{}, nil },
		pass: func(b *batch) {
			from := 0
			for _, rec := range b.records {
				got, err := compression.Decode(rec.compression, b.raw[from:rec.end], buf)
				if err != nil {
					bad = fmt.Errorf("decompress: %w", err)
				}
				out = append(out, append([]byte{}, got...))
				from = rec.end
			}
		},
	}
	if err := r.segment(path, 0); err != nil {
		return nil, err
	}
	return out, bad
}
