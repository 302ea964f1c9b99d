package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/compact"
	"github.com/firnline/firnline/pkg/store/internal/notereader"
	"github.com/firnline/firnline/pkg/storeapi"
)

const hourMs = int64(3_600_000)

// noted is a bucket with notes, into which blocks of two hours are shipped as a sidecar does.
type noted struct {
	*testing.T
	bkt   *watched
	begin int64 // ms, of a window of 14 days
	clock time.Time
}

func newNoted(t *testing.T) *noted {
	n := &noted{T: t, bkt: newWatched(), begin: 14 * 24 * hourMs * 1460}
	n.clock = time.UnixMilli(n.begin + 5*24*hourMs)
	n.bkt.SetClock(func() time.Time { return n.clock })
	return n
}

// trace is the exemplar of a series at ms.
func trace(ms int64) exemplar.Exemplar {
	return exemplar.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprint(ms)), Value: 1, Ts: ms, HasTs: true}
}

// ship cuts blocks of two hours, with an exemplar in the middle of each, and
// ships them with their notes; the metric's help says of which hour it is.
func (n *noted) ship(hours int64, ext labels.Labels, metric string) {
	n.Helper()
	dir, reg := n.TempDir(), prometheus.NewRegistry()
	var logCfg notes.Config
	logCfg.RegisterFlags("", flag.NewFlagSet("", flag.ContinueOnError))
	log, err := notes.OpenLog(n.TempDir(), logCfg, notes.NewMetrics(reg), n.clock)
	require.NoError(n, err)
	defer log.Close()
	var cfg block.ShipperConfig
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.RegisterFlags(fs)
	shipper := block.NewShipper(cfg, block.ShipperParts{
		Dir: dir, Bucket: n.bkt, Labels: func() labels.Labels { return ext }, Source: block.SourceSidecar,
		Log: slog.New(slog.DiscardHandler), Metrics: reg, Notes: log.Hook(n.bkt),
	})
	shipper.SetClock(func() time.Time { return n.clock.Add(-time.Hour) })
	lset := labels.FromStrings("__name__", metric)
	for h := int64(0); h < hours; h += 2 {
		from, to := n.begin+h*hourMs, n.begin+(h+2)*hourMs
		require.NoError(n, log.Mention([]notes.Family{{Name: metric, Type: "counter", Help: fmt.Sprintf("Day %d.", h/24)}}, n.clock))
		require.NoError(n, log.Add([]notes.Series{{Labels: lset, Exemplars: []exemplar.Exemplar{trace(from + hourMs)}}}))
		blocktest.Write(n, dir, []blocktest.Series{{Labels: lset, Samples: blocktest.Floats(from, to, 300_000, func(t int64) float64 { return float64(t) })}},
			labels.EmptyLabels(), blocktest.Options{ID: ulid.MustNew(uint64(to), strings.NewReader(metric+"0123456789")), MinTime: from, MaxTime: to})
		_, err = shipper.Sync(n.Context())
		require.NoError(n, err)
	}
}

// compact makes one pass, some time later.
func (n *noted) compact(later time.Duration) {
	n.Helper()
	n.clock = n.clock.Add(later)
	var cfg compact.Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.RegisterFlags(fs)
	cfg.DataDir, cfg.Blocks.GoneDelay = n.TempDir(), 0
	c, err := compact.New(cfg, compact.Parts{Bucket: n.bkt, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: func() time.Time { return n.clock }})
	require.NoError(n, err)
	defer func() { require.NoError(n, c.Close()) }()
	require.NoError(n, c.Once(n.Context()))
}

// gateway returns one that has looked into the bucket, without the wait for fresh blocks.
func (n *noted) gateway(args ...string) *Store {
	n.Helper()
	return newGateway(n, n.bkt, append([]string{"--consistency-delay=0s"}, args...)...)
}

// traces lists the trace IDs of an answer, as hours after the beginning.
func (n *noted) traces(list []storeapi.ExemplarSeries) (out []int64) {
	for _, s := range list {
		for _, e := range s.Exemplars {
			out = append(out, (e.Ts-n.begin)/hourMs)
		}
	}
	return out
}

// TestNotesOfCompactedBlocks: exemplars and metadata are there for blocks as
// they were shipped, and when two rounds of compaction and downsampling have
// made others of them.
func TestNotesOfCompactedBlocks(t *testing.T) {
	n := newNoted(t)
	n.ship(48, labels.FromStrings("cluster", "a"), "m_total")
	for _, later := range []time.Duration{0, time.Hour, 49 * time.Hour, 49 * time.Hour} {
		if later > 0 {
			n.compact(later)
		}
		s := n.gateway()
		got, warnings, err := s.Exemplars(t.Context(), "rate(m_total[5m])", n.begin+3*hourMs, n.begin+9*hourMs, false)
		require.NoError(t, err)
		require.Empty(t, warnings)
		require.Equal(t, []int64{3, 5, 7, 9}, n.traces(got), "after %s", later)
		require.Equal(t, labels.FromStrings("__name__", "m_total", "cluster", "a"), got[0].SeriesLabels)
		require.True(t, got[0].Exemplars[0].Equals(trace(n.begin+3*hourMs)))
		meta, _, err := s.Metadata(t.Context(), "", -1, false)
		require.NoError(t, err)
		require.ElementsMatch(t, []storeapi.Metadata{{Type: "counter", Help: "Day 0."}, {Type: "counter", Help: "Day 1."}}, meta["m_total"])
	}
	v := n.gateway().view.Load()
	require.Less(t, len(v.blocks), 24, "they were compacted")
}

// TestExemplarsChoose: by matchers, external labels and time, and never what is deleted.
func TestExemplarsChoose(t *testing.T) {
	n := newNoted(t)
	n.ship(4, labels.FromStrings("cluster", "a"), "x")
	n.ship(4, labels.FromStrings("cluster", "b"), "y")
	s := n.gateway()
	for query, want := range map[string][]int64{
		`x`: {1, 3}, `x or y`: {1, 3, 1, 3}, `{cluster="b"}`: {1, 3}, `x{cluster="b"}`: nil, `{__name__=~".+",cluster=~"a|b"}`: {1, 3, 1, 3}, `z`: nil,
	} {
		got, _, err := s.Exemplars(t.Context(), query, math.MinInt64, math.MaxInt64, false)
		require.NoError(t, err, query)
		require.Equal(t, want, n.traces(got), query)
	}
	got, _, err := s.Exemplars(t.Context(), "x", n.begin+hourMs, n.begin+hourMs, false)
	require.NoError(t, err)
	require.Equal(t, []int64{1}, n.traces(got), "both ends are inclusive")
	got, _, err = s.Exemplars(t.Context(), "x", n.begin+hourMs+1, n.begin+3*hourMs-1, false)
	require.NoError(t, err)
	require.Empty(t, got)
	_, _, err = s.Exemplars(t.Context(), "x{", 0, 1, true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)

	_, err = block.CreateDelete(t.Context(), n.bkt, block.DeleteRequest{Selectors: []string{`{__name__=~"x|y",cluster="b"}`}, MinTime: n.begin, MaxTime: n.begin + 2*hourMs})
	require.NoError(t, err)
	got, _, err = n.gateway().Exemplars(t.Context(), "x or y", math.MinInt64, math.MaxInt64, false)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 3, 3}, n.traces(got), "what is deleted is not shown")

	limited := n.gateway("--store.limits.request-exemplars=2")
	_, _, err = limited.Exemplars(t.Context(), "x or y", math.MinInt64, math.MaxInt64, true)
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, flagRequestExemplars)
	limited = n.gateway("--store.grpc.downloaded-bytes-limit=10B")
	_, _, err = limited.Exemplars(t.Context(), "x", math.MinInt64, math.MaxInt64, true)
	require.ErrorIs(t, err, storeapi.ErrLimit)
}

// TestMetadataChooses: a metric, a limit, and what all blocks of other times say.
func TestMetadataChooses(t *testing.T) {
	n := newNoted(t)
	n.ship(4, labels.FromStrings("cluster", "a"), "x")
	n.ship(4, labels.FromStrings("cluster", "b"), "y")
	s := n.gateway()
	for _, c := range []struct {
		metric string
		limit  int
		want   []string
	}{{"", -1, []string{"x", "y"}}, {"", 1, []string{"x"}}, {"", 0, nil}, {"y", -1, []string{"y"}}, {"z", -1, nil}} {
		got, _, err := s.Metadata(t.Context(), c.metric, c.limit, false)
		require.NoError(t, err)
		require.Equal(t, c.want, slices.Sorted(maps.Keys(got)), "%+v", c)
	}
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.True(t, info.Services.Metadata && info.Services.Exemplars)
	require.Equal(t, n.begin, info.Services.ExemplarsMint)

	full := n.gateway("--store.notes.max-metadata=1")
	n.bkt.Memory.SetClock(func() time.Time { return n.clock })
	require.NoError(t, notes.Upload(t.Context(), n.bkt, lastSource(full), &notes.Note{Families: []notes.Family{{Name: "p"}, {Name: "q"}}}))
	got, warnings, err := full.Metadata(t.Context(), "", -1, true)
	require.NoError(t, err)
	require.Len(t, got, 2, "one of each group")
	require.ElementsMatch(t, []string{`metadata of {cluster="b"}: more than --store.notes.max-metadata=1`}, warnings)
}

// lastSource is the last block of the last group.
func lastSource(s *Store) ulid.ULID {
	g := s.view.Load().groups
	blocks := g[len(g)-1].blocks
	return blocks[len(blocks)-1].meta.ULID
}

// TestNotesUnreadable: a note that can't be read is a warning that names it, or
// an error where no part may be missing; one that isn't there is neither.
func TestNotesUnreadable(t *testing.T) {
	n := newNoted(t)
	n.ship(6, labels.FromStrings("cluster", "a"), "x")
	s := n.gateway()
	bad := lastSource(s)
	require.NoError(t, n.bkt.Upload(t.Context(), notes.Name(bad), strings.NewReader("nonsense")))
	require.NoError(t, notes.Remove(t.Context(), n.bkt, s.view.Load().blocks[0].meta.ULID))
	all := func(partial bool) ([]storeapi.ExemplarSeries, []string, error) {
		return s.Exemplars(t.Context(), "x", math.MinInt64, math.MaxInt64, partial)
	}
	got, warnings, err := all(true)
	require.NoError(t, err)
	require.Equal(t, []int64{3}, n.traces(got))
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], bad.String())
	_, _, err = all(false)
	require.ErrorIs(t, err, block.ErrCorrupt)
	_, _, err = s.Metadata(t.Context(), "", -1, false)
	require.ErrorIs(t, err, block.ErrCorrupt)

	down := n.gateway()
	n.bkt.listErr = errors.New("access denied")
	s = down
	_, warnings, err = all(true)
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	_, _, err = all(false)
	require.ErrorContains(t, err, "access denied")
}

// TestNotesAreReadOnce: a listing and what is cached do for all requests, and a
// note is read for metadata once a day of its blocks.
func TestNotesAreReadOnce(t *testing.T) {
	n := newNoted(t)
	n.ship(48, labels.FromStrings("cluster", "a"), "x")
	s := n.gateway()
	reads := 0
	count := &countingBucket{watched: n.bkt, get: func(name string) {
		if strings.HasPrefix(name, "firnline/notes/") {
			reads++
		}
	}}
	var err error
	s.notes, err = notereader.New(s.cfg.notes(), count, prometheus.NewRegistry(), s.now)
	require.NoError(t, err)
	for range 3 {
		_, _, err := s.Metadata(t.Context(), "", -1, false)
		require.NoError(t, err)
	}
	require.Equal(t, 3, reads, "two days and the block cut as the third began")
	for range 3 {
		_, _, err := s.Exemplars(t.Context(), "x", n.begin, n.begin+48*hourMs, false)
		require.NoError(t, err)
	}
	require.Equal(t, 24, reads)
}

// TestLastOfDays against the obvious.
func TestLastOfDays(t *testing.T) {
	day := uint64(24 * hourMs)
	at := func(ms uint64) ulid.ULID { return ulid.MustNew(ms, nil) }
	require.Empty(t, lastOfDays(nil))
	require.Equal(t, []ulid.ULID{at(day - 1), at(day + 5), at(9 * day)}, lastOfDays([]ulid.ULID{at(9 * day), at(1), at(day + 5), at(day), at(day - 1)}))
}

// countingBucket tells of each whole read.
type countingBucket struct {
	*watched
	get func(name string)
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.watched.mu.Lock()
	b.get(name)
	b.watched.mu.Unlock()
	return b.watched.Get(ctx, name)
}
