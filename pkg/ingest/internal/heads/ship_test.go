package heads

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
	"github.com/firnline/firnline/pkg/tenant"
)

// failing is a bucket that can be made to fail its uploads.
type failing struct {
	block.Bucket
	down atomic.Bool
}

var errDown = errors.New("the bucket is down")

func (b *failing) ListSizes(ctx context.Context, prefix string, f func(block.Object) error) error {
	if b.down.Load() {
		return errDown
	}
	return b.Bucket.ListSizes(ctx, prefix, f)
}

// shipRig has a bucket.
func shipRig(t *testing.T, change ...func(*Config, *Parts)) (*rig, *failing) {
	bkt := &failing{Bucket: bucket.NewMemory()}
	r := newRig(t, append(change, func(c *Config, p *Parts) {
		c.OutOfOrderWindow, c.TooFarAhead = model.Duration(time.Hour), 0
		p.Bucket = bkt
		p.RingLabels = func(id tenant.ID) labels.Labels {
			return labels.FromStrings("ring", "one", "tenant_id", "somebody else")
		}
	})...)
	return r, bkt
}

// metas are those of the blocks in the bucket.
func metas(t *testing.T, bkt block.Bucket) (out []*block.Meta) {
	t.Helper()
	require.NoError(t, bkt.Iter(t.Context(), "", func(name string) error {
		if id, err := ulid.ParseStrict(strings.TrimSuffix(name, "/")); err == nil {
			m, err := block.FetchMeta(t.Context(), bkt, id)
			require.NoError(t, err)
			out = append(out, m)
		}
		return nil
	}))
	return out
}

// TestFlush: all of a tenant, late samples too, is in the bucket under its labels, and reads on.
// A bucket that fails makes the flush fail, and the next one finishes it.
func TestFlush(t *testing.T) {
	r, bkt := shipRig(t)
	r.put(write("t", 1, kinds(0)...))
	r.put(write("t", 1, kinds(3*hour)...))
	r.put(write("t", 1, kinds(3*hour-hour/2)...))
	want := r.dump()
	bkt.down.Store(true)
	require.ErrorIs(t, r.Flush(t.Context(), "t"), errDown)
	require.Equal(t, want, r.dump())
	bkt.down.Store(false)
	require.NoError(t, r.FlushAll(t.Context()))
	require.Equal(t, want, r.dump())
	got := metas(t, bkt)
	require.Len(t, got, 3)
	samples := uint64(0)
	for _, m := range got {
		samples += m.Stats.NumSamples
		require.Equal(t, map[string]string{"replica": "a", "ring": "one", "tenant_id": "t"}, m.Thanos.Labels)
		require.Equal(t, "receive", m.Thanos.Source)
		require.LessOrEqual(t, m.MaxTime-m.MinTime, 2*hour)
		require.Equal(t, m.MinTime/(2*hour), (m.MaxTime-1)/(2*hour), "a block stays within its bounds")
	}
	require.EqualValues(t, 3*7*40, samples)
	require.Zero(t, head1Series(t, r))
	require.NoError(t, r.Flush(t.Context(), "t"), "nothing is left to do")
	require.NoError(t, r.Flush(t.Context(), "nobody"))
	r.put(write("t", 1, kinds(4*hour)...))
	require.EqualValues(t, 7, head1Series(t, r))
}

func head1Series(t *testing.T, r *rig) uint64 {
	h := head1(t, r)
	defer h.release()
	return h.db.Head().NumSeries()
}

// TestFlushRefusesWrites: what comes while the whole head is cut is refused, not lost.
func TestFlushRefusesWrites(t *testing.T) {
	r, _ := shipRig(t)
	r.put(write("t", 1, one("up", 0, 1)))
	h := head1(t, r)
	h.cutting.Lock()
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1, 1)))
	asRefuse(t, err, refuse.NotReady)
	h.cutting.Unlock()
	h.release()
	r.put(write("t", 1, one("up", 1, 1)))
}

// TestWritesDuringFlushes: what is acknowledged while heads are cut over and over is there, also for who reads
// meanwhile. What is refused comes again.
func TestWritesDuringFlushes(t *testing.T) {
	r, _ := shipRig(t)
	const writes = 50
	r.put(write("t", 1, one("up", 0, 0))) // who reads waits for an opening, but not for long
	var acked atomic.Int64
	acked.Store(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for acked.Load() < writes {
			i := acked.Load()
			res, err := r.Append(context.Background(), write("t", 1, one("up", float64(i*60_000), float64(i))))
			switch {
			case err == nil && len(res.Refused)+len(res.Unknown) == 0:
				acked.Add(1)
			case refuse.ReasonOf(err) != refuse.NotReady:
				t.Errorf("%v %v", err, res)
				return
			}
		}
	}()
	read := func() []storetest.Sample {
		return r.read(t.Context(), everything())[`{__name__="up", replica="a", ring="one", tenant_id="t"}`]
	}
	check := func() {
		least := acked.Load()
		got := read()
		require.GreaterOrEqual(t, int64(len(got)), least)
		for i, s := range got {
			require.Equal(t, storetest.Sample{T: start + int64(i)*60_000, V: float64(i)}, s)
		}
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			require.NoError(t, r.FlushAll(t.Context()))
			check()
		}
	}
	check()
	require.Len(t, read(), writes)
}

// TestCut: a head that has grown long enough is cut and the block is shipped, without being asked to.
// Local blocks go when they are past retention and were in the bucket for long enough; not before.
func TestCut(t *testing.T) {
	r, bkt := shipRig(t, func(c *Config, _ *Parts) { c.Retention, c.IdleFlush = model.Duration(10*time.Hour), 0 })
	for i := range int64(8) {
		r.put(write("t", 1, one("up", float64(i*hour/2), float64(i))))
	}
	want := r.dump()
	r.tend(t.Context())
	require.Len(t, metas(t, bkt), 1)
	require.Equal(t, want, r.dump())

	local := func() int {
		h := head1(t, r)
		defer h.release()
		require.NoError(t, h.db.CompactOOOHead(t.Context())) // looks for what may go
		all, err := filepath.Glob(filepath.Join(r.cfg.Dir, "t", "01*"))
		require.NoError(t, err)
		return len(all)
	}
	require.Equal(t, 1, local())
	for i := range int64(60) {
		r.put(write("t", 1, one("up", float64((i+8)*hour/2), float64(i))))
	}
	bkt.down.Store(true)
	r.advance(30 * time.Hour)
	r.tend(t.Context())
	n := local()
	require.Equal(t, 15, n, "not in the bucket: all but the first stay whatever their age")
	bkt.down.Store(false)
	r.shipAll(t.Context())
	require.Len(t, metas(t, bkt), 16)
	require.Equal(t, n, local(), "in the bucket, but not for long enough")
	r.advance(time.Duration(r.cfg.SyncDelay))
	require.Equal(t, 6, local(), "what is within retention stays")
}

// TestTendedByItself: all of that is done without being asked for, also at the start.
func TestTendedByItself(t *testing.T) {
	r, bkt := shipRig(t)
	for i := range int64(8) {
		r.put(write("t", 1, one("up", float64(i*hour/2), float64(i))))
	}
	want := r.dump()
	r.byself = true
	r.restart()
	require.Eventually(t, func() bool {
		n := 0
		err := bkt.Iter(context.Background(), "", func(name string) error {
			if exists, err := bkt.Exists(context.Background(), name+block.MetaFilename); err != nil || !exists {
				return err
			}
			n++
			return nil
		})
		return err == nil && n == 1
	}, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, want, r.dump())
}

// TestIdle: a tenant that sends nothing is flushed, then closed and removed when all of it is in the bucket.
func TestIdle(t *testing.T) {
	r, bkt := shipRig(t)
	r.put(write("t", 1, kinds(0)...))
	r.put(write("u", 1, one("up", 0, 1)))
	r.advance(time.Duration(r.cfg.IdleFlush))
	r.tend(t.Context())
	require.Len(t, metas(t, bkt), 2)
	require.Zero(t, head1Series(t, r))
	require.Len(t, r.dump(), 8)

	bkt.down.Store(true)
	r.put(write("u", 1, one("up", 1, 1)))
	r.advance(time.Duration(r.cfg.Retention) + time.Hour)
	r.tend(t.Context())
	require.Equal(t, []tenant.ID{"u"}, r.Tenants(), "the bucket is down: nobody is removed who has anything to ship")
	bkt.down.Store(false)
	r.tend(t.Context())
	require.Empty(t, r.Tenants())
	require.NoDirExists(t, filepath.Join(r.cfg.Dir, "t"))
	require.Len(t, metas(t, bkt), 3)
	r.put(write("t", 1, one("up", float64(3*24*hour), 1)))
	require.Len(t, r.dump(), 1)
}

// TestOldSamplesAreNoIdleness: a tenant whose first samples are of long ago is not taken for one that sends nothing,
// not even in the moment in which they are there and their write has not come to its end. Its head is not cut, which
// would refuse what it sends next.
func TestOldSamplesAreNoIdleness(t *testing.T) {
	var first, there atomic.Bool
	reached, proceed := make(chan struct{}), make(chan struct{})
	r, _ := shipRig(t, func(_ *Config, p *Parts) {
		clock := p.Now
		p.Now = func() time.Time {
			if there.CompareAndSwap(true, false) { // asked when they are there
				close(reached)
				<-proceed
			}
			return clock()
		}
		p.Fault = func(step string) error {
			if step == "append/commit" && first.CompareAndSwap(true, false) {
				there.Store(true)
			}
			return nil
		}
	})
	r.advance(3 * 24 * time.Hour)
	first.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Append(context.Background(), write("t", 1, one("up", 0, 1)))
		ended <- err
	}()
	<-reached
	require.EqualValues(t, 1, head1Series(t, r))
	r.tend(t.Context())
	require.EqualValues(t, 1, head1Series(t, r))
	close(proceed)
	require.NoError(t, <-ended)
	require.Zero(t, testutil.CollectAndCount(r.metrics.flushes))
	r.advance(time.Duration(r.cfg.IdleFlush))
	r.tend(t.Context())
	require.Zero(t, head1Series(t, r))
}

// TestTenantLimit: one tenant too many is refused by the flag's name, the others go on.
func TestTenantLimit(t *testing.T) {
	r := newRig(t, func(c *Config, _ *Parts) { c.MaxTenants = 1 })
	r.put(write("a", 1, one("up", 0, 1)))
	_, err := r.Append(t.Context(), write("b", 1, one("up", 0, 1)))
	require.ErrorContains(t, asRefuse(t, err, refuse.Overloaded), flagTenants)
	_, err = r.Append(t.Context(), write("..", 1, one("up", 0, 1)))
	require.Error(t, err)
	r.put(write("a", 1, one("up", 1, 1)))
}

// TestFailedTenant: data that can't be read is no silent hole, and others are read with a warning.
//
// RELIABILITY P2
func TestFailedTenant(t *testing.T) {
	r := newRig(t)
	r.put(write("a", 1, one("up", 0, 1)))
	r.put(write("b", 1, one("up", 0, 1)))
	r.stop()
	require.NoError(t, os.Mkdir(filepath.Join(r.cfg.Dir, "b", familiesFilename), 0o755)) // can't be read
	r.run()
	sel := selectAll()
	_, err := r.Services().Store.Series(t.Context(), sel)
	require.ErrorContains(t, err, "tenant b")
	sel.PartialResponse = true
	set, err := r.Services().Store.Series(t.Context(), sel)
	require.NoError(t, err)
	require.True(t, set.Next())
	require.False(t, set.Next())
	require.NoError(t, set.Err())
	require.Len(t, set.Report().Warnings, 1)
	set.Close()
	require.Len(t, r.read(tenant.NewContext(t.Context(), "a"), everything()), 1)
}

// TestCardinality counts what is in a head.
func TestCardinality(t *testing.T) {
	r := newRig(t)
	b := write("t", 1, one("up", 0, 1), one("up", 0, 1), one("down", 0, 1))
	lsets := []labels.Labels{
		labels.FromStrings("__name__", "up", "pod", "a", "zone", "1"), labels.FromStrings("__name__", "up", "pod", "b", "zone", "1"),
		labels.FromStrings("__name__", "down", "pod", "a"),
	}
	b.Batch.Labels = func(i int) (labels.Labels, error) { return lsets[i], nil }
	r.put(b)
	r.put(write("other", 1, one("secret", 0, 1)))
	js := func(v any, err error) string {
		require.NoError(t, err)
		out, err := json.Marshal(v)
		require.NoError(t, err)
		return string(out)
	}
	up := []*labels.Matcher{named("up")}
	require.JSONEq(t, `{"label_values_count_total":5,"label_names_count":3,"cardinality":[{"label_name":"__name__","label_values_count":2},{"label_name":"pod","label_values_count":2}]}`,
		js(r.CardinalityLabelNames(t.Context(), "t", nil, 2)))
	require.JSONEq(t, `{"series_count_total":3,"labels":[
		{"label_name":"pod","label_values_count":2,"series_count":3,"cardinality":[{"label_value":"a","series_count":2},{"label_value":"b","series_count":1}]},
		{"label_name":"none","label_values_count":0,"series_count":0,"cardinality":[]}]}`,
		js(r.CardinalityLabelValues(t.Context(), "t", []string{"pod", "none"}, nil, 10)))
	require.JSONEq(t, `{"series_count_total":3,"labels":[{"label_name":"pod","label_values_count":2,"series_count":2,"cardinality":[{"label_value":"a","series_count":1}]}]}`,
		js(r.CardinalityLabelValues(t.Context(), "t", []string{"pod"}, up, 1)))
	require.JSONEq(t, `{"data":[{"__name__":"up","pod":"a","zone":"1"},{"__name__":"up","pod":"b","zone":"1"}]}`, js(r.ActiveSeries(t.Context(), "t", up, 0)))
	n, err := r.CountSeries(t.Context(), "t", up)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Equal(t, `[{"label_value":"up","series_count":2},{"label_value":"down","series_count":1}]`, js(r.TopMetrics(t.Context(), "t", 5)))
	require.Equal(t, map[tenant.ID]int64{"t": 3, "other": 1}, r.SeriesCounts())
	empty, err := r.CardinalityLabelNames(t.Context(), "nobody", nil, 0)
	require.NoError(t, err)
	require.Empty(t, empty.Cardinality)
}

// TestSums: the TSDBs' metrics are added up, and no series is a tenant's.
func TestSums(t *testing.T) {
	r := newRig(t)
	r.put(write("a", 1, one("up", 0, 1)))
	r.put(write("b", 1, one("up", 0, 1), one("down", 0, 1)))
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(r.sums)
	value := func(name string) float64 {
		all, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range all {
			if f.GetName() == name {
				require.Len(t, f.GetMetric(), 1)
				return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return math.NaN()
	}
	require.EqualValues(t, 3, value("firnline_ingest_tsdb_head_series"))
	require.EqualValues(t, 3, value("firnline_ingest_tsdb_head_samples_appended_total"))
	require.NoError(t, r.replace(t.Context(), headOf(t, r, "b"), func() (bool, error) { return true, nil }))
	require.EqualValues(t, 3, value("firnline_ingest_tsdb_head_series"))
	require.EqualValues(t, 3, value("firnline_ingest_tsdb_head_samples_appended_total"), "what a closed TSDB has counted stays")
}

// headOf is an open head, not retained.
func headOf(t *testing.T, r *rig, id tenant.ID) *head {
	h, err := r.acquire(t.Context(), id)
	require.NoError(t, err)
	h.release()
	return h
}
