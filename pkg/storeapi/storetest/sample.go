package storetest

import (
	"cmp"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Sample is a float, or a histogram where one of H and FH is set.
type Sample struct {
	ST, T int64 // start timestamp (0: none) and timestamp, ms
	V     float64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Series is a series as its owner stores it: without external labels.
type Series struct {
	Labels  labels.Labels
	Samples []Sample // by T
}

// Chunks encodes samples. Start timestamps are kept when withST is set, by
// encodings XOR2 and the two ST histograms. At most perChunk samples (0: 120) go
// into a chunk.
func Chunks(t testing.TB, samples []Sample, withST bool, perChunk int) []storeapi.Chunk {
	t.Helper()
	enc := storeapi.Encoder{StartTimestamps: withST, MaxSamples: perChunk}
	for _, s := range samples {
		switch {
		case s.H != nil:
			require.NoError(t, enc.Histogram(s.ST, s.T, s.H.Copy()))
		case s.FH != nil:
			require.NoError(t, enc.FloatHistogram(s.ST, s.T, s.FH.Copy()))
		default:
			require.NoError(t, enc.Float(s.ST, s.T, s.V))
		}
	}
	return enc.Chunks()
}

// Samples decodes raw chunks into samples in [mint, maxt], sorted by time and
// value, equal ones once. Counter reset hints are cleared, since they depend on
// where chunks were cut, but for those of gauges.
func Samples(t testing.TB, chunks []storeapi.Chunk, mint, maxt int64) []Sample {
	t.Helper()
	var out []Sample
	for _, c := range chunks {
		require.Nil(t, c.Aggr, "a raw chunk is expected")
		out = append(out, decode(t, c.Raw, mint, maxt)...)
	}
	return tidy(out)
}

func decode(t testing.TB, d storeapi.Data, mint, maxt int64) (out []Sample) {
	t.Helper()
	c, err := d.Chunk()
	require.NoError(t, err)
	it := c.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		s := Sample{ST: it.AtST(), T: it.AtT()}
		if s.T < mint || s.T > maxt {
			continue
		}
		switch typ {
		case chunkenc.ValFloat:
			_, s.V = it.At()
		case chunkenc.ValHistogram:
			_, s.H = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, s.FH = it.AtFloatHistogram(nil)
		}
		out = append(out, normal(s))
	}
	require.NoError(t, it.Err())
	return out
}

// tidy sorts samples by time and value and drops repeated ones; of histograms
// with the same time the first is kept.
func tidy(samples []Sample) []Sample {
	slices.SortStableFunc(samples, func(a, b Sample) int { return cmp.Or(cmp.Compare(a.T, b.T), cmp.Compare(a.V, b.V)) })
	return slices.CompactFunc(samples, func(a, b Sample) bool { return a.T == b.T && a.V == b.V })
}

// normal returns the sample as it compares: histograms compact, without hints
// that depend on neighbours.
func normal(s Sample) Sample {
	if s.H != nil {
		h := s.H.Copy().Compact(0)
		if h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		s.H = h
	}
	if s.FH != nil {
		h := s.FH.Copy().Compact(0)
		if h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		s.FH = h
	}
	return s
}

// Within returns the samples with a time in [mint, maxt], comparable with what Samples returns.
func Within(samples []Sample, mint, maxt int64) (out []Sample) {
	for _, s := range samples {
		if s.T >= mint && s.T <= maxt {
			out = append(out, normal(s))
		}
	}
	return out
}
