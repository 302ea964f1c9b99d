package compact_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// watched makes a compactor whose metrics a test reads.
func (w *world) watched(change func(*compact.Config, *compact.Parts)) (*compact.Compactor, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
		parts.Metrics = reg
		if change != nil {
			change(cfg, parts)
		}
	}), reg
}

// days makes a bucket with two days of one group.
func days(t *testing.T) *world {
	w := newWorld(t)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 2)
	}
	return w
}

// TestBadBlocksAreSetAside corrupts blocks in several ways. Each is set aside
// with its reason, or mended, and every other group goes on. RELIABILITY C4
func TestBadBlocksAreSetAside(t *testing.T) {
	ctx, w := context.Background(), days(t)
	for i, rel := range []string{"chunks/000001", block.IndexFilename} {
		bad := w.ship(0, 16, 2, "cluster", fmt.Sprint("bad", i))
		w.ship(16, 32, 2, "cluster", fmt.Sprint("bad", i))
		w.ship(32, 48, 2, "cluster", fmt.Sprint("bad", i))
		data := bytes.Clone(w.bkt.Objects()[block.Name(bad.ULID, rel)])
		data[20] ^= 0xff // of the index: among the symbols
		require.NoError(t, w.bkt.Upload(ctx, block.Name(bad.ULID, rel), bytes.NewReader(data)))
	}
	for i, rel := range []string{"chunks/000001", block.IndexFilename} { // though meta.json is there
		lacks := w.ship(0, 16, 2, "cluster", fmt.Sprint("lacks", i))
		w.ship(16, 32, 2, "cluster", fmt.Sprint("lacks", i))
		require.NoError(t, w.bkt.Delete(ctx, block.Name(lacks.ULID, rel)))
	}
	short := w.ship(0, 16, 2, "cluster", "short")
	w.ship(16, 32, 2, "cluster", "short")
	require.NoError(t, w.bkt.Upload(ctx, block.Name(short.ULID, block.IndexFilename), strings.NewReader("short")))

	marked := w.ship(0, 16, 2, "cluster", "marked")
	require.NoError(t, block.WriteNoCompactMark(ctx, w.bkt, block.NoCompactMark{ID: marked.ULID, Details: "ours", Reason: block.ReasonManual}))

	c, reg := w.watched(nil)
	require.NoError(t, c.Once(ctx))
	require.EqualValues(t, 5, value(t, reg, "blocks_set_aside_total"))
	require.EqualValues(t, 5, value(t, reg, "set_aside_blocks", "compact"))
	require.EqualValues(t, 1, value(t, reg, "set_aside_blocks", "others"), "which is no alert")
	mark, err := block.ReadNoCompactMark(ctx, w.bkt, short.ULID)
	require.NoError(t, err)
	require.Contains(t, mark.Details, "set aside by firnline compact: ")
	require.Contains(t, mark.Details, short.ULID.String())

	whole := map[string]int{}
	for _, m := range w.liveRaw() {
		whole[m.Thanos.Labels["cluster"]]++
	}
	require.Equal(t, map[string]int{"a": 1, "bad0": 2, "bad1": 2, "lacks0": 2, "lacks1": 2, "marked": 1, "short": 2}, whole, "the others of each group are merged")
	before := w.state()
	require.NoError(t, c.Once(ctx))
	require.Equal(t, before, w.state(), "what is set aside is not tried again")
}

// TestTooLittleDisk leaves a job out that could not be written, says by how
// much, does all others, and does it once there is room. RELIABILITY C5
func TestTooLittleDisk(t *testing.T) {
	ctx, w := context.Background(), days(t)
	large := "large"
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 200, "cluster", large)
	}
	dir := t.TempDir()
	c, _ := w.watched(func(cfg *compact.Config, _ *compact.Parts) { cfg.DataDir, cfg.DiskLimit = dir, 40<<10 })
	err := c.Once(ctx)
	require.ErrorIs(t, err, compact.ErrLeftUndone)
	require.ErrorContains(t, err, "its results may take")
	require.ErrorContains(t, err, "--compact.disk is 40.0 KiB")
	requireTidy(t, dir)
	require.Len(t, w.liveRaw(), 4, "the small group is merged, the large one waits")
	require.NotEmpty(t, c.Status().Failed)

	require.NoError(t, w.compactor(nil).Once(ctx))
	require.Len(t, w.liveRaw(), 2)
}

// TestTooLittleMemory is the same for memory.
func TestTooLittleMemory(t *testing.T) {
	w := newWorld(t)
	for h := int64(0); h < 60; h += 2 {
		w.ship(h, h+2, 1)
	}
	c, _ := w.watched(func(cfg *compact.Config, _ *compact.Parts) { cfg.JobMemory = 32 << 20 })
	require.NoError(t, c.Once(context.Background()), "small blocks take little, whatever their number")
	w.requireSamples()
}

// TestWrongResult garbles, shortens or drops the index of each result on its way
// into the bucket. The inputs stay, nothing wrong is ever visible, and once the
// bucket is well again the job is done. RELIABILITY C6
func TestWrongResult(t *testing.T) {
	for name, put := range map[string]func([]byte) []byte{
		"garbled": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
		"short":   func(b []byte) []byte { return b[:len(b)-1] },
		"dropped": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := context.Background(), days(t)
			inputs, before := w.live(), w.state()
			w.bkt.put = func(name string, body []byte) []byte {
				if strings.HasSuffix(name, "/"+block.IndexFilename) {
					return put(body)
				}
				return body
			}
			c, reg := w.watched(nil)
			require.ErrorIs(t, c.Once(ctx), compact.ErrLeftUndone)
			require.Equal(t, len(inputs), len(w.live()), "the inputs stay, no result is visible")
			w.requireSamples()
			if name == "garbled" {
				require.Equal(t, before, w.state(), "what was sent is removed: it has the right size, and would never be sent again")
				require.NotZero(t, value(t, reg, "results_discarded_total"))
				require.NotZero(t, value(t, reg, "results_unverified_total"))
			}
			w.bkt.put = nil
			w.clock.add(3 * time.Hour)
			require.NoError(t, c.Once(ctx))
			require.Len(t, w.liveRaw(), 1)
			w.requireSamples()
		})
	}
}

// TestRetentionWaitsForDownsampling keeps raw data for 40 hours over many days
// in which downsampling fails for a while. There is no moment at which a time
// has neither raw nor coarser data. RELIABILITY C7
func TestRetentionWaitsForDownsampling(t *testing.T) {
	w := newWorld(t)
	w.clock.t = epoch.Add(time.Hour)
	c, reg := w.watched(func(cfg *compact.Config, _ *compact.Parts) { cfg.Retention.Raw = duration(40 * time.Hour) })
	held := 0.0
	for day := int64(0); day < 24; day++ {
		w.ship(24*day, 24*day+24, 1)
		w.clock.add(24 * time.Hour)
		w.bkt.put = nil
		if day > 6 && day < 14 {
			w.bkt.put = func(name string, body []byte) []byte { // no block of ours gets through
				if id, _, ok := block.SplitName(name); ok && !strings.HasSuffix(name, "mark.json") && id.Entropy()[0] != 0 {
					return nil
				}
				return body
			}
		}
		_ = c.Once(context.Background())
		w.requireCovered(24*day + 24)
		held = max(held, value(t, reg, "retention_held_blocks"))
	}
	require.NotZero(t, held, "raw data was held")
	require.Zero(t, value(t, reg, "retention_held_blocks"), "and has gone since")
	for _, m := range w.liveRaw() {
		require.Greater(t, m.MaxTime, w.clock.now().Add(-7*24*time.Hour).UnixMilli())
	}
}

// requireCovered finds a live block for each hour until that one.
func (w *world) requireCovered(hours int64) {
	w.Helper()
	live := w.live()
	for h := range hours {
		at, found := epoch.UnixMilli()+h*hour, false
		for _, m := range live {
			found = found || m.Overlaps(at, at)
		}
		require.True(w, found, "nothing is left of hour %d", h)
	}
}

// TestImpossibleRetention is refused with the arithmetic. RELIABILITY C7
func TestImpossibleRetention(t *testing.T) {
	cfg := defaults()
	cfg.Retention.Raw = duration(10 * time.Hour)
	require.ErrorContains(t, cfg.Validate(), "--retention.resolution-raw")
	cfg.DisableDownsampling = true
	require.NoError(t, cfg.Validate())
}

// TestClocksDiffer has a clock of ours that is wrong by an hour or a month, ahead
// or behind. No block is touched. RELIABILITY C8
func TestClocksDiffer(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour, 30 * 24 * time.Hour, -30 * 24 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			w := busy(t)
			before := w.state()
			c, reg := w.watched(func(cfg *compact.Config, parts *compact.Parts) {
				keepAll(cfg)
				parts.Now = func() time.Time { return w.clock.now().Add(off) }
			})
			require.ErrorContains(t, c.Once(context.Background()), "clocks differ")
			require.Equal(t, before, w.state())
			require.EqualValues(t, -off.Seconds(), value(t, reg, "clock_skew_seconds"))
			require.NotZero(t, value(t, reg, "view_fault"))
		})
	}
}

// TestShrunkenListing hides blocks from the listing. Nothing is marked or removed
// meanwhile. RELIABILITY B3
func TestShrunkenListing(t *testing.T) {
	ctx, w := context.Background(), busy(t)
	c, _ := w.watched(func(cfg *compact.Config, _ *compact.Parts) { keepAll(cfg); cfg.Blocks.GoneDelay = duration(time.Hour) })
	require.NoError(t, c.Once(ctx))
	w.clock.add(49 * time.Hour)
	before := w.state()
	w.bkt.hide = func(name string) bool { return !strings.HasPrefix(name, "firnline/") }
	require.ErrorIs(t, c.Once(ctx), block.ErrListing)
	require.Equal(t, before, w.state())
	w.bkt.hide = nil
	require.NoError(t, c.Once(ctx))
	require.NotEqual(t, before, w.state())
}

// TestPartialBlocks removes a block without meta.json when its newest object is
// older than 48 hours, whatever its ULID says. RELIABILITY B4
func TestPartialBlocks(t *testing.T) {
	ctx, w := context.Background(), newWorld(t)
	left, slow := w.ship(0, 2, 1, "cluster", "left"), w.ship(0, 2, 1, "cluster", "slow")
	for _, m := range []block.Meta{left, slow} {
		require.NoError(t, w.bkt.Memory.Delete(ctx, block.Name(m.ULID, block.MetaFilename)))
	}
	c := w.compactor(nil)
	w.clock.add(47 * time.Hour)
	require.NoError(t, w.bkt.Upload(ctx, block.Name(slow.ULID, "chunks/000002"), strings.NewReader("goes on")))
	require.NoError(t, c.Once(ctx))
	require.True(t, w.has(left.ULID, block.IndexFilename), "not yet")
	w.clock.add(2 * time.Hour)
	require.NoError(t, c.Once(ctx))
	require.False(t, w.has(left.ULID, block.IndexFilename))
	require.True(t, w.has(slow.ULID, block.IndexFilename), "somebody is still at it")
}

// TestNoConditionalWrites goes on alone, and says so. RELIABILITY B5
func TestNoConditionalWrites(t *testing.T) {
	w := days(t)
	w.bkt.noCond = true
	c, reg := w.watched(nil)
	require.NoError(t, c.Once(context.Background()))
	require.Len(t, w.liveRaw(), 1)
	w.requireSamples()
	require.EqualValues(t, 1, value(t, reg, "single_instance"))
	require.True(t, c.Status().SingleInstance)
}

// TestPolicyFile gives a policy that is wrong while running: what it said before
// stays, with file and line in the error, until it is right. RELIABILITY K1
func TestPolicyFile(t *testing.T) {
	w := newWorld(t)
	w.ship(-200*24, -200*24+2, 1)
	path := filepath.Join(t.TempDir(), "retention.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write("rules: []\n")
	c, reg := w.watched(func(cfg *compact.Config, _ *compact.Parts) { cfg.Retention.PolicyFile = path })
	require.NoError(t, c.Once(context.Background()))
	kept := len(w.live())
	require.NotZero(t, kept)
	for _, bad := range []string{"rules: [\n", "rules:\n- nonsense: 1\n"} {
		write(bad)
		require.ErrorContains(t, c.Reload(), path)
		require.Zero(t, value(t, reg, "policy_config_last_reload_successful"))
		require.NoError(t, c.Once(context.Background()))
		require.Len(t, w.live(), kept, "kept for ever, as before")
	}
	write("rules:\n- selectors: ['{cluster=\"a\"}']\n  raw: 60d\n  5m: 60d\n  1h: 60d\n")
	require.NoError(t, c.Reload())
	require.EqualValues(t, 1, value(t, reg, "policy_config_last_reload_successful"))
	require.NoError(t, c.Once(context.Background()))
	require.Empty(t, w.live())
}

// TestPanicEndsOneJob has a job panic: the process and all other groups go on.
func TestPanicEndsOneJob(t *testing.T) {
	w := days(t)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 2, "cluster", "b")
	}
	n := 0
	c, reg := w.watched(func(_ *compact.Config, parts *compact.Parts) {
		parts.Fault = func(_ context.Context, point, _ string) error {
			if n++; point == "compact/after-merge" && n < 10 {
				n += 10
				panic("nobody thought of this")
			}
			return nil
		}
	})
	require.ErrorContains(t, c.Once(context.Background()), "nobody thought of this")
	require.EqualValues(t, 1, value(t, reg, "panics_total"))
	require.Len(t, w.liveRaw(), 4)
	w.clock.add(time.Hour)
	require.NoError(t, c.Once(context.Background()))
	require.Len(t, w.liveRaw(), 2)
}

// TestReadOnlyBucket changes nothing and says why.
func TestReadOnlyBucket(t *testing.T) {
	w := days(t)
	readOnly := errors.New("403: read only")
	w.bkt.fail = func(op, _ string) error {
		if op == "get" || op == "list" {
			return nil
		}
		return readOnly
	}
	c := w.compactor(nil)
	require.ErrorIs(t, c.Once(context.Background()), readOnly)
	require.ErrorIs(t, c.Ready(), readOnly)
	require.Len(t, w.live(), 3)
}

// TestRun runs the loops until the work is done, asks for status and plan, and
// leaves no goroutine behind.
func TestRun(t *testing.T) {
	w := days(t)
	c := w.compactor(func(cfg *compact.Config, _ *compact.Parts) { cfg.Concurrency = 2 })
	require.ErrorContains(t, c.Ready(), "looking for blocks")
	require.Equal(t, http.StatusServiceUnavailable, get(c, "/api/v1/compact/plan").Code)

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	require.Eventually(t, func() bool { return len(w.liveRaw()) == 1 && len(w.live()) == 2 }, 5*time.Minute, 20*time.Millisecond)
	require.NoError(t, c.Ready())
	status := get(c, "/api/v1/compact/status")
	require.Equal(t, http.StatusOK, status.Code)
	require.Contains(t, status.Body.String(), `"blocks":`)
	require.NotContains(t, status.Body.String(), "null")
	require.Equal(t, http.StatusOK, get(c, "/api/v1/compact/plan").Code)
	cancel()
	require.NoError(t, <-ended)
}

func get(c *compact.Compactor, path string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	c.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec
}

// TestPlanWritesNothing prints the plan of a bucket that can't be written to.
func TestPlanWritesNothing(t *testing.T) {
	w := busy(t)
	before := w.bkt.Objects()
	made, err := compact.Plan(context.Background(), w.config(), compact.Parts{Bucket: w.bkt, Log: logger(), Metrics: prometheus.NewRegistry(), Now: w.clock.now})
	require.NoError(t, err)
	require.Contains(t, made.String(), "compact")
	require.NotEmpty(t, made.Jobs)
	data, err := json.Marshal(made)
	require.NoError(t, err)
	require.Contains(t, string(data), made.Jobs[0].Inputs[0])
	require.NotContains(t, string(data), "null")
	require.Equal(t, before, w.bkt.Objects())
}

// TestOneProcessPerFolder refuses a data folder that is in use.
func TestOneProcessPerFolder(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.compactor(func(cfg *compact.Config, _ *compact.Parts) { cfg.DataDir = dir })
	cfg := w.config()
	cfg.DataDir = dir
	_, err := compact.New(cfg, compact.Parts{Bucket: w.bkt, Log: logger(), Metrics: prometheus.NewRegistry()})
	require.ErrorContains(t, err, "in use by another process")
}

// TestUncoveredBlockIsKept takes the replacement of marked blocks away, as only a
// mistake can. The blocks are not removed, but compacted anew.
func TestUncoveredBlockIsKept(t *testing.T) {
	ctx, w := context.Background(), days(t)
	c, reg := w.watched(nil)
	require.NoError(t, c.Once(ctx))
	require.Len(t, w.live(), 2)
	for _, m := range w.live() {
		require.NoError(t, block.Delete(ctx, w.bkt, m.ULID))
		require.NoError(t, block.Announce(ctx, w.bkt, block.Change{Block: m.ULID, Removed: true}))
	}
	w.clock.add(49 * time.Hour)
	for range 3 {
		_ = c.Once(ctx)
		w.clock.add(time.Hour)
	}
	require.EqualValues(t, 3, value(t, reg, "blocks_unmarked_total"))
	require.Len(t, w.liveRaw(), 1)
	w.requireSamples()
}

// TestHalfRemovedIsNotKept takes the replacement away of blocks that somebody else
// is about to remove, and dies over one of them. What is left of it goes, though its
// mark would be taken off: who goes by the manifest would ask for it else.
// RELIABILITY C2
func TestHalfRemovedIsNotKept(t *testing.T) {
	ctx, w := context.Background(), days(t)
	var half ulid.ULID
	c, reg := w.watched(func(_ *compact.Config, parts *compact.Parts) {
		parts.Fault = func(_ context.Context, point, object string) error {
			if point == "compact/before-remove" && half.IsZero() {
				half = ulid.MustParse(object)
				require.NoError(t, w.bkt.Delete(ctx, block.Name(half, block.MetaFilename)))
				require.NoError(t, w.bkt.Delete(ctx, block.Name(half, block.IndexFilename)))
			}
			return nil
		}
	})
	require.NoError(t, c.Once(ctx))
	for _, m := range w.live() {
		require.NoError(t, block.Delete(ctx, w.bkt, m.ULID))
		require.NoError(t, block.Announce(ctx, w.bkt, block.Change{Block: m.ULID, Removed: true}))
	}
	w.clock.add(49 * time.Hour)
	for range 3 {
		_ = c.Once(ctx) // it asks twice before it believes that blocks are gone
	}
	require.NotZero(t, half)
	require.EqualValues(t, 2, value(t, reg, "blocks_unmarked_total"))
	for name := range w.bkt.Objects() {
		require.NotContains(t, name, half.String())
	}
}

// TestForeignCompactor sees results of somebody else's compactor after our own
// first one: that group is left alone and named, all others go on. RELIABILITY C11
func TestForeignCompactor(t *testing.T) {
	ctx, w := context.Background(), days(t)
	c, reg := w.watched(nil)
	require.NoError(t, c.Once(ctx))
	w.clock.add(40 * time.Hour)
	foreign := w.ship(48, 96, 1)
	for _, m := range w.live() {
		if m.ULID == foreign.ULID { // as if it were Thanos' result
			m.Thanos.Source, m.Compaction.Level = block.SourceCompactor, 3
			data, err := m.Encode()
			require.NoError(t, err)
			require.NoError(t, w.bkt.Upload(ctx, block.Name(m.ULID, block.MetaFilename), bytes.NewReader(data)))
		}
	}
	for h := int64(96); h < 144; h += 16 {
		w.ship(h, h+16, 1)
		w.ship(h, h+16, 1, "cluster", "b")
	}
	require.NoError(t, c.Once(ctx))
	require.NotZero(t, value(t, reg, "resting_groups"))
	require.NotEmpty(t, c.Status().Resting)
	whole := map[string]int{}
	for _, m := range w.liveRaw() {
		whole[m.Thanos.Labels["cluster"]]++
	}
	require.Equal(t, map[string]int{"a": 5, "b": 1}, whole)

	w.clock.add(25 * time.Hour)
	require.NoError(t, c.Once(ctx))
	require.Zero(t, value(t, reg, "resting_groups"), "it is gone for a day")
	require.Less(t, len(w.liveRaw()), 6)
}
