package store

import (
	"flag"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// newConfig are the defaults, with args set.
func newConfig(t testing.TB, args ...string) Config {
	t.Helper()
	var cfg Config
	fs := flag.NewFlagSet("store", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.RegisterFlags(fs)
	cfg.DataDir = t.TempDir()
	require.NoError(t, fs.Parse(args))
	return cfg
}

// newGateway returns a Store that has looked into bkt once.
func newGateway(t testing.TB, bkt block.Bucket, args ...string) *Store {
	t.Helper()
	return newGatewayOf(t, bkt, newConfig(t, args...))
}

func newGatewayOf(t testing.TB, bkt block.Bucket, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg, bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	s.now = standing()
	require.NoError(t, s.sync(t.Context()))
	t.Cleanup(s.dropAll)
	return s
}

// standing is a clock that stands still, so that the minute for which a broken
// block is left alone is never over before a test is.
func standing() func() time.Time {
	at := time.Now()
	return func() time.Time { return at }
}

// upload writes a block and sends it to bkt.
func upload(t testing.TB, bkt block.Bucket, series []blocktest.Series, ext labels.Labels, opts blocktest.Options) block.Meta {
	t.Helper()
	dir := t.TempDir()
	return blocktest.Upload(t, bkt, dir, blocktest.Write(t, dir, series, ext, opts))
}

func conformanceSeries(in storetest.Input) (out []blocktest.Series) {
	for _, s := range in.Series {
		series := blocktest.Series{Labels: s.Labels.WithoutEmpty()} // as a TSDB has them
		for _, p := range s.Samples {
			series.Samples = append(series.Samples, blocktest.Sample{T: p.T, F: p.V, H: p.H, FH: p.FH})
		}
		out = append(out, series)
	}
	return out
}

func TestConformance(t *testing.T) {
	for name, opts := range map[string][]string{
		"defaults":     nil,
		"small steps":  {"--debug.series-batch-size=3", "--store.chunk-window-size=100", "--debug.estimated-max-series-size=16", "--store.read-gap=0", "--store.read-size=50", "--index-cache-size=0"},
		"lazy headers": {"--store.index-header-lazy-download-strategy=lazy"},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
				bkt := bucket.NewMemory()
				upload(t, bkt, conformanceSeries(in), in.External, blocktest.Options{SamplesPerChunk: 40, SegmentBytes: 4096})
				return newGateway(t, bkt, opts...)
			})
		})
	}
}
