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
