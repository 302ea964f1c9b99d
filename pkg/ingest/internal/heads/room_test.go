package heads

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// TestNoRoomToOpen: a log that takes more memory than there is is not read to its
// end and stays as it is; other tenants are opened. It is read when there is room.
//
// RELIABILITY I9
func TestNoRoomToOpen(t *testing.T) {
	var full atomic.Bool // as soon as series are read
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Memory.Used = func() (live, held float64) {
			if full.Load() {
				return 0.9, 1.1
			}
			return 0.9, 1
		}
	})
	var many []storetest.Series
	for i := range 2 * lookEvery {
		many = append(many, one(fmt.Sprintf("s%04d", i), 0, float64(i)))
	}
	r.put(write("big", 1, many...))
	r.put(write("t", 1, one("a", 0, 1)))
	want := r.dump()
	require.Len(t, want, len(many)+1)
	logs := func() map[string]string {
		found, err := filepath.Glob(filepath.Join(r.cfg.Dir, "big", walDir, "*"))
		require.NoError(t, err)
		out := map[string]string{}
		for _, f := range found {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			out[f] = string(b)
		}
		return out
	}

	r.stop()
	before := logs()
	full.Store(true)
	r.run()
	_, err := r.Append(t.Context(), write("big", 1, many[0]))
	require.ErrorContains(t, err, "memory")
	r.put(write("t", 1, one("a", 1000, 2)))
	require.Equal(t, before, logs(), "its log is as it was")
	require.NoDirExists(t, filepath.Join(r.cfg.Dir, "big", damagedDir, heldDir))

	full.Store(false)
	_, err = r.Append(t.Context(), write("big", 1, many[0]))
	require.ErrorContains(t, err, "memory", "not at once: each try takes what there is")
	r.advance(retryNoRoom)
	r.put(write("big", 1, one("s0000", 1000, 1)))
	r.put(write("t", 1, one("a", 2000, 3)))
	require.Len(t, r.dump(), len(want))
}

// TestNoRoomKnown: what a TSDB is going to take is known before, from whatever it would be opened, and if it does not
// fit nothing of it is loaded. Nothing is lost: in enough memory it is opened from the same.
//
// RELIABILITY I9, P7
func TestNoRoomKnown(t *testing.T) {
	for _, c := range []struct {
		from   string
		change func(t *testing.T, r *rig) // before the end
		after  func(t *testing.T, r *rig)
	}{
		{from: startedFromEnd},
		{from: startedFromLog, after: func(t *testing.T, r *rig) {
			damage(t, filepath.Join(r.cfg.Dir, "big", endNoteFilename), nil)
		}},
		{from: startedByTSDB, change: func(t *testing.T, r *rig) {
			h, err := r.acquire(t.Context(), "big")
			require.NoError(t, err)
			defer h.release()
			require.NoError(t, h.db.Delete(t.Context(), start, start+1, named("s0000")))
		}, after: func(t *testing.T, r *rig) {
			damage(t, filepath.Join(r.cfg.Dir, "big", endNoteFilename), nil)
		}},
	} {
		t.Run(c.from, func(t *testing.T) {
			var logged lines
			r := newRig(t, func(_ *Config, p *Parts) {
				p.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				p.Memory = Memory{Used: func() (live, held float64) { return 0.5, 0.6 }, Limit: 100 << 20}
			})
			const n = lookEvery / 2 // nobody looks at memory
			var many []storetest.Series
			for i := range n {
				many = append(many, one(fmt.Sprintf("s%04d", i), 0, float64(i)))
			}
			r.put(write("big", 1, many...))
			r.put(write("t", 1, one("a", 0, 1)))
			if c.change != nil {
				c.change(t, r)
			}
			want := r.dump()
			r.stop()
			if c.after != nil {
				c.after(t, r)
			}
			files := func() map[string]int64 {
				out := map[string]int64{}
				for _, name := range []string{walDir, chunksDir, endNoteFilename} {
					out[name] = treeBytes(filepath.Join(r.cfg.Dir, "big", name))
				}
				return out
			}
			before := files()
			logged.forget()
			r.p.Memory.Limit = 500 << 10 // 47 % of it are not enough for 500 series
			r.run()
			_, err := r.Append(t.Context(), write("big", 1, many[0]))
			require.ErrorContains(t, err, "out of memory: its log has")
			for line := range strings.Lines(logged.text()) {
				require.False(t, strings.Contains(line, "tenant=big") && strings.Contains(line, "Replaying"), "its TSDB was begun: %s", line)
			}
			require.Contains(t, logged.text(), `msg="Replaying WAL, this may take a while" tenant=t`, "as that of another one was")
			require.Equal(t, before, files())
			r.put(write("t", 1, one("a", 1000, 2)))
			r.stop()

			r.p.Memory.Limit = 100 << 20
			r.run()
			require.Len(t, r.dump(), len(want))
			require.GreaterOrEqual(t, from(r)[c.from], 1.0)
		})
	}
}

// TestRoomCollects: garbage is collected before memory is said to be short, and whoever goes on creating
// series waits for that.
//
// RELIABILITY I9
func TestRoomCollects(t *testing.T) {
	live, held, collected := 0.5, 1.2, 0
	m := Memory{Used: func() (float64, float64) { return live, held }, Collect: func() { collected++; held = live }}
	r := newRoom(m, &collector{})
	var wg sync.WaitGroup
	for range 4 { // the race detector sees it if they don't wait
		wg.Go(func() {
			for range lookEvery {
				assert.NoError(t, r.create())
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, collected)
	held = 1.2
	require.NoError(t, r.plan(replay.Memory{}))
	require.Equal(t, 2, collected)

	live = 0.98
	var err error
	for range lookEvery {
		err = r.create()
	}
	require.ErrorIs(t, err, errNoRoom)
	require.Equal(t, 3, collected)
	for range 2 * lookEvery {
		require.Equal(t, err, r.create(), "none is taken any more")
	}
	require.Equal(t, err, r.plan(replay.Memory{}))
	require.Equal(t, 3, collected)
	r.dropped() // and the TSDB tries its log
	for range 2 {
		require.Equal(t, err, r.create())
	}
	require.Equal(t, 4, collected)
}

// TestRoomForChunks: chunks that come when all series are there have their room kept.
func TestRoomForChunks(t *testing.T) {
	m := Memory{Used: func() (float64, float64) { return 0.8, 0.8 }, Limit: 1 << 20, Collect: func() {}}
	fill := func(chunks int) (err error) {
		r := newRoom(m, &collector{})
		r.await(replay.Memory{Chunks: chunks})
		for range lookEvery {
			err = r.create()
		}
		return err
	}
	require.NoError(t, fill(1000))
	require.ErrorIs(t, fill(10_000), errNoRoom)
}

// TestRoomCollectsOften: garbage gathers only while there is memory to spare.
func TestRoomCollectsOften(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(40))
	var gc collector
	gc.seldom()
	defer gc.asBefore()
	percent := func() int {
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now
	}
	held := mostSeldom
	r := newRoom(Memory{Used: func() (float64, float64) { return 0.1, held }}, &gc)
	require.NoError(t, r.plan(replay.Memory{}))
	require.Equal(t, seldomPercent, percent())
	held += 0.01
	require.NoError(t, r.plan(replay.Memory{}))
	require.Equal(t, 40, percent())
}

// TestRoomAlone: a tenant that there is no room for beside another one that is being opened is opened when that is done.
//
// RELIABILITY I9
func TestRoomAlone(t *testing.T) {
	var beside atomic.Bool
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Memory = Memory{Limit: 1 << 30, Used: func() (live, held float64) {
			if beside.Load() {
				return 0.99, 0.99
			}
			return 0.5, 0.5
		}}
	})
	r.put(write("t", 1, one("a", 0, 1)))
	r.stop()
	beside.Store(true)
	r.p.Memory.Collect = func() {} // only the end of the other one frees memory
	hs := New(r.cfg, func() Parts { p := r.p; p.Metrics = prometheus.NewPedanticRegistry(); return p }())
	hs.beside.RLock() // another one is being opened
	opened := make(chan error, 1)
	go func() {
		h := hs.newHead("t")
		err := h.open(tsdb.NewDBStats())
		if err == nil {
			err = h.close(context.Background())
		}
		opened <- err
	}()
	for hs.beside.TryRLock() { // until it waits to be alone
		hs.beside.RUnlock()
		time.Sleep(time.Millisecond)
	}
	beside.Store(false)
	hs.beside.RUnlock()
	require.NoError(t, <-opened)
	r.run()
	require.Len(t, r.dump(), 1)
}

// lines are what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// TestCrowded: while memory is short new series are refused, and those that are there go on, also
// after a restart; what is refused comes again when there is room.
//
// RELIABILITY I7
func TestCrowded(t *testing.T) {
	var crowded atomic.Bool
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Crowded = func() fmt.Stringer {
			if crowded.Load() {
				return bytes.NewBufferString("memory is short")
			}
			return nil
		}
	})
	r.put(write("t", 1, one("a", 0, 1), one("b", 0, 1)))
	crowded.Store(true)
	for i := range 2 {
		at := float64(1000 * (i + 1))
		res, err := r.Append(t.Context(), write("t", 1, one("a", at, 2), one("b", at, 2), one("c", at, 2)))
		require.NoError(t, err)
		require.Len(t, res.Refused, 1)
		require.EqualValues(t, 2, res.Refused[0].Series)
		require.Equal(t, refuse.SeriesLimit, res.Refused[0].Err.Reason)
		require.Equal(t, `tenant t: series {__name__="c"} is one too many: memory is short; series that are there go on; the label with the most values is __name__, with 2`, res.Refused[0].Err.Detail)
		require.Len(t, r.read(t.Context(), named("a"))[seriesName("a")], i+2)
		r.restart()
	}
	crowded.Store(false)
	r.put(write("t", 1, one("a", 3000, 3), one("b", 3000, 3), one("c", 3000, 3)))
}
