package compact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
	"github.com/firnline/firnline/pkg/proctest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerBucket); dir != "" { // a process of BenchmarkWorkers
		if err := workerProcess(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	proctest.Main(m)
}

// epoch is where data begins: the start of a window of 14 days.
var epoch = time.UnixMilli(14 * 24 * 3600 * 1000 * 1460).UTC()

const (
	hour = int64(3_600_000)
	step = int64(300_000)
)

// world is a bucket with a clock, into which blocks of known samples are shipped.
type world struct {
	*testing.T
	bkt   *faulty
	clock *clock
	dir   string
	n     int // blocks shipped
	want  map[string]map[int64]float64
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, bkt: newFaulty(), clock: &clock{t: epoch.Add(5 * 24 * time.Hour)}, dir: t.TempDir(), want: map[string]map[int64]float64{}}
	w.bkt.SetClock(w.clock.now)
	return w
}

// copy is another world that is as this one: to write its blocks anew would take
// far longer.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	c := newWorld(t)
	c.n, c.clock.t = w.n, w.clock.now()
	for key, samples := range w.want {
		c.want[key] = maps.Clone(samples)
	}
	objects := w.bkt.Objects()
	require.NoError(t, w.bkt.Memory.ListSizes(context.Background(), "", func(o block.Object) error {
		c.bkt.SetClock(func() time.Time { return o.LastModified })
		return c.bkt.Memory.Upload(context.Background(), o.Name, bytes.NewReader(objects[o.Name]))
	}))
	c.bkt.SetClock(c.clock.now)
	return c
}

// ship uploads a block of n series from hour to hour of epoch, under the labels
// cluster=a and those given.
func (w *world) ship(fromHour, toHour int64, n int, more ...string) block.Meta {
	w.Helper()
	start := epoch.UnixMilli()
	from, to := start+fromHour*hour, start+toHour*hour
	ext := labels.FromStrings(append([]string{"cluster", "a"}, more...)...)
	var series []blocktest.Series
	for i := range n {
		lset := labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i))
		value := func(t int64) float64 { return float64(t/step%1000 + int64(i)) }
		series = append(series, blocktest.Series{Labels: lset, Samples: blocktest.Floats(from, to, step, value)})
		w.note(lset, from, to, value)
	}
	w.n++
	id := ulid.MustNew(uint64(to), bytes.NewReader(append(make([]byte, 9), byte(w.n))))
	m := blocktest.Write(w, w.dir, series, ext, blocktest.Options{ID: id, MinTime: from, MaxTime: to, Source: block.SourceSidecar})
	up := block.Uploader{Bucket: w.bkt, Now: func() time.Time { return w.clock.now().Add(-time.Hour) }} // older than the consistency delay
	sent, err := up.Upload(context.Background(), filepath.Join(w.dir, id.String()), &m)
	require.NoError(w, err)
	return *sent.Meta
}

func (w *world) note(lset labels.Labels, from, to int64, value func(int64) float64) {
	key := lset.String()
	if w.want[key] == nil {
		w.want[key] = map[int64]float64{}
	}
	for t := from; t < to; t += step {
		w.want[key][t] = value(t)
	}
}

// shipDays ships blocks of two hours for so many days.
func (w *world) shipDays(days int64, n int, more ...string) {
	for h := int64(0); h < days*24; h += 2 {
		w.ship(h, h+2, n, more...)
	}
}

// config is what tests begin with.
func (w *world) config() compact.Config {
	cfg := defaults()
	cfg.DataDir = w.TempDir()
	cfg.Blocks.GoneDelay = 0
	return cfg
}

// compactor makes one; options change its configuration and parts.
func (w *world) compactor(change func(*compact.Config, *compact.Parts)) *compact.Compactor {
	w.Helper()
	cfg := w.config()
	parts := compact.Parts{Bucket: w.bkt, Log: logger(), Metrics: prometheus.NewRegistry(), Now: w.clock.now, Rand: func() float64 { return 0 }}
	if change != nil {
		change(&cfg, &parts)
	}
	c, err := compact.New(cfg, parts)
	require.NoError(w, err)
	w.Cleanup(func() { require.NoError(w, c.Close()) })
	return c
}

// process is a compactor that can be killed: from then on it reaches nothing any more.
type process struct {
	mu   sync.Mutex
	at   string // point to die at
	nth  int    // visit of it, from 1
	dead bool
	seen map[string]int // visits by point
}

var errDead = errors.New("the process is dead")

func (p *process) hook(_ context.Context, point, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]int{}
	}
	p.seen[point]++
	if point == p.at && p.seen[point] == p.nth {
		p.dead = true
	}
	if p.dead {
		return errDead
	}
	return nil
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// killable makes a compactor of a process, in a data folder that may have been
// another one's before.
func (w *world) killable(p *process, dataDir string, change func(*compact.Config)) *compact.Compactor {
	w.Helper()
	cfg := w.config()
	cfg.DataDir = dataDir
	if change != nil {
		change(&cfg)
	}
	c, err := compact.New(cfg, compact.Parts{
		Bucket: bucket.WithFaults(w.bkt, p.hook), Fault: p.hook, Log: logger(), Metrics: prometheus.NewRegistry(), Now: w.clock.now, Rand: func() float64 { return 0 },
	})
	require.NoError(w, err)
	return c
}

// logger shows what is logged with LOG=1.
func logger() *slog.Logger {
	if os.Getenv("LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// live returns the blocks that are visible and not marked for deletion, by time.
func (w *world) live() []*block.Meta {
	w.Helper()
	objects := w.bkt.Objects()
	var out []*block.Meta
	for name, data := range objects {
		id, rel, ok := block.SplitName(name)
		if !ok || rel != block.MetaFilename || objects[block.Name(id, block.DeletionMarkFilename)] != nil {
			continue
		}
		m, err := block.ParseMeta(id, data)
		require.NoError(w, err)
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *block.Meta) int {
		return int(a.MinTime-b.MinTime) + int(a.Resolution()-b.Resolution())
	})
	return out
}

func (w *world) liveRaw() []*block.Meta {
	return slices.DeleteFunc(w.live(), func(m *block.Meta) bool { return m.Resolution() != 0 })
}

// samples reads the blocks back with the TSDB, each sample once.
func (w *world) samples(metas []*block.Meta) map[string]map[int64]float64 {
	w.Helper()
	out := map[string]map[int64]float64{}
	for _, m := range metas {
		dir := filepath.Join(w.TempDir(), m.ULID.String())
		for name, data := range w.bkt.Objects() {
			if id, rel, ok := block.SplitName(name); ok && id == m.ULID {
				path := filepath.Join(dir, filepath.FromSlash(rel))
				require.NoError(w, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(w, os.WriteFile(path, data, 0o644))
			}
		}
		w.read(dir, out)
	}
	return out
}

func (w *world) read(dir string, out map[string]map[int64]float64) {
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	require.NoError(w, err)
	defer func() { require.NoError(w, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	require.NoError(w, err)
	defer func() { require.NoError(w, q.Close()) }()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		key := set.At().Labels().String()
		if out[key] == nil {
			out[key] = map[int64]float64{}
		}
		it := set.At().Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			t, v := it.At()
			out[key][t] = v
		}
		require.NoError(w, it.Err())
	}
	require.NoError(w, set.Err())
}

// requireSamples compares the raw blocks that are live with what was shipped.
func (w *world) requireSamples() {
	w.Helper()
	got := w.samples(w.liveRaw())
	require.Equal(w, slices.Sorted(maps.Keys(w.want)), slices.Sorted(maps.Keys(got)))
	for key, want := range w.want {
		require.Equal(w, want, got[key], key)
	}
}

// requireTidy finds nothing left of jobs in a data folder.
func requireTidy(t testing.TB, dataDir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dataDir, "compact"))
	require.NoError(t, err)
	require.Empty(t, entries)
}

// value sums up the series of a metric that have all of the label values given.
func value(t testing.TB, reg *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "firnline_compact_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := map[string]bool{}
			for _, l := range m.GetLabel() {
				has[l.GetValue()] = true
			}
			if !slices.ContainsFunc(values, func(v string) bool { return !has[v] }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// faulty is a bucket in memory that misbehaves as told. Its fields are set while
// nobody uses it; nil ones do nothing.
type faulty struct {
	*bucket.Memory
	put    func(name string, body []byte) []byte // what an Upload stores; nil: nothing
	hide   func(name string) bool                // from listings
	fail   func(op, name string) error           // before anything else
	noCond bool                                  // PutIf overwrites whatever is there
}

func newFaulty() *faulty { return &faulty{Memory: bucket.NewMemory()} }

func (f *faulty) check(op, name string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op, name)
}

func (f *faulty) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if err := f.check("put", name); err != nil {
		return err
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if f.put != nil {
		if body = f.put(name, body); body == nil {
			return nil
		}
	}
	return f.Memory.Upload(ctx, name, bytes.NewReader(body), opts...)
}

func (f *faulty) ListSizes(ctx context.Context, prefix string, fn func(block.Object) error) error {
	if err := f.check("list", prefix); err != nil {
		return err
	}
	return f.Memory.ListSizes(ctx, prefix, func(o block.Object) error {
		if f.hide != nil && f.hide(o.Name) {
			return nil
		}
		return fn(o)
	})
}

func (f *faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := f.check("get", name); err != nil {
		return nil, err
	}
	return f.Memory.Get(ctx, name)
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	if err := f.check("delete", name); err != nil {
		return err
	}
	return f.Memory.Delete(ctx, name)
}

func (f *faulty) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if err := f.check("putif", name); err != nil {
		return "", err
	}
	if f.noCond {
		if err := f.Memory.Upload(ctx, name, bytes.NewReader(body)); err != nil {
			return "", err
		}
		_, etag, err := f.GetIf(ctx, name, "")
		return etag, err
	}
	return f.Memory.PutIf(ctx, name, body, etag)
}

// has tells whether the bucket has an object of a block.
func (w *world) has(id ulid.ULID, rel string) bool {
	_, ok := w.bkt.Objects()[block.Name(id, rel)]
	return ok
}

// blockObjects counts the objects that belong to blocks.
func (w *world) blockObjects() (n int) {
	for name := range w.bkt.Objects() {
		if !strings.HasPrefix(name, "firnline/") {
			n++
		}
	}
	return n
}

func duration(d time.Duration) model.Duration { return model.Duration(d) }
