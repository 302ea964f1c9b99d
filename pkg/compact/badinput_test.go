package compact_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// TestBlocksWithoutSeries are merged with others like any, and alone they give no
// result and stay until they expire; nobody comes back to them for ever.
func TestBlocksWithoutSeries(t *testing.T) {
	w := days(t)
	w.ship(0, 16, 0)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 0, "cluster", "empty")
	}
	w.ship(64, 66, 1, "cluster", "empty")
	c, reg := w.watched(nil)
	require.NoError(t, c.Once(context.Background()))
	w.requireSamples()
	require.Zero(t, value(t, reg, "set_aside_blocks", "compact"))
	require.Zero(t, value(t, reg, "job_failures_total"))
	jobs := value(t, reg, "jobs_total")
	before := w.state()
	for range 2 {
		require.NoError(t, c.Once(context.Background()))
	}
	require.Equal(t, jobs, value(t, reg, "jobs_total"))
	require.Equal(t, before, w.state())
}

// TestUnknownVersions: a block whose meta.json or index is of a version to come is
// left alone and shown, and its neighbours are compacted without it. RELIABILITY C4
func TestUnknownVersions(t *testing.T) {
	ctx, w := context.Background(), days(t)
	meta := w.ship(0, 16, 2, "cluster", "meta")
	w.ship(16, 32, 2, "cluster", "meta")
	w.ship(32, 48, 2, "cluster", "meta")
	w.change(meta.ULID, block.MetaFilename, func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 7`), 1)
	})
	index := w.ship(0, 16, 2, "cluster", "index")
	w.ship(16, 32, 2, "cluster", "index")
	w.ship(32, 48, 2, "cluster", "index")
	w.change(index.ULID, block.IndexFilename, func(b []byte) []byte { b[4] = 7; return b })

	c, reg := w.watched(nil)
	require.NoError(t, c.Once(ctx))
	require.EqualValues(t, 2, value(t, reg, "set_aside_blocks", "compact"))
	why := map[string]string{}
	for _, s := range c.Status().SetAside {
		why[s.Block] = s.Why
	}
	require.Contains(t, why[meta.ULID.String()], "version")
	require.Contains(t, why[index.ULID.String()], "version")
	require.True(t, w.has(meta.ULID, block.IndexFilename), "nothing of it is removed")
	require.False(t, w.has(meta.ULID, block.NoCompactMarkFilename))
	require.True(t, w.has(index.ULID, block.NoCompactMarkFilename))
}

// TestClashingShards: a shard that says it has all series is at odds with each of
// its split. It is set aside, and hides none of them. RELIABILITY C4
func TestClashingShards(t *testing.T) {
	ctx, w := context.Background(), split(t)
	w.drive(&process{}, smallIndex, 2)
	live := w.live()
	twin := w.twin(w.liveRaw()[0].ULID, func(s *block.Shard) { s.From, s.To = labels.EmptyLabels(), labels.EmptyLabels() })
	c, reg := w.watched(func(cfg *compact.Config, _ *compact.Parts) { smallIndex(cfg) })
	require.NoError(t, c.Once(ctx))
	require.EqualValues(t, 1, value(t, reg, "set_aside_blocks", "compact"))
	aside := c.Status().SetAside
	require.Equal(t, twin.String(), aside[0].Block)
	require.Contains(t, aside[0].Why, "clashes with shard")
	require.Len(t, w.live(), len(live)+1)
	w.requireSamples()
}

// TestShardsThatDoNotMeet: of a split whose first shard holds less than its
// neighbour takes for granted the last one never becomes visible, and so the inputs
// stay. RELIABILITY C4
func TestShardsThatDoNotMeet(t *testing.T) {
	w := split(t)
	inputs := w.live()
	c := w.killable(&process{at: "compact/after-upload", nth: 2}, t.TempDir(), smallIndex)
	_ = c.Once(t.Context())
	require.NoError(t, c.Close())
	w.clock.add(time.Hour) // so that its claim has lapsed
	shards := slices.DeleteFunc(w.live(), func(m *block.Meta) bool { return slices.Contains(ulids(inputs), m.ULID) })
	require.Len(t, shards, 2, "5m and raw")
	for _, m := range shards {
		ext, _, err := m.Extension()
		require.NoError(t, err)
		require.Zero(t, ext.Shard.Index)
		require.Greater(t, ext.Shard.Count, 2)
		ext.Shard.To = labels.FromStrings("__name__", "m", "i", "001")
		require.NoError(t, m.SetExtension(ext))
		w.change(m.ULID, block.MetaFilename, func([]byte) []byte {
			data, err := m.Encode()
			require.NoError(t, err)
			return data
		})
	}
	for range 2 {
		c, _ := w.watched(func(cfg *compact.Config, _ *compact.Parts) { smallIndex(cfg) })
		require.ErrorContains(t, c.Once(t.Context()), "nothing holds the series from")
		require.NotEmpty(t, c.Status().SetAside)
		w.clock.add(49 * time.Hour)
	}
	require.Subset(t, ulids(w.live()), ulids(inputs))
}

func ulids(metas []*block.Meta) (out []ulid.ULID) {
	for _, m := range metas {
		out = append(out, m.ULID)
	}
	return out
}

// change puts another content in the place of an object.
func (w *world) change(id ulid.ULID, rel string, by func([]byte) []byte) {
	w.Helper()
	name := block.Name(id, rel)
	before := w.bkt.Objects()[name]
	after := by(bytes.Clone(before))
	require.NotEqual(w, before, after)
	require.NoError(w, w.bkt.Memory.Upload(context.Background(), name, bytes.NewReader(after)))
}

// twin copies a shard under a younger ULID, with another record of it.
func (w *world) twin(id ulid.ULID, change func(*block.Shard)) ulid.ULID {
	w.Helper()
	twin := id
	require.NoError(w, twin.SetTime(id.Time()+1))
	for name, data := range w.bkt.Objects() {
		of, rel, ok := block.SplitName(name)
		if !ok || of != id {
			continue
		}
		if rel == block.MetaFilename {
			m, err := block.ParseMeta(id, data)
			require.NoError(w, err)
			ext, _, err := m.Extension()
			require.NoError(w, err)
			m.ULID = twin // what was recorded is said of another block now
			change(ext.Shard)
			require.NoError(w, m.SetExtension(ext))
			data, err = m.Encode()
			require.NoError(w, err)
		} else if strings.HasSuffix(rel, ".json") {
			var mark map[string]any
			require.NoError(w, json.Unmarshal(data, &mark))
			mark["id"] = twin.String()
			var err error
			data, err = json.Marshal(mark)
			require.NoError(w, err)
		}
		require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(twin, rel), bytes.NewReader(data)))
	}
	return twin
}
