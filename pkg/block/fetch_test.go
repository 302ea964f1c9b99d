package block_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// watch is a bucket with a Fetcher over it.
type watch struct {
	*block.Fetcher
	t     testing.TB
	bkt   *faulty
	clock *clock
	dir   string
	gets  []string
	logs  *bytes.Buffer // nil: they are not kept
}

func newWatch(t testing.TB, change func(*block.FetcherConfig)) *watch {
	w := &watch{t: t, bkt: newFaulty(), clock: newClock(), dir: t.TempDir()}
	w.bkt.SetClock(w.clock.now)
	w.bkt.fail = func(op, name string) error {
		if op == "get" {
			w.gets = append(w.gets, name)
		}
		return nil
	}
	w.restart(change)
	return w
}

func (w *watch) restart(change func(*block.FetcherConfig)) {
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Concurrency = 1 // so that gets need no lock
	if change != nil {
		change(&cfg)
	}
	require.NoError(w.t, cfg.Validate())
	log := slog.DiscardHandler
	if w.logs != nil {
		log = slog.NewTextHandler(w.logs, nil)
	}
	f, err := block.NewFetcher(cfg, w.bkt, w.dir, slog.New(log), prometheus.NewRegistry())
	require.NoError(w.t, err)
	f.SetClock(w.clock.now)
	w.Fetcher = f
}

// logged begins anew with a Fetcher whose log is kept.
func (w *watch) logged() *bytes.Buffer {
	w.logs = &bytes.Buffer{}
	w.restart(nil)
	return w.logs
}

// put writes meta.json of block n, and an index.
func (w *watch) put(n int) ulid.ULID {
	id := testID(n)
	m := block.Meta{ULID: id, Version: 1, MinTime: int64(n), MaxTime: int64(n) + 1}
	m.Thanos.Labels = map[string]string{"cluster": "a"}
	data, err := m.Encode()
	require.NoError(w.t, err)
	w.object(block.Name(id, block.IndexFilename), "x")
	w.object(block.Name(id, block.MetaFilename), string(data))
	return id
}

func (w *watch) object(name, body string) {
	require.NoError(w.t, w.bkt.Memory.Upload(context.Background(), name, strings.NewReader(body)))
}

func (w *watch) remove(name string) {
	require.NoError(w.t, w.bkt.Memory.Delete(context.Background(), name))
}

func (w *watch) fetch() block.View {
	w.t.Helper()
	v, err := w.Fetch(context.Background())
	require.NoError(w.t, err)
	return v
}

func TestFetch(t *testing.T) {
	for _, strategy := range []string{block.StrategyRecursive, block.StrategyConcurrent} {
		t.Run(strategy, func(t *testing.T) {
			with := func(c *block.FetcherConfig) { c.Strategy = strategy }
			w := newWatch(t, with)
			a, b, c := w.put(1), w.put(2), w.put(3)
			partial, torn, newer := testID(4), testID(5), testID(6)
			w.object(block.Name(partial, "chunks/000001"), "x")
			w.object(block.Name(torn, block.MetaFilename), `{"version":`)
			w.object(block.Name(newer, block.MetaFilename), `{"version":2,"ulid":"`+newer.String()+`"}`)
			w.object("debug/metas/"+a.String()+".json", "{}")
			w.object("firnline/leases/x.json", "{}")
			require.NoError(t, block.WriteNoCompactMark(context.Background(), w.bkt, block.NoCompactMark{ID: b, Reason: block.ReasonManual}))
			require.NoError(t, block.WriteDeletionMark(context.Background(), w.bkt, block.DeletionMark{ID: c, DeletionTime: w.clock.now().Unix()}))

			v := w.fetch()
			require.Len(t, v.Metas, 3)
			require.Equal(t, []ulid.ULID{a, b, c}, []ulid.ULID{v.Sorted()[0].ULID, v.Sorted()[1].ULID, v.Sorted()[2].ULID})
			require.NotNil(t, v.Marks[b].NoCompact)
			require.NotNil(t, v.Marks[c].Deletion)
			require.Equal(t, map[ulid.ULID]time.Time{partial: w.clock.now()}, v.Partial)
			require.ErrorIs(t, v.Problems[torn], block.ErrCorrupt)
			require.ErrorIs(t, v.Problems[newer], block.ErrUnknownVersion)
			require.Len(t, w.gets, 7, "five metas, two marks")

			// The second pass reads only what may have been torn on its way, a
			// restarted one what isn't on disk too.
			w.gets = nil
			require.Equal(t, v, w.fetch())
			require.Equal(t, []string{block.Name(torn, block.MetaFilename)}, w.gets)
			w.gets = nil
			w.restart(with)
			require.Equal(t, v, w.fetch())
			require.Len(t, w.gets, 4, "two metas that are not kept, two marks")

			// A day after its mark the block is left out; marks come and go.
			w.clock.add(25 * time.Hour)
			require.NoError(t, block.Unmark(context.Background(), w.bkt, b, block.NoCompactMarkFilename))
			v = w.fetch()
			require.Len(t, v.Metas, 2)
			require.Equal(t, 1, v.Dropped[block.DroppedMarked])
			require.Nil(t, v.Marks[b].NoCompact)

			// What was torn or rewritten in place is read again.
			w.clock.add(time.Minute)
			w.put(5)
			w.gets = nil
			v = w.fetch()
			require.Len(t, v.Metas, 3)
			require.Empty(t, v.Problems[torn])
			require.Equal(t, []string{block.Name(torn, block.MetaFilename)}, w.gets)

			// Removed as announced: gone at once, from the disk too.
			require.NoError(t, block.Delete(context.Background(), w.bkt, c))
			v = w.fetch()
			require.NotContains(t, v.Marks, c)
			require.NoDirExists(t, filepath.Join(w.dir, "meta-syncer", c.String()))
		})
	}
}

// TestFetchBadBucket: what fails is in the error, and the view is the best that is known.
func TestFetchBadBucket(t *testing.T) {
	w := newWatch(t, nil)
	a, b := w.put(1), w.put(2)
	w.bkt.fail = func(op, name string) error {
		if op == "get" && strings.HasPrefix(name, b.String()) {
			return errFault
		}
		return nil
	}
	v, err := w.Fetch(context.Background())
	require.ErrorIs(t, err, errFault)
	require.ErrorContains(t, err, b.String())
	require.Contains(t, v.Metas, a)
	require.Len(t, v.Metas, 1)

	w.bkt.fail = func(op, _ string) error {
		if op == "list" {
			return errFault
		}
		return nil
	}
	v, err = w.Fetch(context.Background())
	require.ErrorIs(t, err, errFault)
	require.Len(t, v.Metas, 1)
	w.bkt.fail = nil
	require.Len(t, w.fetch().Metas, 2)
}

// TestFetchHiddenKeys: the listing lacks keys that are there.
//
// RELIABILITY B3
func TestFetchHiddenKeys(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			w := newWatch(t, nil)
			for n := range 10 {
				w.put(n)
			}
			require.Len(t, w.fetch().Metas, 10)
			if restart {
				w.restart(nil)
			}
			w.bkt.hide = func(string) bool { return true }
			for range 5 {
				v, err := w.Fetch(context.Background())
				require.ErrorIs(t, err, block.ErrListing)
				require.Len(t, v.Metas, 10, "nothing is dropped, however often")
				w.clock.add(15 * time.Minute)
			}
			w.bkt.hide = nil
			require.Len(t, w.fetch().Metas, 10)
		})
	}
}

// RELIABILITY B3: gone only when seen gone twice, a delay apart.
func TestFetchGoneTwice(t *testing.T) {
	w := newWatch(t, nil)
	for n := range 10 {
		w.put(n)
	}
	require.Len(t, w.fetch().Metas, 10)
	id := testID(3)
	w.remove(block.Name(id, block.MetaFilename))
	w.remove(block.Name(id, block.IndexFilename))
	require.Contains(t, w.fetch().Metas, id, "one of ten is no fault, and is kept all the same")
	w.clock.add(4 * time.Minute)
	require.Contains(t, w.fetch().Metas, id)
	w.clock.add(2 * time.Minute)
	require.NotContains(t, w.fetch().Metas, id)

	// All of them removed behind our back: believed once proven.
	for n := range 10 {
		if n != 3 {
			w.remove(block.Name(testID(n), block.MetaFilename))
			w.remove(block.Name(testID(n), block.IndexFilename))
		}
	}
	v, err := w.Fetch(context.Background())
	require.ErrorIs(t, err, block.ErrListing)
	require.Len(t, v.Metas, 9)
	w.clock.add(6 * time.Minute)
	require.Empty(t, w.fetch().Metas)
}

// RELIABILITY B3: 404 after LIST.
func TestFetchVanished(t *testing.T) {
	w := newWatch(t, nil)
	a, b := w.put(1), w.put(2)
	w.bkt.fail = func(op, name string) error {
		if op == "get" && name == block.Name(a, block.MetaFilename) {
			w.remove(name)
		}
		return nil
	}
	v := w.fetch()
	require.NotContains(t, v.Metas, a)
	require.Contains(t, v.Metas, b)
	require.Contains(t, w.fetch().Partial, a)
}

// RELIABILITY B1: a meta.json that comes broken once is read again, although it
// is not written anew.
func TestFetchMetaBrokenOnItsWay(t *testing.T) {
	w := newWatch(t, nil)
	id := w.put(1)
	bkt := &garbling{faulty: w.bkt, left: 2}
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	f, err := block.NewFetcher(cfg, bkt, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	for range 2 {
		v, err := f.Fetch(context.Background())
		require.NoError(t, err)
		require.ErrorIs(t, v.Problems[id], block.ErrCorrupt)
	}
	v, err := f.Fetch(context.Background())
	require.NoError(t, err)
	require.Contains(t, v.Metas, id)
	require.Empty(t, v.Problems)
}

// RELIABILITY B1, P15: a mark that can't be used is read again by each listing,
// and complained of once. One that says to leave the block alone does so whatever
// its version; a deletion mark that isn't understood removes nothing.
func TestFetchUnusableMarks(t *testing.T) {
	names := []string{block.DeletionMarkFilename, block.NoCompactMarkFilename, block.NoDownsampleMarkFilename}
	for about, body := range map[string]string{"newer": `{"id":{"ulid":"x"},"version":7}`, "torn": `{"id":`} {
		t.Run(about, func(t *testing.T) {
			w := newWatch(t, nil)
			logs := w.logged()
			id := w.put(1)
			for _, name := range names {
				w.object(block.Name(id, name), body)
			}
			for range 3 {
				w.gets = nil
				marks := w.fetch().Marks[id]
				require.Nil(t, marks.Deletion)
				require.Equal(t, about == "newer", marks.NoCompact != nil)
				require.Equal(t, about == "newer", marks.NoDownsample != nil)
				for _, name := range names {
					require.Contains(t, w.gets, block.Name(id, name))
				}
			}
			require.Equal(t, 3, strings.Count(logs.String(), "level=WARN"), logs)
			if about == "newer" {
				require.Contains(t, w.fetch().Marks[id].NoCompact.Details, "unknown version 7")
				require.Contains(t, w.fetch().Marks[id].NoDownsample.Details, "unknown version 7")
				mark, err := block.ReadNoCompactMark(t.Context(), w.bkt, id)
				require.NoError(t, err)
				require.Equal(t, w.fetch().Marks[id].NoCompact, mark)
			}

			// Gone, and written as it should be.
			for _, name := range names {
				w.remove(block.Name(id, name))
			}
			require.Empty(t, w.fetch().Marks)
			require.NoError(t, block.WriteNoCompactMark(t.Context(), w.bkt, block.NoCompactMark{ID: id, Reason: block.ReasonIndexSizeExceeding}))
			require.Equal(t, block.ReasonIndexSizeExceeding, w.fetch().Marks[id].NoCompact.Reason)
			w.gets = nil
			w.fetch()
			require.Empty(t, w.gets)
			require.Equal(t, 3, strings.Count(logs.String(), "level=WARN"), logs)
		})
	}
}

// RELIABILITY B1: a mark that comes broken once is read again, although it is not
// written anew.
func TestFetchMarkBrokenOnItsWay(t *testing.T) {
	w := newWatch(t, nil)
	id := w.put(1)
	require.NoError(t, block.WriteNoCompactMark(t.Context(), w.bkt, block.NoCompactMark{ID: id, Reason: block.ReasonManual}))
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Concurrency = 1 // the bucket counts without a lock
	f, err := block.NewFetcher(cfg, &garbling{faulty: w.bkt, left: 2}, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	v, err := f.Fetch(t.Context())
	require.NoError(t, err)
	require.Nil(t, v.Marks[id].NoCompact)
	v, err = f.Fetch(t.Context())
	require.NoError(t, err)
	require.NotNil(t, v.Marks[id].NoCompact)
}

// garbling flips a byte of the first bodies.
type garbling struct {
	*faulty
	left int
}

func (g *garbling) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	body, err := g.faulty.Get(ctx, name)
	if err != nil || g.left == 0 {
		return body, err
	}
	g.left--
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	raw = bytes.Clone(raw)
	raw[0] ^= 1
	return io.NopCloser(bytes.NewReader(raw)), nil
}

// TestFetchTornCache: a copy on disk that was cut at any byte is read anew.
func TestFetchTornCache(t *testing.T) {
	w := newWatch(t, nil)
	id := w.put(1)
	want := w.fetch()
	path := filepath.Join(w.dir, "meta-syncer", id.String(), block.MetaFilename)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for size := range whole {
		require.NoError(t, os.WriteFile(path, whole[:size], 0o644))
		w.restart(nil)
		require.Equal(t, want, w.fetch())
	}
}

// TestFetchCacheOfPublisher: who writes the manifest keeps no copies of what is in
// there, and needs none: it starts again without reading one of the blocks. Where
// it cannot write one it keeps copies as a reader does.
func TestFetchCacheOfPublisher(t *testing.T) {
	publishes := func(cfg *block.FetcherConfig) { cfg.Owner = "me" }
	for name, tc := range map[string]struct {
		unsupported bool
		copies      int
	}{
		"manifest":    {false, 0},
		"no manifest": {true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, publishes)
			gets := w.bkt.fail
			w.bkt.fail = func(op, name string) error {
				if op == "putif" && tc.unsupported {
					return errors.ErrUnsupported
				}
				return gets(op, name)
			}
			for i := range 3 {
				w.put(i + 1)
			}
			want := w.fetch()
			require.NoError(t, w.Publish(context.Background()))
			copies, err := filepath.Glob(filepath.Join(w.dir, "meta-syncer", "*", block.MetaFilename))
			require.NoError(t, err)
			require.Len(t, copies, tc.copies)

			w.gets = nil
			w.restart(publishes)
			require.Equal(t, want.Metas, w.fetch().Metas)
			require.Empty(t, w.gets, "no meta.json is read again")
		})
	}
}

func TestFetcherConfig(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"concurrency": {[]string{"-block-meta-fetch-concurrency=0"}, "--block-meta-fetch-concurrency"},
		"strategy":    {[]string{"-block-discovery-strategy=x"}, "recursive or concurrent"},
		"times":       {[]string{"-min-time=-1w", "-max-time=-2w"}, "--min-time=-1w is after --max-time=-2w"},
		"selector":    {[]string{"-selector.relabel-config=- {action: replace, target_label: x}"}, "--selector.relabel-config"},
		"yaml":        {[]string{"-selector.relabel-config=[}"}, "yaml: "},
		"environment": {[]string{"-selector.relabel-config=- {action: keep, regex: $(FIRNLINE_UNSET)}"}, "FIRNLINE_UNSET is not set"},
		"file":        {[]string{"-selector.relabel-config-file=/nowhere"}, "--selector.relabel-config-file"},
		"both":        {[]string{"-selector.relabel-config=[]", "-selector.relabel-config-file=x"}, "exclude each other"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg block.FetcherConfig
			fs := flag.NewFlagSet("", flag.ContinueOnError)
			cfg.RegisterFlags(fs)
			require.NoError(t, cfg.Validate())
			require.NoError(t, fs.Parse(c.args))
			require.ErrorContains(t, cfg.Validate(), c.says)
		})
	}
	var b block.TimeBound
	require.ErrorContains(t, b.Set("yesterday"), "yesterday")
	for in, want := range map[string]int64{
		"2026-01-02T00:00:00Z": epoch.Add(24 * time.Hour).UnixMilli(),
		"-1h":                  epoch.Add(-time.Hour).UnixMilli(),
		"1h":                   epoch.Add(time.Hour).UnixMilli(),
	} {
		require.NoError(t, b.Set(in))
		require.Equal(t, in, b.String())
		require.Equal(t, want, b.Millis(epoch, 7))
	}
}

// BenchmarkFetch is the start of a component whose blocks are all on its disk.
func BenchmarkFetch(b *testing.B) {
	for _, n := range []int{1000} {
		b.Run(fmt.Sprintf("blocks=%d/known", n), func(b *testing.B) {
			w := newWatch(b, nil)
			for i := range n {
				w.put(i)
			}
			require.Len(b, w.fetch().Metas, n)
			w.gets = nil
			b.ReportAllocs()
			for b.Loop() {
				w.restart(nil)
				require.Len(b, w.fetch().Metas, n)
			}
			require.Empty(b, w.gets)
		})
	}
}
