package compact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// busy makes a bucket in which everything there is comes up: a group to compact
// and downsample, a block that another covers, one that expires, one that is
// corrupt, one to be removed, a partial one, and a request to delete a series.
func busy(t *testing.T) *world {
	w := newWorld(t)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 2)
	}
	w.ship(48, 50, 2) // the newest, so that the days before are complete
	w.coveredTwin()
	w.ship(-200*24, -200*24+2, 1, "cluster", "old")
	w.corrupt(w.ship(0, 16, 1, "cluster", "bad"), "chunks/000001")
	w.ship(16, 32, 1, "cluster", "bad")
	gone := w.ship(0, 2, 1, "cluster", "gone")
	mark := block.DeletionMark{ID: gone.ULID, DeletionTime: w.clock.now().Unix()}
	require.NoError(t, block.WriteDeletionMark(context.Background(), w.bkt, mark))
	partial := w.ship(0, 2, 1, "cluster", "partial")
	require.NoError(t, w.bkt.Memory.Delete(context.Background(), block.Name(partial.ULID, block.MetaFilename)))
	_, err := block.CreateDelete(context.Background(), w.bkt, block.DeleteRequest{
		Selectors: []string{`{cluster="a",i="001"}`}, MinTime: 0, MaxTime: epoch.UnixMilli() + 40*hour, By: "test", ID: ulid.MustNew(1, bytes.NewReader(make([]byte, 10))),
	})
	require.NoError(t, err)
	w.clock.add(49 * time.Hour)
	return w
}

// coveredTwin ships a block that says it was made from the first one.
func (w *world) coveredTwin() {
	first := w.live()[0]
	w.n++
	twin := *first
	twin.ULID = ulid.MustNew(first.ULID.Time()+1, bytes.NewReader(append(make([]byte, 9), byte(w.n))))
	objects := w.bkt.Objects()
	for name, data := range objects {
		if id, rel, ok := block.SplitName(name); ok && id == first.ULID && rel != block.MetaFilename {
			require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(twin.ULID, rel), bytes.NewReader(data)))
		}
	}
	data, err := twin.Encode()
	require.NoError(w, err)
	require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(twin.ULID, block.MetaFilename), bytes.NewReader(data)))
}

// corrupt flips a byte in the middle of an object.
func (w *world) corrupt(m block.Meta, rel string) {
	data := bytes.Clone(w.bkt.Objects()[block.Name(m.ULID, rel)])
	data[len(data)/2] ^= 0xff
	require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(m.ULID, rel), bytes.NewReader(data)))
}

// keepAll is a retention by which only the oldest block of busy expires.
func keepAll(cfg *compact.Config) {
	cfg.Retention.Raw, cfg.Retention.FiveMinutes, cfg.Retention.OneHour = duration(100*24*time.Hour), duration(100*24*time.Hour), duration(100*24*time.Hour)
}

// drive makes passes, with days between them, until nothing changes. A process
// that dies is started again in its data folder.
func (w *world) drive(p *process, change func(*compact.Config), passes int) {
	dir := w.TempDir()
	c := w.killable(p, dir, change)
	for pass := 0; pass < passes; pass++ {
		err := c.Once(context.Background())
		if p.isDead() {
			require.NoError(w, c.Close()) // as the kernel does
			require.NoError(w, os.WriteFile(filepath.Join(dir, "compact", "left"), []byte("over"), 0o644))
			p = &process{}
			c = w.killable(p, dir, change)
			requireTidy(w, dir)
			pass--
			continue
		}
		require.NoError(w, err)
		w.clock.add(49 * time.Hour)
	}
	require.NoError(w, c.Close())
	requireTidy(w, dir)
}

// state names every object that belongs to a block.
func (w *world) state() []string {
	var out []string
	for name := range w.bkt.Objects() {
		if !strings.HasPrefix(name, "firnline/") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// TestKilledAtEachPoint kills a compactor once at each fault point. Its successor
// comes to the same blocks as one that was never disturbed: no second result,
// nothing left over. RELIABILITY C1
func TestKilledAtEachPoint(t *testing.T) {
	fresh, p := busy(t), &process{}
	undisturbed := fresh.copy(t)
	undisturbed.drive(p, keepAll, 4)
	want := undisturbed.state()
	require.NotEmpty(t, want)
	for _, point := range compact.FaultPoints() {
		require.NotZero(t, p.seen[point], "%s is never reached", point)
	}
	require.Empty(t, slices.DeleteFunc(slices.Sorted(maps.Keys(p.seen)), func(s string) bool {
		return !strings.HasPrefix(s, "compact/") || slices.Contains(compact.FaultPoints(), s)
	}), "points that FaultPoints does not list")

	for _, point := range compact.FaultPoints() {
		for nth := 1; nth <= min(p.seen[point], 2); nth++ {
			t.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(point, "/", "_"), nth), func(t *testing.T) {
				t.Parallel()
				w := fresh.copy(t)
				w.drive(&process{at: point, nth: nth}, keepAll, 4)
				require.Equal(t, want, w.state())
			})
		}
	}
}

// split makes a bucket with a group that is too large for one block.
func split(t *testing.T) *world {
	w := newWorld(t)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 300)
	}
	return w
}

func smallIndex(cfg *compact.Config) { cfg.MaxIndexBytes = 16 << 10 }

// TestKilledBetweenShards kills a compactor at each step of splitting a group:
// before and after each shard becomes visible. Until the last one is there the
// inputs stay, since it is what hides them. RELIABILITY C1
func TestKilledBetweenShards(t *testing.T) {
	fresh, p := split(t), &process{}
	undisturbed := fresh.copy(t)
	undisturbed.drive(p, smallIndex, 2)
	undisturbed.requireSamples()
	want := undisturbed.state()
	shards := 0
	for _, m := range undisturbed.liveRaw() {
		ext, _, err := m.Extension()
		require.NoError(t, err)
		require.NotNil(t, ext.Shard)
		require.True(t, undisturbed.has(m.ULID, block.NoCompactMarkFilename))
		shards++
	}
	require.Greater(t, shards, 2)

	for _, point := range []string{"compact/before-meta", "compact/after-upload", "compact/before-mark", "compact/after-readback"} {
		for nth := 1; nth <= p.seen[point]; nth++ {
			t.Run(fmt.Sprintf("%s/%d", strings.TrimPrefix(point, "compact/"), nth), func(t *testing.T) {
				t.Parallel()
				w := fresh.copy(t)
				w.drive(&process{at: point, nth: nth}, smallIndex, 2)
				require.Equal(t, want, w.state())
				w.requireSamples()
			})
		}
	}
}

// TestMergeShards goes the way back: one block again, and no marks of ours.
func TestMergeShards(t *testing.T) {
	ctx, w := context.Background(), split(t)
	w.drive(&process{}, smallIndex, 2)
	require.Greater(t, len(w.liveRaw()), 2)

	c := w.compactor(nil)
	lines, err := c.MergeShards(ctx, compact.Unsplit{DryRun: true})
	require.NoError(t, err)
	require.Len(t, lines, 2, "raw and 5m")
	_, err = c.MergeShards(ctx, compact.Unsplit{Group: "0@nobody"})
	require.ErrorContains(t, err, "has no shards")
	require.Greater(t, len(w.liveRaw()), 2, "nothing was done")

	_, err = c.MergeShards(ctx, compact.Unsplit{})
	require.NoError(t, err)
	require.Len(t, w.liveRaw(), 1)
	require.Len(t, w.live(), 2)
	w.requireSamples()
	require.False(t, w.has(w.liveRaw()[0].ULID, block.NoCompactMarkFilename))

	require.NoError(t, c.Once(ctx), "a compactor has nothing to do then, as long as the block is not too large for it")
	require.Len(t, w.live(), 2)
}

// TestMergeShardsNeedsAll refuses to make a block of some of the shards, and can
// leave the merging to others.
func TestMergeShardsNeedsAll(t *testing.T) {
	ctx, w := context.Background(), split(t)
	w.drive(&process{}, smallIndex, 2)
	c := w.compactor(nil)
	_, err := c.MergeShards(ctx, compact.Unsplit{MarksOnly: true})
	require.NoError(t, err)
	for _, m := range w.live() {
		require.False(t, w.has(m.ULID, block.NoCompactMarkFilename))
	}
	lost := w.liveRaw()[1].ULID
	require.NoError(t, block.Delete(ctx, w.bkt, lost))
	_, err = c.MergeShards(ctx, compact.Unsplit{})
	require.ErrorContains(t, err, lost.String(), "whoever doesn't know yet finds out")
	require.NoError(t, block.Announce(ctx, w.bkt, block.Change{Block: lost, Removed: true}))
	c = w.compactor(nil)
	_, err = c.MergeShards(ctx, compact.Unsplit{})
	require.ErrorContains(t, err, "shards are missing")
}

// TestKilledAtEachDelete kills a compactor before and after each removal of an
// object. At no moment does a reader see a block that lacks anything, and in the
// end nothing of the removed blocks is left. RELIABILITY C2
func TestKilledAtEachDelete(t *testing.T) {
	fresh, p := busy(t), &process{}
	undisturbed := fresh.copy(t)
	undisturbed.drive(p, keepAll, 12) // so long that nothing is left to come
	want := undisturbed.state()
	for _, when := range []string{"before", "after"} {
		point := "bucket/delete/" + when
		require.Greater(t, p.seen[point], 15)
		for nth := 1; nth <= p.seen[point]; nth += 4 {
			t.Run(fmt.Sprintf("%s/%d", when, nth), func(t *testing.T) {
				t.Parallel()
				w := fresh.copy(t)
				p := &process{at: point, nth: nth}
				dir := w.TempDir()
				c := w.killable(p, dir, keepAll)
				for range 8 {
					if _ = c.Once(context.Background()); p.isDead() {
						break
					}
					w.clock.add(49 * time.Hour)
				}
				require.NoError(t, c.Close())
				w.requireNoHalves()
				w.drive(&process{}, keepAll, 12)
				require.Equal(t, want, w.state())
			})
		}
	}
}

// requireNoHalves finds every file of every block that has a meta.json.
func (w *world) requireNoHalves() {
	w.Helper()
	for _, m := range w.live() {
		for _, f := range m.Thanos.Files {
			require.True(w, w.has(m.ULID, f.RelPath), "block %s lacks %s", m.ULID, f.RelPath)
		}
	}
}

// TestPausedPastItsClaim stops a worker at each step of a job until another one
// has done everything, long after the claim has lapsed, and lets it go on. The
// results are those of one worker alone, and each sample is there once.
// RELIABILITY C3
func TestPausedPastItsClaim(t *testing.T) {
	fresh := split(t)
	undisturbed := fresh.copy(t)
	undisturbed.drive(&process{}, nil, 1)
	want := undisturbed.state()
	points := slices.DeleteFunc(compact.FaultPoints(), func(p string) bool {
		return slices.Contains([]string{"garbage", "retention", "set-aside", "remove", "delete-done"}, strings.TrimPrefix(p, "compact/before-")) || strings.Contains(p, "remove") || strings.Contains(p, "garbage") || strings.Contains(p, "retention")
	})
	require.Greater(t, len(points), 10)
	for _, point := range points {
		t.Run(strings.ReplaceAll(point, "/", "_"), func(t *testing.T) {
			t.Parallel()
			w := fresh.copy(t)
			paused, goOn := make(chan struct{}), make(chan struct{})
			first := true
			a := w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
				cfg.LeaseTTL = duration(time.Hour) // it renews its claim each quarter of that by the machine's clock
				parts.Fault = func(_ context.Context, at, _ string) error {
					if at == point && first {
						first = false
						close(paused)
						<-goOn
					}
					return nil
				}
			})
			ended := make(chan error)
			go func() { ended <- a.Once(context.Background()) }()
			<-paused
			w.clock.add(6 * time.Hour) // six times the claim's life

			b := w.compactor(nil)
			require.NoError(t, b.Once(context.Background()))
			done := w.state()
			w.requireSamples()
			close(goOn)
			<-ended // it may have lost its claim, or not

			require.Equal(t, done, w.state(), "late steps change nothing")
			require.Equal(t, want, w.state())
			w.requireSamples()
			require.NoError(t, w.compactor(nil).Once(context.Background()))
			require.Equal(t, want, w.state())
		})
	}
}

// TestManyFail: however many jobs fail, there are only a few plans, and what can be
// done in their stead is tried all the same.
func TestManyFail(t *testing.T) {
	const groups = 25
	w := newWorld(t)
	for n := range groups {
		for h := int64(0); h < 48; h += 24 {
			w.ship(h, h+24, 1, "group", fmt.Sprint(n))
		}
	}
	w.ship(100, 102, 1, "group", "0")
	var tried sync.Map
	reg := prometheus.NewRegistry()
	c := w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
		parts.Metrics = reg
		parts.Fault = func(_ context.Context, point, object string) error {
			if point == compact.FaultPoints()[0] {
				tried.Store(object, true)
				return errors.New("no luck")
			}
			return nil
		}
	})
	require.ErrorIs(t, c.Once(t.Context()), compact.ErrLeftUndone)
	kinds := map[string]int{}
	tried.Range(func(key, _ any) bool {
		kind, _, _ := strings.Cut(key.(string), "/")
		kinds[kind]++
		return true
	})
	require.Equal(t, map[string]int{"compact": groups, "downsample": groups}, kinds, "the latter since the former, which would do both, fail")
	families, err := reg.Gather()
	require.NoError(t, err)
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "firnline_compact_plan_duration_seconds" })
	require.LessOrEqual(t, families[i].GetMetric()[0].GetHistogram().GetSampleCount(), uint64(10))
}
