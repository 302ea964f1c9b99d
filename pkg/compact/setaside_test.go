package compact_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// TestBadBlockWithMark finds a block bad that has a no-compact mark already, as
// an operator's or one that all our shards have. It is set aside all the same,
// and not read again and again. RELIABILITY C4
func TestBadBlockWithMark(t *testing.T) {
	ctx, w := context.Background(), days(t)
	bad := w.live()[0]
	require.NoError(t, block.WriteNoCompactMark(ctx, w.bkt, block.NoCompactMark{ID: bad.ULID, Details: "too large", Reason: block.ReasonIndexSizeExceeding}))
	w.corrupt(*bad, "chunks/000001")
	attempts := 0
	c, _ := w.watched(func(_ *compact.Config, parts *compact.Parts) {
		parts.Fault = func(_ context.Context, point, object string) error {
			if point == "compact/before-set-aside" {
				require.Equal(t, bad.ULID.String(), object)
				attempts++
			}
			return nil
		}
	})
	for range 3 {
		require.NoError(t, c.Once(ctx))
	}
	require.Equal(t, 1, attempts)
	mark, err := block.ReadNoCompactMark(ctx, w.bkt, bad.ULID)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(mark.Details, "set aside by firnline compact: "), mark.Details)
	require.Contains(t, mark.Details, "too large", "what the mark said before is not lost")
	require.Equal(t, block.ReasonIndexSizeExceeding, mark.Reason)
}

// TestBadShard is the same for a shard, all of which have a mark for others.
func TestBadShard(t *testing.T) {
	ctx, w := context.Background(), split(t)
	w.drive(&process{}, smallIndex, 2)
	bad := w.liveRaw()[0]
	w.corrupt(*bad, "chunks/000001")
	w.clock.t = epoch.Add(20 * 24 * time.Hour) // all of the fortnight is merged
	for h := int64(48); h < 96; h += 16 {
		w.ship(h, h+16, 300)
	}
	w.ship(15*24, 15*24+2, 1)
	w.clock.add(time.Hour)
	attempts := 0
	for range 3 {
		c := w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
			smallIndex(cfg)
			parts.Fault = func(_ context.Context, point, _ string) error {
				if point == "compact/before-set-aside" {
					attempts++
				}
				return nil
			}
		})
		require.NoError(t, c.Once(ctx))
		w.clock.add(time.Hour)
	}
	require.Equal(t, 1, attempts, "it is not read again and again")
	mark, err := block.ReadNoCompactMark(ctx, w.bkt, bad.ULID)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(mark.Details, "set aside by firnline compact: "), mark.Details)
}

// TestBadSegmentIsCopied has a chunk that can't be read in a segment that would
// be copied as it is. The copy is found bad, and then its source.
func TestBadSegmentIsCopied(t *testing.T) {
	ctx, w := context.Background(), newWorld(t)
	w.clock.t = epoch.Add(18 * time.Hour)
	bad := w.ship(0, 2, 8000)
	for h := int64(2); h < 8; h += 2 {
		w.ship(h, h+2, 8000)
	}
	name := block.Name(bad.ULID, "chunks/000001")
	data := bytes.Clone(w.bkt.Objects()[name])
	data[12] ^= 0xff // of the first chunk
	require.NoError(t, w.bkt.Memory.Upload(ctx, name, bytes.NewReader(data)))
	require.NoError(t, w.compactor(nil).Once(ctx))
	mark, err := block.ReadNoCompactMark(ctx, w.bkt, bad.ULID)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(mark.Details, "set aside by firnline compact: "), mark.Details)
	require.Len(t, w.liveRaw(), 2, "the others are merged")
}
