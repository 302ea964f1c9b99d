package sidecar

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/storeapi"
)

// sampleParts yields the series of a remote read that came as samples, one at a
// time, sorted by the labels that Prometheus stores, encoded into chunks.
type sampleParts struct {
	series []sampleSeries // left
	enc    storeapi.Encoder
}

type sampleSeries struct {
	stored  labels.Labels // sorted by
	labels  labels.Labels
	samples *prompb.TimeSeries
}

func newSampleParts(in []*prompb.TimeSeries, ext labels.Labels) *sampleParts {
	p := &sampleParts{series: make([]sampleSeries, len(in))}
	sb := labels.NewScratchBuilder(16)
	var b labels.Builder
	for i, ts := range in {
		lset := ts.ToLabels(&sb, nil)
		p.series[i] = sampleSeries{stored: strip(&b, lset, ext), labels: lset, samples: ts}
	}
	slices.SortFunc(p.series, func(a, b sampleSeries) int { return labels.Compare(a.stored, b.stored) })
	return p
}

// next returns one series, io.EOF after the last.
func (p *sampleParts) next(context.Context) ([]promapi.Part, error) {
	for len(p.series) > 0 {
		s := p.series[0]
		p.series[0] = sampleSeries{}
		p.series = p.series[1:]
		chunks, err := encode(&p.enc, s.samples)
		if err != nil {
			return nil, fmt.Errorf("series %s: %w", s.labels, err)
		}
		if len(chunks) > 0 {
			return []promapi.Part{{Labels: s.labels, Chunks: chunks}}, nil
		}
	}
	return nil, io.EOF
}

// encode turns floats and histograms, each sorted by time, into chunks.
func encode(enc *storeapi.Encoder, ts *prompb.TimeSeries) ([]storeapi.Chunk, error) {
	floats, hists := ts.Samples, ts.Histograms
	for len(floats) > 0 || len(hists) > 0 {
		var err error
		switch {
		case len(hists) == 0 || len(floats) > 0 && floats[0].Timestamp <= hists[0].Timestamp:
			err = enc.Float(0, floats[0].Timestamp, floats[0].Value)
			floats = floats[1:]
		case hists[0].IsFloatHistogram():
			err = enc.FloatHistogram(0, hists[0].Timestamp, hists[0].ToFloatHistogram())
			hists = hists[1:]
		default:
			err = enc.Histogram(0, hists[0].Timestamp, hists[0].ToIntHistogram())
			hists = hists[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return enc.Chunks(), nil
}
