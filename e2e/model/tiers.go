package model

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Delete takes the samples of all series that match out, from mint to maxt, ms,
// both inclusive.
func (m *Model) Delete(mint, maxt int64, matchers ...*labels.Matcher) {
	for _, s := range m.series {
		if matches(s.labels, matchers) {
			s.samples = slices.DeleteFunc(s.samples, func(have Sample) bool { return mint <= have.Time && have.Time <= maxt })
		}
	}
}

// Window is what downsampling keeps of the samples of some time.
type Window struct {
	Count         float64 // samples
	Sum, Min, Max float64 // of floats

	Observations, Observed float64 // sums of the counts and sums of histograms
	Last                   float64 // floats as a counter that is never reset, at the end of the window
	floats                 bool
}

// Windows sorts samples, in order of time, into windows by their beginning. NaN
// and stale markers don't count.
func Windows(samples []Sample, length int64) map[int64]Window {
	out := map[int64]Window{}
	var counter, before float64
	for _, s := range samples {
		if s.stale() || s.float() == nil && math.IsNaN(s.Value) {
			continue
		}
		start := s.Time - s.Time%length
		if h := s.float(); h != nil {
			out[start] = out[start].Join(Window{Count: 1, Observations: h.Count, Observed: h.Sum})
			continue
		}
		if s.Value < before {
			before = 0
		}
		counter, before = counter+s.Value-before, s.Value
		out[start] = out[start].Join(Window{Count: 1, Sum: s.Value, Min: s.Value, Max: s.Value, Last: counter, floats: true})
	}
	return out
}

// Join is the window of the samples of both, of which b's are later.
func (w Window) Join(b Window) Window {
	if w.floats && b.floats {
		b.Min, b.Max = min(w.Min, b.Min), max(w.Max, b.Max)
	} else if w.floats {
		b.Min, b.Max, b.Last, b.floats = w.Min, w.Max, w.Last, true
	}
	b.Count += w.Count
	b.Sum += w.Sum
	b.Observations += w.Observations
	b.Observed += w.Observed
	return b
}

// Same compares all but Last, which two readers may begin at different values.
func (w Window) Same(b Window) bool {
	return sameNumber(w.Count, b.Count) && sameNumber(w.Sum, b.Sum) && sameNumber(w.Min, b.Min) && sameNumber(w.Max, b.Max) &&
		sameNumber(w.Observations, b.Observations) && sameNumber(w.Observed, b.Observed)
}

func sameNumber(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
