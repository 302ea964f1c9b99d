package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

const (
	minute    = int64(60_000)
	blockSpan = 10 * minute
	scrapes   = 15_000            // ms between two of a target
	begin     = 1_700_000_400_000 // ms; where blocks of all lengths begin
)

// world is two HA pairs, the bucket they ship to, and the model of all that was
// written. Cluster "same" has replicas with equal samples; those of "own" scrape
// each for itself.
type world struct {
	t        *testing.T
	rnd      *rand.Rand
	memory   *bucket.Memory
	model    *Model
	replicas []*replica
	now      time.Time // of shippers and bucket
}

func newWorld(t *testing.T, rnd *rand.Rand) *world {
	w := &world{t: t, rnd: rnd, memory: bucket.NewMemory(), model: New(), now: time.Now()}
	w.memory.SetClock(func() time.Time { return w.now })
	for _, cluster := range []string{"same", "own"} {
		targets := sources(rnd)
		for _, name := range []string{"a", "b"} {
			if cluster == "own" {
				targets = sources(rnd)
			}
			r := &replica{
				world: w, dir: t.TempDir(), targets: targets, delayed: rnd.IntN(2) == 0, xor2: rnd.IntN(3) == 0,
				labels: labels.FromStrings("cluster", cluster, "replica", name), faults: &faults{rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0))},
				twin: cluster == "same" && name == "b",
			}
			r.open()
			r.startShipper()
			t.Cleanup(func() { require.NoError(t, r.db.Close()) })
			w.replicas = append(w.replicas, r)
		}
	}
	return w
}

// step writes a block's length of samples and lets each replica compact, ship,
// and die, under faults drawn anew.
func (w *world) step(n int64) {
	start := begin + n*blockSpan
	var written []appended
	for _, r := range w.replicas {
		if !r.twin {
			written = r.scrape(start, n)
		}
		r.append(written)
		r.faults.draw()
		switch w.rnd.IntN(6) {
		case 0:
			r.startShipper() // killed and started again
		case 1:
			require.NoError(w.t, r.db.Close())
			r.open()
		}
		order := []func(){r.ship, r.compact}
		if w.rnd.IntN(2) == 0 {
			slices.Reverse(order)
		}
		for _, do := range order {
			do()
		}
	}
	w.now = w.now.Add(time.Minute)
}

// convergesWithin is how many passes a shipper has after all faults are gone.
const convergesWithin = 2

// heal ends all faults and has everything shipped that is to be.
func (w *world) heal() {
	for _, r := range w.replicas {
		r.faults.end()
		require.NoError(w.t, r.db.CompactOOOHead(w.t.Context()))
		for range convergesWithin {
			_, err := r.shipper.Sync(w.t.Context())
			require.NoError(w.t, err, "no fault is left")
		}
		sent, err := r.shipper.Sync(w.t.Context())
		require.NoError(w.t, err)
		require.Zero(w.t, sent, "%s has not converged after %d passes", r.labels, convergesWithin)
		st := r.shipper.Status()
		require.Zero(w.t, st.Pending)
		require.Empty(w.t, st.Quarantined)
		r.forgetLost()
	}
}

// cut is the time before which every sample is in a block, ms.
func (w *world) cut() int64 {
	cut := w.replicas[0].db.Head().MinTime()
	for _, r := range w.replicas {
		cut = min(cut, r.db.Head().MinTime())
	}
	return cut
}

// replica is one Prometheus, as far as its storage goes, and its shipper.
type replica struct {
	*world
	dir     string
	labels  labels.Labels // external
	targets []*source
	twin    bool // writes what the replica before it has written
	delayed bool // compaction waits for the list of shipped blocks
	xor2    bool // the newer float encoding
	db      *tsdb.DB
	shipper *block.Shipper
	faults  *faults

	cameLate []appended
}

func (r *replica) open() {
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration, opts.MaxBlockDuration = blockSpan, 9*blockSpan
	opts.RetentionDuration = 10_000 * blockSpan
	opts.OutOfOrderTimeWindow = 4 * blockSpan
	opts.NoLockfile = true
	if r.xor2 {
		opts.FloatChunkEncoding = chunkenc.EncXOR2
	}
	if r.delayed {
		opts.BlockCompactionExcludeFunc = r.notShipped
	}
	db, err := tsdb.Open(r.dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	require.NoError(r.t, err)
	db.DisableCompactions()
	r.db = db
}

// notShipped is what Prometheus does with its delay-compact file.
func (r *replica) notShipped(m *tsdb.BlockMeta) bool {
	var list struct {
		Uploaded []string `json:"uploaded"`
	}
	data, err := os.ReadFile(r.shipper.StateFile())
	if err != nil || json.Unmarshal(data, &list) != nil || m.Compaction.Level > 1 {
		return false
	}
	return !slices.Contains(list.Uploaded, m.ULID.String())
}

// startShipper begins a new life of the sidecar, with what the old one left on disk.
func (r *replica) startShipper() {
	cfg := block.ShipperConfig{
		MetaFileName: block.DefaultShipperFilename, UploadCompacted: r.rnd.IntN(2) == 0, UploadConcurrency: 1,
		Interval: model.Duration(time.Second), MaxBackoff: model.Duration(time.Second),
		LeaseTTL: model.Duration(time.Minute), QuarantineRecheck: model.Duration(time.Second),
	}
	bkt := bucket.WithFaults(r.memory, r.faults.hook)
	r.shipper = block.NewShipper(cfg, block.ShipperParts{
		Dir: r.dir, Bucket: bkt, Labels: func() labels.Labels { return r.labels }, Source: block.SourceSidecar,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	r.shipper.SetClock(func() time.Time { return r.now })
	r.shipper.SetFault(func(step string) error { return r.faults.hook(context.Background(), step, "") })
	require.NoError(r.t, r.shipper.Prepare())
}

type appended struct {
	labels labels.Labels
	sample Sample
	late   bool // out of order
}

// scrape makes up a block's length of samples, and from time to time some that
// come late.
func (r *replica) scrape(start, n int64) (out []appended) {
	jitter := int64(r.rnd.IntN(scrapes))
	for t := start + jitter; t < start+blockSpan; t += scrapes {
		if r.rnd.IntN(100) == 0 {
			t += int64(r.rnd.IntN(3)) * scrapes // all are missed
		}
		for _, s := range r.targets {
			if sample, ok := s.scrape(r.rnd, min(t, start+blockSpan-1)); ok {
				out = append(out, appended{s.labels, sample, false})
			}
		}
	}
	if n > 4 && r.rnd.IntN(2) == 0 {
		out = append(out, r.late(start-2*blockSpan)...)
	}
	return out
}

// late makes up samples of one series that come out of order: scrapes that were
// missed, or any at or after from, between those that are there. The latter only
// of gauges where there is a twin: late values of these counters are new ones, so
// that they go up and down, and where copies meet a counter must not go down. Of two
// samples of one time, of which one is late, the TSDB may keep either.
func (r *replica) late(from int64) (out []appended) {
	s := r.targets[r.rnd.IntN(len(r.targets))]
	if s.labels.Get("__name__") == "mixed" {
		return nil // of a float and a histogram of one time the TSDB may keep either
	}
	times := s.missed
	if s.missed = nil; r.labels.Get("cluster") == "own" || s.labels.Get("__name__") == "queue" {
		for i := range int64(10) {
			times = append(times, from+i*7_001)
		}
	}
	for _, t := range times {
		if t >= from && !r.model.taken(r.labels, s.labels, t) {
			sample := s.next(r.rnd)
			sample.Time = t
			out = append(out, appended{s.labels, sample, true})
		}
	}
	return out
}

// append writes samples as a scrape would, and tells the model what was taken.
func (r *replica) append(samples []appended) {
	app := r.db.Appender(context.Background())
	var taken []appended
	for _, a := range samples {
		var err error
		if s := a.sample; s.Hist != nil || s.FloatHist != nil {
			_, err = app.AppendHistogram(0, a.labels, s.Time, s.Hist, s.FloatHist)
		} else {
			_, err = app.Append(0, a.labels, s.Time, s.Value)
		}
		switch {
		case err == nil:
			taken = append(taken, a)
		case errors.Is(err, storage.ErrDuplicateSampleForTimestamp), errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrTooOldSample):
		default:
			require.NoError(r.t, err)
		}
	}
	require.NoError(r.t, app.Commit())
	for _, a := range taken {
		r.model.Add(r.labels, a.labels, a.sample)
		if a.late {
			r.cameLate = append(r.cameLate, a)
		}
	}
}

// forgetLost takes those samples out of the model that came late and that the
// local TSDB, over its restarts and compactions, has lost by itself.
func (r *replica) forgetLost() {
	q, err := r.db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(r.t, err)
	defer q.Close()
	has := map[string]map[int64]bool{}
	set := q.Select(r.t.Context(), false, nil, labels.MustNewMatcher(labels.MatchNotEqual, "__name__", ""))
	for set.Next() {
		times := map[int64]bool{}
		for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
			times[it.AtT()] = true
		}
		has[set.At().Labels().String()] = times
	}
	require.NoError(r.t, set.Err())
	for _, a := range r.cameLate {
		if !has[a.labels.String()][a.sample.Time] {
			r.model.remove(r.labels, a.labels, a.sample.Time)
		}
	}
}

func (r *replica) compact() { require.NoError(r.t, r.db.Compact(context.Background())) }

func (r *replica) ship() {
	_, err := r.shipper.Sync(context.Background())
	if err != nil {
		require.ErrorIs(r.t, err, errFault)
	}
}

var errFault = errors.New("injected fault")

// faults fails steps at random.
type faults struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	odds int // of a thousand
}

// draw chooses how bad it is from now on.
func (f *faults) draw() { f.drawOf(0, 0, 30, 200, 1000) }

func (f *faults) drawOf(odds ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds = odds[f.rnd.IntN(len(odds))]
}

func (f *faults) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds = 0
}

// strikes tells whether this time something goes wrong.
func (f *faults) strikes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.odds > 0 && f.rnd.IntN(1000) < f.odds
}

// below draws a number below n.
func (f *faults) below(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rnd.IntN(n)
}

func (f *faults) hook(_ context.Context, point, object string) error {
	if f.strikes() {
		return fmt.Errorf("%s %s: %w", point, object, errFault)
	}
	return nil
}
