package compact_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

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

// On the way to two days blocks of two hours become one of eight without their
// chunks being moved, and where the bucket can't copy, or stops in the middle of
// it, with.
func TestSegmentsAreCopied(t *testing.T) {
	const series = 8000 // enough for segments that are worth a request
	for name, fail := range map[string]error{
		"copies":      nil,
		"unsupported": fmt.Errorf("copy: %w", errors.ErrUnsupported),
		"fails":       errors.New("500 Internal Server Error"),
	} {
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
