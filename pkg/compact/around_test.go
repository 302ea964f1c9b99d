package compact_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// copying is a bucket whose copying within itself a test watches, or lets fail.
type copying struct {
	block.Bucket
	copied int
	fail   error
}

func (c *copying) Copy(ctx context.Context, from, to string) error {
	if c.fail != nil && c.copied > 0 {
		return c.fail
	}
	c.copied++
	return c.Bucket.Copy(ctx, from, to)
}

// What the middle of a job does when the bucket copies, can't, or stops to.
var copyFaults = map[string]error{
	"copies":      nil,
	"unsupported": fmt.Errorf("copy: %w", errors.ErrUnsupported),
	"fails":       errors.New("500 Internal Server Error"),
}

// On the way to two days blocks of two hours become one of eight without their
// chunks being moved, and where the bucket can't copy, or stops in the middle of
// it, with.
func TestSegmentsAreCopied(t *testing.T) {
	const series = 8000 // enough for segments that are worth a request
	for name, fail := range copyFaults {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.clock.t = epoch.Add(18 * time.Hour)
			for h := int64(0); h < 8; h += 2 {
				w.ship(h, h+2, series)
			}
			bkt := &copying{Bucket: w.bkt, fail: fail}
			c := w.compactor(func(_ *compact.Config, p *compact.Parts) { p.Bucket = bkt })
			require.NoError(t, c.Once(context.Background()))
			live := w.liveRaw()
			require.Len(t, live, 1)
			w.requireSamples()
			_, ours, err := live[0].Extension()
			require.NoError(t, err)
			require.True(t, ours, "the group rests after a block that is somebody else's")
			if fail == nil {
				require.Equal(t, 4, bkt.copied)
			} else {
				require.Equal(t, 1, bkt.copied)
			}
			before := w.blockObjects()
			require.NoError(t, c.Once(context.Background()))
			require.Equal(t, before, w.blockObjects(), "nothing is left to do")
		})
	}
}

// Raw blocks of two days become one of fourteen without their chunks being moved,
// once there is 5m data of them; a series then lies in seven places. Smaller ones
// than --compact.copy-min-size are written anew, as is what a late block joins.
func TestLastLevelIsCopied(t *testing.T) {
	for name, fail := range copyFaults {
		t.Run(name, func(t *testing.T) {
			bkt := &copying{fail: fail}
			w, c := fortnight(t, bkt, 1)
			live := w.liveRaw()
			require.Len(t, live, 2)
			require.Equal(t, 14*24*hour, live[0].MaxTime-live[0].MinTime)
			w.requireSamples()
			ext, ours, err := live[0].Extension()
			require.NoError(t, err)
			require.True(t, ours)
			if fail == nil {
				require.Equal(t, 7, bkt.copied)
				require.Equal(t, 7, ext.Runs)
				require.Len(t, live[0].Thanos.SegmentFiles, 7)
			} else {
				require.Equal(t, 1, bkt.copied)
				require.Equal(t, 1, ext.InRuns())
				require.Len(t, live[0].Thanos.SegmentFiles, 1)
			}
			bkt.fail = nil
			w.ship(30, 32, 12)
			w.clock.add(time.Hour) // to the next listing
			require.NoError(t, c.Once(context.Background()))
			w.requireSamples()
			live = w.liveRaw()
			require.Len(t, live, 2)
			ext, _, err = live[0].Extension()
			require.NoError(t, err)
			require.Equal(t, 1, ext.InRuns(), "merged with what came late")
		})
	}
	t.Run("small", func(t *testing.T) {
		bkt := &copying{}
		w, _ := fortnight(t, bkt, 1<<20)
		require.Len(t, w.liveRaw(), 2)
		require.Zero(t, bkt.copied)
		w.requireSamples()
	})
}

// fortnight ships blocks of a day for fifteen days, and compacts after each.
func fortnight(t *testing.T, bkt *copying, copyMinSize flagext.Bytes) (*world, *compact.Compactor) {
	w := newWorld(t)
	w.clock.t = epoch
	bkt.Bucket = w.bkt
	c := w.compactor(func(cfg *compact.Config, p *compact.Parts) { cfg.CopyMinSize, p.Bucket = copyMinSize, bkt })
	for h := int64(0); h < 15*24; h += 24 {
		w.clock.add(24 * time.Hour)
		w.ship(h, h+24, 10)
		require.NoError(t, c.Once(context.Background()))
	}
	return w, c
}
