package sidecar

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/storeapi"
)

// keeperRig is a noteKeeper beside a fake Prometheus that makes an exemplar each
// minute from start on, and a clock.
type keeperRig struct {
	*noteKeeper
	prom  *fakeProm
	bkt   *bucket.Memory
	cfg   Config
	reg   *prometheus.Registry
	clock time.Time
}

var start = time.Unix(1_700_000_000, 0)

func newKeeperRig(t *testing.T) *keeperRig {
	r := &keeperRig{prom: newFakeProm(t), bkt: bucket.NewMemory(), clock: start}
	r.cfg = testCfg(t, r.prom.URL)
	r.prom.set(func() {
		r.prom.mu.metadata = map[string][]storeapi.Metadata{"m": {{Type: "counter", Help: "How many.", Unit: "s"}}}
		r.prom.mu.exemplar = r.exemplars
	})
	r.restart(t)
	return r
}

// exemplars are those of every minute in [from, to], both in s.
func (r *keeperRig) exemplars(from, to string) any {
	type entry struct {
		Labels    map[string]string `json:"labels"`
		Value     string            `json:"value"`
		Timestamp float64           `json:"timestamp"`
	}
	lo, _ := strconv.ParseFloat(from, 64)
	hi, _ := strconv.ParseFloat(to, 64)
	var list []entry
	for at := start; !at.After(r.clock); at = at.Add(time.Minute) {
		if s := float64(at.Unix()); s >= lo && s <= hi {
			list = append(list, entry{map[string]string{"trace_id": at.Format("1504")}, "0.5", s})
		}
	}
	return []any{map[string]any{"seriesLabels": map[string]string{"__name__": "m", "job": "a"}, "exemplars": list}}
}

func (r *keeperRig) restart(t *testing.T) {
	prom, err := newClient(r.cfg.Prometheus)
	require.NoError(t, err)
	t.Cleanup(prom.CloseIdleConnections)
	r.reg = prometheus.NewRegistry()
	r.noteKeeper = newNoteKeeper(r.cfg, prom, r.bkt, slog.New(slog.DiscardHandler)).register(newMetrics(r.reg), r.reg)
	r.now = func() time.Time { return r.clock }
}

// pass lets a time go by, looking every 10 s.
func (r *keeperRig) pass(t *testing.T, d time.Duration) {
	for end := r.clock.Add(d); r.clock.Before(end); r.clock = r.clock.Add(10 * time.Second) {
		r.keep(t.Context())
	}
}

// note sends and reads the note on a block that begins at start.
func (r *keeperRig) note(t *testing.T, length time.Duration) *notes.Note {
	t.Helper()
	m := &block.Meta{MinTime: start.UnixMilli(), MaxTime: start.Add(length).UnixMilli()}
	require.NoError(t, r.send(t.Context(), m))
	n, err := notes.Read(t.Context(), r.bkt, m.ULID)
	require.NoError(t, err)
	return n
}

// TestNotesKept: each exemplar is kept once, though asked for several times and
// over restarts, and metadata with it.
func TestNotesKept(t *testing.T) {
	r := newKeeperRig(t)
	r.pass(t, 20*time.Minute)
	require.NoError(t, testutil.GatherAndCompare(r.reg, strings.NewReader(`
		# HELP firnline_notes_exemplars_total Exemplars kept until their block is shipped.
		# TYPE firnline_notes_exemplars_total counter
		firnline_notes_exemplars_total 20
	`), "firnline_notes_exemplars_total"), "none is written again")
	require.LessOrEqual(t, r.prom.count("/api/v1/query_exemplars"), int64(21))
	require.LessOrEqual(t, r.prom.count("/api/v1/metadata"), int64(5))
	r.restart(t) // without a close: killed
	r.pass(t, 10*time.Minute)
	n := r.note(t, time.Hour)
	require.Equal(t, 30, n.Exemplars())
	require.Equal(t, labels.FromStrings("__name__", "m", "job", "a"), n.Series[0].Labels)
	require.Equal(t, []notes.Family{{Name: "m", Type: "counter", Help: "How many.", Unit: "s"}}, n.Families)
	require.Equal(t, 5, r.note(t, 5*time.Minute).Exemplars())
}

// TestNotesAskedBeforeTheFirstBlock: a block that is shipped right after a start has what there is.
func TestNotesAskedBeforeTheFirstBlock(t *testing.T) {
	r := newKeeperRig(t)
	r.clock = start.Add(30 * time.Minute)
	require.Equal(t, 31, r.note(t, time.Hour).Exemplars())
}

// TestNotesWithoutStorage: a Prometheus that keeps no exemplars isn't asked for
// them, and metadata is kept all the same.
func TestNotesWithoutStorage(t *testing.T) {
	r := newKeeperRig(t)
	r.prom.set(func() { r.prom.mu.flags = map[string]string{"enable-feature": "st-storage"} })
	r.pass(t, 10*time.Minute)
	require.Zero(t, r.prom.count("/api/v1/query_exemplars"))
	require.Len(t, r.note(t, time.Hour).Families, 1)
	r.prom.set(func() { r.prom.mu.flags = map[string]string{"enable-feature": "st-storage,exemplar-storage"} })
	r.pass(t, 10*time.Minute)
	require.NotZero(t, r.prom.count("/api/v1/query_exemplars"))
}

// TestNotesPrometheusDown: a block is not held up, and what was missed is asked
// for when Prometheus is back.
func TestNotesPrometheusDown(t *testing.T) {
	r := newKeeperRig(t)
	r.prom.set(func() { r.prom.mu.down = true })
	require.NoError(t, r.send(t.Context(), &block.Meta{MinTime: start.UnixMilli(), MaxTime: start.UnixMilli() + 1}))
	require.Empty(t, r.bkt.Objects())
	r.pass(t, 10*time.Minute)
	require.Positive(t, testutil.ToFloat64(r.metrics.noteFailures))
	r.prom.set(func() { r.prom.mu.down = false })
	r.pass(t, 10*time.Minute)
	require.Equal(t, 20, r.note(t, time.Hour).Exemplars())
}

// TestNotesShipped: a running sidecar sends a note with a block.
func TestNotesShipped(t *testing.T) {
	prom, bkt := newFakeProm(t), bucket.NewMemory()
	prom.set(func() { prom.mu.metadata = map[string][]storeapi.Metadata{"up": {{Type: "gauge"}}} })
	cfg := testCfg(t, prom.URL)
	cfg.Shipper.Interval = model.Duration(time.Second)
	m := blocktest.Write(t, cfg.TSDBPath, []blocktest.Series{{
		Labels: labels.FromStrings("__name__", "up"), Samples: blocktest.Floats(0, 3_600_000, 60_000, func(int64) float64 { return 1 }),
	}}, labels.EmptyLabels(), blocktest.Options{})
	s := newShippingSidecar(t, cfg, bkt)
	runIt(t, s)
	require.Eventually(t, func() bool {
		ok, err := bkt.Exists(t.Context(), block.Name(m.ULID, block.MetaFilename))
		return err == nil && ok
	}, 3*time.Minute, 20*time.Millisecond)
	n, err := notes.Read(t.Context(), bkt, m.ULID)
	require.NoError(t, err)
	require.Equal(t, []notes.Family{{Name: "up", Type: "gauge"}}, n.Families)
}
