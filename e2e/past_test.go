package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/model"
	"github.com/firnline/firnline/e2e/stack"
)

const (
	pastStep  = 2 * time.Minute  // between two samples of a series
	pastShift = 37 * time.Second // of a sample, behind a full two minutes
)

// pastStart is where made-up history begins: at the start of a window of 14 days.
var pastStart = time.UnixMilli(14 * 24 * 3600 * 1000 * 1440).UTC()

// past makes up what a pair of Prometheus servers has seen, and writes it into
// real ones: the same samples into both, but for the gaps that each of them has.
// The model gets what at least one of them took.
type past struct {
	t       *testing.T
	rnd     *rand.Rand
	pair    []*stack.Prometheus
	model   *model.Model
	sources []*pastSource
	longest time.Duration // block
	next    time.Time     // of the samples not yet written
}

type pastSource struct {
	lset   labels.Labels
	sample func() model.Sample // without its time
	absent int                 // samples still to be missed
	flaps  bool                // goes away now and then, for both servers
}

func newPast(t *testing.T, m *model.Model, longest time.Duration, pair ...*stack.Prometheus) *past {
	p := &past{t: t, longest: longest, rnd: rand.New(rand.NewPCG(7, 60)), pair: pair, model: m, next: pastStart.Add(pastShift)}
	add := func(sample func() model.Sample, flaps bool, lset ...string) {
		p.sources = append(p.sources, &pastSource{lset: labels.FromStrings(lset...), sample: sample, flaps: flaps})
	}
	for i, namespace := range []string{"prod", "prod", "dev"} {
		pod := fmt.Sprint("pod-", i)
		add(p.steady(7), false, "__name__", "requests_total", "pod", pod, "namespace", namespace)
		add(p.unsteady(), false, "__name__", "jobs_total", "pod", pod, "namespace", namespace)
		add(p.gauge(), false, "__name__", "queue", "pod", pod, "namespace", namespace)
		add(p.gauge(), true, "__name__", "flapping", "pod", pod, "namespace", namespace)
		for at, le := range []string{"0.1", "1", "10", "+Inf"} {
			add(p.steady(float64(2+3*at)), false, "__name__", "latency_bucket", "pod", pod, "namespace", namespace, "le", le)
		}
		add(p.native(false), false, "__name__", "size", "pod", pod, "namespace", namespace)
		add(p.native(true), false, "__name__", "custom", "pod", pod, "namespace", namespace)
	}
	return p
}

// steady counts the same amount in each step, and begins anew now and then.
func (p *past) steady(by float64) func() model.Sample {
	v := 0.0
	return func() model.Sample {
		if v += by; p.rnd.IntN(3000) == 0 {
			v = by
		}
		return model.Sample{Value: v}
	}
}

// mostJobs is the most that unsteady counts in a step.
const mostJobs = 19

func (p *past) unsteady() func() model.Sample {
	v := 0.0
	return func() model.Sample {
		if v += float64(p.rnd.IntN(mostJobs + 1)); p.rnd.IntN(700) == 0 {
			v = float64(p.rnd.IntN(3))
		}
		return model.Sample{Value: v}
	}
}

// gauge has whole numbers, so that sums are exact in whatever order.
func (p *past) gauge() func() model.Sample {
	v := 100.0
	return func() model.Sample {
		v += float64(p.rnd.IntN(21) - 10)
		return model.Sample{Value: v}
	}
}

// native is a histogram that sees the same observations in each step.
func (p *past) native(customBuckets bool) func() model.Sample {
	n := int64(0)
	return func() model.Sample {
		if n++; p.rnd.IntN(3000) == 0 {
			n = 1
		}
		h := &histogram.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(n), Count: uint64(8 * n), Sum: float64(21 * n),
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{2 * n, 2 * n, -3 * n},
		}
		if customBuckets {
			h.Schema, h.ZeroThreshold, h.ZeroCount, h.Count = histogram.CustomBucketsSchema, 0, 0, uint64(7*n)
			h.CustomValues = []float64{0.1, 1, 10}
		}
		return model.Sample{Hist: h}
	}
}

// away tells whether one of the servers is down: each for five hours at a time,
// at different ones.
func away(server int, t time.Time) bool {
	hours := int(t.Sub(pastStart) / time.Hour)
	return hours%(24*4) >= 13+37*server && hours%(24*4) < 18+37*server
}

// write makes up samples until a time and so far beyond it that blocks are cut up
// to there.
func (p *past) write(until time.Time) {
	p.t.Helper()
	const batch = time.Hour // no server takes what is much older than the newest it has
	for end := until.Add(p.longest * 3 / 2).Add(pastStep); p.next.Before(end); {
		requests := make([][]prompb.TimeSeries, len(p.pair))
		for stop := p.next.Add(batch); p.next.Before(stop); p.next = p.next.Add(pastStep) {
			for i, s := range p.sources {
				sample, ok := s.at(p.rnd, p.next)
				if !ok {
					continue
				}
				for server := range p.pair {
					if !away(server, p.next) {
						requests[server] = put(requests[server], len(p.sources), i, s.lset, sample)
					}
				}
				p.model.Add(labels.FromStrings("cluster", "eu"), s.lset, sample)
			}
		}
		for server, series := range requests {
			series = slices.DeleteFunc(series, func(s prompb.TimeSeries) bool { return len(s.Samples)+len(s.Histograms) == 0 })
			if len(series) > 0 {
				require.NoError(p.t, p.pair[server].Write(p.t.Context(), series))
			}
		}
	}
}

func (s *pastSource) at(rnd *rand.Rand, t time.Time) (model.Sample, bool) {
	sample := s.sample()
	sample.Time = t.UnixMilli()
	if s.absent > 0 {
		s.absent--
		return sample, false
	}
	if s.flaps && rnd.IntN(100) == 0 {
		s.absent = 1 + rnd.IntN(60)
		sample.Value = math.Float64frombits(value.StaleNaN)
	}
	return sample, true
}

// put adds a sample to the i-th of n series.
func put(series []prompb.TimeSeries, n, i int, lset labels.Labels, s model.Sample) []prompb.TimeSeries {
	if series == nil {
		series = make([]prompb.TimeSeries, n)
	}
	if series[i].Labels == nil {
		series[i].Labels = prompb.FromLabels(lset, nil)
	}
	if s.Hist != nil {
		series[i].Histograms = append(series[i].Histograms, prompb.FromIntHistogram(s.Time, s.Hist))
	} else {
		series[i].Samples = append(series[i].Samples, prompb.Sample{Timestamp: s.Time, Value: s.Value})
	}
	return series
}
