package compact_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// A deletion mark that can't be read removes nothing, stops nothing, and shows.
func TestTornDeletionMark(t *testing.T) {
	for name, mark := range map[string]string{"empty": "", "garbage": "{\"id\"", "newer": `{"id":"%","version":7,"deletion_time":1}`} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.ship(0, 2, 1)
			w.ship(2, 4, 1)
			body := bytes.ReplaceAll([]byte(mark), []byte("%"), []byte(m.ULID.String()))
			require.NoError(t, w.bkt.Upload(context.Background(), block.Name(m.ULID, block.DeletionMarkFilename), bytes.NewReader(body)))
			w.clock.add(100 * 24 * time.Hour)
			c := w.compactor(nil)
			require.NoError(t, c.Once(context.Background()))
			visible, err := w.bkt.Exists(context.Background(), block.Name(m.ULID, block.MetaFilename))
			require.NoError(t, err)
			require.True(t, visible)
			status := c.Status()
			require.Len(t, status.SetAside, 1)
			require.Equal(t, m.ULID.String(), status.SetAside[0].Block)
		})
	}
}

// A no-compact or no-downsample mark that can't be read keeps nothing out and
// stops nothing: the block is taken as not marked so, which the log says.
func TestOtherTornMarks(t *testing.T) {
	for _, filename := range []string{block.NoCompactMarkFilename, block.NoDownsampleMarkFilename} {
		for name, mark := range map[string]string{"empty": "", "garbage": "{\"id\"", "of another": `{"id":"01ARZ3NDEKTSV4RRFFQ69G5FAV","version":1}`} {
			t.Run(filename+" "+name, func(t *testing.T) {
				w := days(t)
				m := w.liveRaw()[0]
				body := bytes.ReplaceAll([]byte(mark), []byte("%"), []byte(m.ULID.String()))
				require.NoError(t, w.bkt.Upload(t.Context(), block.Name(m.ULID, filename), bytes.NewReader(body)))
				c := w.compactor(nil)
				require.NoError(t, c.Once(t.Context()))
				require.Empty(t, c.Status().SetAside)
				require.Len(t, w.liveRaw(), 1, "it was merged")
				w.requireSamples()
				w.clock.add(100 * 24 * time.Hour)
				require.NoError(t, c.Once(t.Context()))
				require.False(t, w.has(m.ULID, filename), "it went with its block")
			})
		}
	}
}

// A no-compact or no-downsample mark of a version to come keeps its block out as
// any other does: that it is there says so. The block stays as it is while the
// others of its group are merged, and is counted with those that others have
// marked. RELIABILITY P15, C4
func TestMarksOfUnknownVersion(t *testing.T) {
	for _, filename := range []string{block.NoCompactMarkFilename, block.NoDownsampleMarkFilename} {
		for name, mark := range map[string]string{"as ours": `{"id":"%","version":7}`, "otherwise": `{"version":7,"id":{"block":"%"},"reason":17}`} {
			t.Run(filename+" "+name, func(t *testing.T) {
				w := days(t)
				m := w.liveRaw()[0]
				before := len(w.liveRaw())
				body := bytes.ReplaceAll([]byte(mark), []byte("%"), []byte(m.ULID.String()))
				require.NoError(t, w.bkt.Upload(t.Context(), block.Name(m.ULID, filename), bytes.NewReader(body)))
				c, reg := w.watched(nil)
				for range 2 {
					require.NoError(t, c.Once(t.Context()))
					require.Len(t, c.Status().SetAside, 1)
					require.Equal(t, m.ULID.String(), c.Status().SetAside[0].Block)
					require.Contains(t, c.Status().SetAside[0].Why, "unknown version 7")
					require.EqualValues(t, 1, value(t, reg, "set_aside_blocks", "others"))
					require.Less(t, len(w.liveRaw()), before, "the others are merged")
					require.False(t, w.has(m.ULID, block.DeletionMarkFilename))
					require.Equal(t, body, w.bkt.Objects()[block.Name(m.ULID, filename)])
					w.requireSamples()
					w.clock.add(100 * 24 * time.Hour)
				}
				for _, coarse := range w.live() {
					if coarse.Resolution() != 0 && filename == block.NoDownsampleMarkFilename {
						require.GreaterOrEqual(t, coarse.MinTime, m.MaxTime)
					}
				}
			})
		}
	}
}
