package block_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
)

// rig is a TSDB's folder, a bucket, a clock and a shipper between them, which
// can be restarted.
type rig struct {
	*block.Shipper
	t      *testing.T
	dir    string
	bkt    *faulty
	clock  *clock
	labels labels.Labels
	cfg    block.ShipperConfig
	fault  func(step string) error
	notes  func(ctx context.Context, m *block.Meta) error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), bkt: newFaulty(), clock: newClock(), labels: labels.FromStrings("cluster", "a")}
	r.bkt.SetClock(r.clock.now)
	r.cfg = block.ShipperConfig{
		MetaFileName: block.DefaultShipperFilename,
		Interval:     model.Duration(30 * time.Second), MaxBackoff: model.Duration(2 * time.Minute),
		LeaseTTL: model.Duration(5 * time.Minute), QuarantineRecheck: model.Duration(time.Hour),
	}
	r.restart()
	return r
}

// twin is a second shipper with the same labels over the same bucket.
func (r *rig) twin() *rig {
	c := *r
	c.dir = r.t.TempDir()
	c.restart()
	return &c
}

// restart begins a new life of the process, as after a kill.
func (r *rig) restart() {
	r.Shipper = block.NewShipper(r.cfg, block.ShipperParts{
		Dir: r.dir, Bucket: r.bkt, Labels: func() labels.Labels { return r.labels }, Source: block.SourceSidecar,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Notes: r.notes,
	})
	r.SetClock(r.clock.now)
	r.SetFault(r.fault)
}

// cut writes a block of one hour beginning n hours after the epoch.
func (r *rig) cut(n int, opts blocktest.Options) ulid.ULID {
	r.t.Helper()
	if opts.ID.IsZero() {
		opts.ID = testID(n)
	}
	start := epoch.Add(time.Duration(n) * time.Hour).UnixMilli()
	series := []blocktest.Series{{
		Labels:  labels.FromStrings("__name__", "up"),
		Samples: blocktest.Floats(start, start+3_600_000, 300_000, func(t int64) float64 { return float64(t) }),
	}}
	return blocktest.Write(r.t, r.dir, series, labels.EmptyLabels(), opts).ULID
}

func (r *rig) sync() int {
	r.t.Helper()
	n, err := r.Sync(context.Background())
	require.NoError(r.t, err)
	return n
}

// shipped reads the list as Prometheus does.
func (r *rig) shipped() []string {
	r.t.Helper()
	data, err := os.ReadFile(r.StateFile())
	require.NoError(r.t, err)
	var list struct {
		Version  int      `json:"version"`
		Uploaded []string `json:"uploaded"`
	}
	require.NoError(r.t, json.Unmarshal(data, &list))
	require.Equal(r.t, 1, list.Version)
	require.NotNil(r.t, list.Uploaded)
	return list.Uploaded
}

func (r *rig) visible(id ulid.ULID) bool {
	_, err := block.FetchMeta(context.Background(), r.bkt, id)
	return err == nil
}

// metaOrder returns the blocks whose meta.json was sent since the last call, in order.
func (r *rig) metaOrder() []string {
	var out []string
	for _, name := range r.bkt.puts() {
		if id, found := strings.CutSuffix(name, "/"+block.MetaFilename); found {
			out = append(out, id)
		}
	}
	return out
}

func (r *rig) remove(id ulid.ULID) {
	r.t.Helper()
	require.NoError(r.t, os.RemoveAll(filepath.Join(r.dir, id.String())))
}

func ids(in ...ulid.ULID) []string {
	out := []string{}
	for _, id := range in {
		out = append(out, id.String())
	}
	return out
}

func TestShipperOldestFirst(t *testing.T) {
	r := newRig(t)
	// The ULIDs are in another order than the data, as after a backfill.
	b := r.cut(2, blocktest.Options{ID: testID(1)})
	a := r.cut(1, blocktest.Options{ID: testID(3)})
	c := r.cut(3, blocktest.Options{ID: testID(2)})
	require.Equal(t, 3, r.sync())
	require.Equal(t, ids(a, b, c), r.metaOrder())
	require.Equal(t, ids(b, c, a), r.shipped(), "sorted by ULID")
	require.Zero(t, r.sync())
	require.Empty(t, r.metaOrder())
	require.Zero(t, r.Status().Pending)

	m, err := block.FetchMeta(context.Background(), r.bkt, a)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"cluster": "a"}, m.Thanos.Labels)
	require.Equal(t, block.SourceSidecar, m.Thanos.Source)
	require.NoDirExists(t, filepath.Join(r.dir, "thanos", "upload", a.String()))
}

// TestShipperKilled stops the shipper at each step of each block and starts it
// again: the list never runs ahead of the bucket, and all ends well.
//
// RELIABILITY S1, S2
func TestShipperKilled(t *testing.T) {
	for k := range 10 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			r := newRig(t)
			all := []ulid.ULID{r.cut(1, blocktest.Options{}), r.cut(2, blocktest.Options{})}
			n := 0
			ctx, kill := context.WithCancel(context.Background())
			defer kill()
			r.fault = func(string) error {
				if n++; n-1 == k {
					kill()
					return errFault
				}
				return nil
			}
			r.restart()
			_, err := r.Sync(ctx)
			require.Error(t, err)
			for _, id := range r.shipped() {
				require.True(t, r.visible(ulid.MustParse(id)))
			}
			r.fault = nil
			r.restart()
			r.sync()
			require.Equal(t, ids(all...), r.shipped())
			for _, id := range all {
				require.True(t, r.visible(id))
			}
		})
	}
}

// RELIABILITY S3: 200 but the object is absent; the block is not listed as shipped.
func TestShipperVerifies(t *testing.T) {
	r := newRig(t)
	a := r.cut(1, blocktest.Options{})
	r.bkt.put = func(name string, body []byte) ([]byte, error) {
		if strings.HasSuffix(name, "/"+block.IndexFilename) {
			return nil, nil
		}
		return body, nil
	}
	_, err := r.Sync(context.Background())
	require.ErrorIs(t, err, block.ErrNotVerified)
	require.Empty(t, r.shipped())
	require.False(t, r.visible(a))
	r.bkt.put = nil
	require.Equal(t, 1, r.sync())
	require.Equal(t, ids(a), r.shipped())
}

// TestShipperPrepares: the list is there before any other work, so that
// Prometheus holds its compactions.
//
// RELIABILITY S4
func TestShipperPrepares(t *testing.T) {
	r := newRig(t)
	r.bkt.fail = func(string, string) error { return errFault }
	r.labels = labels.EmptyLabels()
	require.NoError(t, r.Prepare())
	require.Empty(t, r.shipped())

	require.NoError(t, os.WriteFile(r.StateFile(), []byte(`{"version":1,"uplo`), 0o644))
	r.restart()
	require.NoError(t, r.Prepare())
	require.Empty(t, r.shipped())

	require.NoError(t, os.WriteFile(r.StateFile(), []byte(`{"version":7,"uploaded":[]}`), 0o644))
	r.restart()
	require.ErrorIs(t, r.Prepare(), block.ErrUnknownVersion)
}

// TestShipperCompacted is Prometheus compacting before the upload.
//
// RELIABILITY S4
func TestShipperCompacted(t *testing.T) {
	sources := func(n ...ulid.ULID) blocktest.Options {
		return blocktest.Options{ID: testID(100), Level: 2, Sources: n}
	}
	t.Run("all sources were shipped", func(t *testing.T) {
		r := newRig(t)
		a, b := r.cut(1, blocktest.Options{}), r.cut(2, blocktest.Options{})
		r.sync()
		c := r.cut(1, sources(a, b))
		r.remove(a)
		r.remove(b)
		require.Zero(t, r.sync())
		require.False(t, r.visible(c))
		r.restart()
		require.Zero(t, r.sync())
		require.False(t, r.visible(c))
	})
	t.Run("no source was shipped", func(t *testing.T) {
		r := newRig(t)
		c := r.cut(1, sources(testID(1), testID(2)))
		require.Equal(t, 1, r.sync())
		require.True(t, r.visible(c))
	})
	t.Run("one source was not shipped", func(t *testing.T) {
		r := newRig(t)
		a := r.cut(1, blocktest.Options{})
		r.sync()
		c := r.cut(1, sources(a, testID(2)))
		require.Equal(t, 1, r.sync())
		require.True(t, r.visible(c), "or the samples of the second would be lost")
		// The next level holds nothing new.
		d := r.cut(1, blocktest.Options{ID: testID(101), Level: 3, Sources: []ulid.ULID{a, testID(2)}})
		r.remove(c)
		require.Zero(t, r.sync())
		require.False(t, r.visible(d))
	})
	t.Run("the bucket has compacted the sources and the list was lost", func(t *testing.T) {
		r := newRig(t)
		a := r.cut(1, blocktest.Options{})
		c := r.cut(1, sources(a, testID(2)))
		other := t.TempDir()
		m := blocktest.Write(t, other, smallSeries(), r.labels, blocktest.Options{Level: 3, Sources: []ulid.ULID{a, testID(2), testID(3)}, Source: block.SourceCompactor})
		blocktest.Upload(t, r.bkt, other, m)
		r.bkt.puts()
		require.Zero(t, r.sync())
		require.False(t, r.visible(a))
		require.False(t, r.visible(c))
		require.Equal(t, ids(a, c), r.shipped())
	})
	t.Run("a block of other labels covers nothing", func(t *testing.T) {
		r := newRig(t)
		a := r.cut(1, blocktest.Options{})
		other := t.TempDir()
		m := blocktest.Write(t, other, smallSeries(), labels.FromStrings("cluster", "b"), blocktest.Options{Level: 3, Sources: []ulid.ULID{a}})
		blocktest.Upload(t, r.bkt, other, m)
		require.Equal(t, 1, r.sync())
	})
	t.Run("asked for", func(t *testing.T) {
		r := newRig(t)
		r.cfg.UploadCompacted = true
		r.restart()
		a, b := r.cut(1, blocktest.Options{}), r.cut(2, blocktest.Options{})
		r.sync()
		c := r.cut(1, sources(a, b))
		require.Equal(t, 1, r.sync())
		require.True(t, r.visible(c))
	})
}

// RELIABILITY S5: an out-of-order block, and one that overlaps others, are
// shipped like any other; so is a block of an emptied disk with the same labels.
func TestShipperOutOfOrder(t *testing.T) {
	r := newRig(t)
	a := r.cut(1, blocktest.Options{})
	r.sync()
	late := r.cut(1, blocktest.Options{ID: testID(50), Hints: []string{"from-out-of-order"}})
	require.Equal(t, 1, r.sync())
	m, err := block.FetchMeta(context.Background(), r.bkt, late)
	require.NoError(t, err)
	require.Equal(t, []string{"from-out-of-order"}, m.Compaction.Hints)

	r.dir = t.TempDir()
	r.restart()
	r.clock.add(10 * time.Minute) // the lost folder's lease lapses
	fresh := r.cut(1, blocktest.Options{ID: testID(60)})
	require.Equal(t, 1, r.sync())
	for _, id := range []ulid.ULID{a, late, fresh} {
		require.True(t, r.visible(id))
	}
}

// RELIABILITY S6: two shippers with equal external labels.
func TestShipperHeld(t *testing.T) {
	r := newRig(t)
	r.cut(1, blocktest.Options{})
	require.Equal(t, 1, r.sync())

	second := r.twin()
	b := second.cut(2, blocktest.Options{})
	_, err := second.Sync(context.Background())
	var held *block.HeldError
	require.ErrorAs(t, err, &held)
	require.False(t, second.visible(b))
	require.Equal(t, 1, second.Status().Pending)
	owner := held.Owner
	require.ErrorContains(t, second.Held(), owner)
	require.ErrorContains(t, second.Held(), "external_labels")
	require.NoError(t, r.Held())

	// The first lives on, restarts included, and the second stays held.
	for range 5 {
		r.clock.add(4 * time.Minute)
		r.restart()
		r.sync()
		_, err = second.Sync(context.Background())
		require.ErrorAs(t, err, &held)
	}
	// The first is gone: after its TTL the second takes over, and the first is
	// held when it comes back.
	r.clock.add(6 * time.Minute)
	require.Equal(t, 1, second.sync())
	require.NoError(t, second.Held())
	require.True(t, second.visible(b))
	_, err = r.Sync(context.Background())
	require.ErrorAs(t, err, &held)

	r.cfg.IgnoreOtherOwner = true
	r.restart()
	r.cut(3, blocktest.Options{})
	require.Equal(t, 1, r.sync())
}

// RELIABILITY S6: a graceful stop hands over at once.
func TestShipperReleases(t *testing.T) {
	r := newRig(t)
	r.cut(1, blocktest.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	require.Eventually(t, func() bool { return !r.Status().LastSuccess.IsZero() }, 5*time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	second := r.twin()
	second.cut(2, blocktest.Options{})
	require.Equal(t, 1, second.sync())
}

// RELIABILITY B5: a bucket that ignores conditions: on without a lease, said loudly.
func TestShipperWithoutConditions(t *testing.T) {
	for name, set := range map[string]func(*faulty){
		"ignored":     func(f *faulty) { f.noCond = true },
		"unsupported": func(f *faulty) { f.fail = unsupported },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			set(r.bkt)
			r.cut(1, blocktest.Options{})
			require.Equal(t, 1, r.sync())
			require.True(t, r.Status().Unleased)
		})
	}
}

// TestShipperStubbornBlocks: blocks that the bucket never takes don't hold back
// those behind them.
func TestShipperStubbornBlocks(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.sync())
	var all []ulid.ULID
	for i := range 10 {
		all = append(all, r.cut(i, blocktest.Options{}))
	}
	stubborn := all[:5]
	r.bkt.fail = func(op, name string) error {
		if id, _, ok := block.SplitName(name); ok && op == "put" && slices.Contains(stubborn, id) {
			return errFault
		}
		return nil
	}
	_, err := r.Sync(context.Background())
	require.ErrorIs(t, err, errFault)
	require.ElementsMatch(t, ids(all[5:]...), r.metaOrder())
	require.Equal(t, len(stubborn), r.Status().Pending)
}

func unsupported(op, _ string) error {
	if op == "putif" {
		return fmt.Errorf("conditional write: %w", errors.ErrUnsupported)
	}
	return nil
}

// RELIABILITY S7: the bucket fails for a while; blocks wait on disk and leave
// oldest first.
func TestShipperBucketDown(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.sync())
	puts := 0
	r.bkt.fail = func(op, _ string) error {
		if op != "put" { // The lease is had, so that it is the blocks that fail.
			return nil
		}
		puts++
		return errFault
	}
	var want []ulid.ULID
	for i := range 8 {
		want = append(want, r.cut(i, blocktest.Options{}))
	}
	for range 3 {
		r.clock.add(time.Minute)
		_, err := r.Sync(context.Background())
		require.ErrorIs(t, err, errFault)
		require.Equal(t, 8, r.Status().Pending)
		require.NoError(t, r.Held(), "a failing bucket does not make the process unready")
	}
	// Each pass asks once for each of the three oldest blocks and once for the newest.
	require.Equal(t, 3*4, puts, "a pass gives up where three in a row and the newest fail")
	r.bkt.fail = nil
	require.Equal(t, 8, r.sync())
	require.Equal(t, ids(want...), r.metaOrder())
}

// TestShipperBadBlocks: what is wrong with one block never stops the others.
func TestShipperBadBlocks(t *testing.T) {
	break_ := map[string]struct {
		do   func(t *testing.T, bdir string)
		want error
		says string
	}{
		"no index":     {func(t *testing.T, d string) { require.NoError(t, os.Remove(filepath.Join(d, "index"))) }, block.ErrCorrupt, "no index"},
		"torn meta":    {func(t *testing.T, d string) { truncate(t, filepath.Join(d, "meta.json"), 40) }, block.ErrCorrupt, "meta.json"},
		"no meta":      {func(t *testing.T, d string) { require.NoError(t, os.Remove(filepath.Join(d, "meta.json"))) }, block.ErrPartial, ""},
		"torn index":   {func(t *testing.T, d string) { truncate(t, filepath.Join(d, "index"), 100) }, block.ErrCorrupt, "index"},
		"empty index":  {func(t *testing.T, d string) { truncate(t, filepath.Join(d, "index"), 0) }, block.ErrCorrupt, "index"},
		"no segment":   {func(t *testing.T, d string) { require.NoError(t, os.Remove(filepath.Join(d, "chunks/000001"))) }, block.ErrCorrupt, "chunks/000001"},
		"torn segment": {func(t *testing.T, d string) { truncate(t, filepath.Join(d, "chunks/000001"), 30) }, block.ErrCorrupt, "offset"},
		"flipped bit":  {func(t *testing.T, d string) { flip(t, filepath.Join(d, "chunks/000001"), 25) }, block.ErrCorrupt, "checksum"},
		"new version": {func(t *testing.T, d string) {
			path := filepath.Join(d, "meta.json")
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(data), `"version": 1`, `"version": 9`, 1)), 0o644))
		}, block.ErrUnknownVersion, "upgrade"},
	}
	for name, c := range break_ {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bad := r.cut(1, blocktest.Options{})
			good := r.cut(2, blocktest.Options{})
			c.do(t, filepath.Join(r.dir, bad.String()))
			require.Equal(t, 1, r.sync())
			require.True(t, r.visible(good))
			require.False(t, r.visible(bad))
			require.Equal(t, ids(good), r.shipped())

			err := r.Status().Quarantined[bad]
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, bad.String())
			require.ErrorContains(t, err, c.says)
			r.remove(bad)
			require.Zero(t, r.sync())
			require.Empty(t, r.Status().Quarantined)
		})
	}
}

// TestShipperMended: a block that was set aside is looked at again.
func TestShipperMended(t *testing.T) {
	r := newRig(t)
	id := r.cut(1, blocktest.Options{})
	path := filepath.Join(r.dir, id.String(), "chunks/000001")
	flip(t, path, 25)
	require.Zero(t, r.sync())
	flip(t, path, 25)
	require.Zero(t, r.sync(), "not at each pass: it costs reading the block")
	r.clock.add(time.Hour)
	require.Equal(t, 1, r.sync())
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	require.NoError(t, os.Truncate(path, size))
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[at] ^= 0x10
	require.NoError(t, os.WriteFile(path, data, 0o644))
}

// RELIABILITY S8: no upload without external labels.
func TestShipperNoLabels(t *testing.T) {
	r := newRig(t)
	r.labels = labels.EmptyLabels()
	r.cut(1, blocktest.Options{})
	_, err := r.Sync(context.Background())
	require.ErrorIs(t, err, block.ErrNoExternalLabels)
	require.ErrorContains(t, r.Held(), "external_labels")
	require.Empty(t, r.bkt.Objects())
	require.Equal(t, 1, r.Status().Pending)
}

// RELIABILITY S8: changed labels hold for blocks cut afterwards, over a restart too.
func TestShipperLabelsChange(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.sync())
	r.clock.add(time.Minute)
	before := r.cut(1, blocktest.Options{ID: idAt(r.clock.now())})
	r.clock.add(time.Minute)
	r.bkt.fail = func(string, string) error { return errFault }
	r.labels = labels.FromStrings("cluster", "b")
	_, err := r.Sync(context.Background())
	require.ErrorIs(t, err, errFault)
	r.clock.add(time.Minute)
	after := r.cut(2, blocktest.Options{ID: idAt(r.clock.now())})
	r.bkt.fail = nil
	r.restart()
	require.Equal(t, 2, r.sync())
	for id, want := range map[ulid.ULID]string{before: "a", after: "b"} {
		m, err := block.FetchMeta(context.Background(), r.bkt, id)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"cluster": want}, m.Thanos.Labels)
	}
}

// TestShipperTornState cuts each state file at every byte: what was shipped is
// found in the bucket, and nothing is sent twice.
//
// RELIABILITY S9
func TestShipperTornState(t *testing.T) {
	r := newRig(t)
	all := []ulid.ULID{r.cut(1, blocktest.Options{}), r.cut(2, blocktest.Options{})}
	r.sync()
	for _, name := range []string{block.DefaultShipperFilename, "firnline.shipper.json"} {
		path := filepath.Join(r.dir, name)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		for size := range whole {
			require.NoError(t, os.WriteFile(path, whole[:size], 0o644))
			r.bkt.puts()
			r.restart()
			require.NoError(t, r.Prepare())
			r.clock.add(10 * time.Minute) // a lost owner waits for its own lease
			require.Zero(t, r.sync(), "size %d", size)
			require.Empty(t, r.bkt.puts())
			require.Equal(t, ids(all...), r.shipped())
		}
		require.NoError(t, os.Remove(path))
		r.restart()
		r.clock.add(10 * time.Minute)
		require.Zero(t, r.sync())
		require.Equal(t, ids(all...), r.shipped())
	}
}

// RELIABILITY S9: the state can't be written; the block counts as shipped once it can.
func TestShipperDiskFull(t *testing.T) {
	r := newRig(t)
	require.Zero(t, r.sync())
	id := r.cut(1, blocktest.Options{})
	// A folder in the way of the temporary file fails every write of the list.
	block := r.StateFile() + ".tmp"
	require.NoError(t, os.MkdirAll(filepath.Join(block, "x"), 0o755))
	_, err := r.Sync(context.Background())
	require.ErrorContains(t, err, "can't be listed as shipped")
	require.Empty(t, r.shipped(), "the old list is whole")
	require.NoError(t, os.RemoveAll(block))
	r.bkt.puts()
	r.sync()
	require.Empty(t, r.bkt.puts(), "it is not sent again")
	require.Equal(t, ids(id), r.shipped())

	second := r.cut(2, blocktest.Options{})
	require.NoError(t, os.MkdirAll(filepath.Join(block, "x"), 0o755))
	_, err = r.Sync(context.Background())
	require.ErrorContains(t, err, "can't be listed as shipped")
	require.NoError(t, os.RemoveAll(block))
	r.restart()
	r.bkt.puts()
	r.sync()
	require.Empty(t, r.bkt.puts(), "nor after a restart")
	require.Equal(t, ids(id, second), r.shipped())
}

// TestShipperForgets keeps the list no longer than the folder.
func TestShipperForgets(t *testing.T) {
	r := newRig(t)
	a, b := r.cut(1, blocktest.Options{}), r.cut(2, blocktest.Options{})
	r.sync()
	r.remove(a)
	r.sync()
	require.Equal(t, ids(b), r.shipped())
}
