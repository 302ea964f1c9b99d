package e2e

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/e2e/model"
	"github.com/firnline/firnline/e2e/stack"
)

// nearness is how near to the model's an answer must be. All ranges over
// downsampled data begin and end with windows, so that each window lies in them
// or does not.
type nearness uint8

const (
	// equal: bit for bit, which is how raw data is to be answered.
	equal nearness = iota
	// exact: count, sum, minimum, maximum and average of whole windows are those
	// of the samples, and so are ratios of rates.
	exact
	// steady: of a counter a window shows the last value as that of the window's
	// end, up to one step of its samples late, where its chunk does not end; so a
	// slope is off by a step in the distance from the first window's end to the
	// last one's. Where a range holds more samples than windows, because a chunk
	// begins in it or part of it is raw, PromQL goes half a distance between samples
	// beyond the first of them, which may be a window from the range's start: there
	// the rate may lack a window.
	steady
	// bursty: of any other counter also what it grew in the first window is
	// guessed, as PromQL does: like the average of the other windows.
	bursty
)

// pastQuery is one of the fixed suite: $m stands for matchers, $r for the range.
type pastQuery struct {
	expr string
	near nearness
}

// rawQueries are asked where raw data is kept.
var rawQueries = []pastQuery{
	{`{__name__=~"queue|flapping|requests_total|latency_bucket",$m}`, equal},
	{`sum_over_time(count({$m})[1h:5m])`, equal},
	{`rate(requests_total{$m}[10m])`, equal},
	{`irate(jobs_total{$m}[6m])`, equal},
	{`increase(jobs_total{$m}[1h])`, equal},
	{`resets(jobs_total{$m}[1d])`, equal},
	{`changes(queue{$m}[30m])`, equal},
	{`deriv(queue{$m}[30m])`, equal},
	{`avg_over_time(flapping{$m}[1h])`, equal},
	{`quantile_over_time(0.5, queue{$m}[2h])`, equal},
	{`max_over_time(rate(requests_total{$m}[10m])[2h:10m])`, equal},
	{`histogram_quantile(0.9, sum by (le) (rate(latency_bucket{$m}[20m])))`, equal},
	{`histogram_quantile(0.9, rate(size{$m}[30m]))`, equal},
	{`histogram_sum(increase(custom{$m}[1h]))`, equal},
	{`histogram_count(size{$m})`, equal},
	{`sum by (namespace) (queue{$m})`, equal},
}

var windowQueries = []pastQuery{
	{`count_over_time(queue{$m}[$r])`, exact},
	{`count_over_time(flapping{$m}[$r])`, exact},
	{`count_over_time(size{$m}[$r])`, exact},
	{`sum_over_time(queue{$m}[$r])`, exact},
	{`sum_over_time(flapping{$m}[$r])`, exact},
	{`min_over_time(queue{$m}[$r])`, exact},
	{`max_over_time(flapping{$m}[$r])`, exact},
	{`max_over_time(jobs_total{$m}[$r])`, exact},
	{`avg_over_time(queue{$m}[$r])`, exact},
	{`avg_over_time(flapping{$m}[$r])`, exact},
	{`sum by (namespace) (sum_over_time(queue{$m}[$r])) / sum by (namespace) (count_over_time(queue{$m}[$r]))`, exact},
	{`histogram_count(sum_over_time(size{$m}[$r]))`, exact},
	{`histogram_sum(sum_over_time(custom{$m}[$r]))`, exact},
	{`histogram_quantile(0.9, sum by (le) (rate(latency_bucket{$m}[$r])))`, exact},
	{`histogram_quantile(0.9, rate(size{$m}[$r]))`, exact},
	{`histogram_quantile(0.3, rate(custom{$m}[$r]))`, exact},
	{`rate(requests_total{$m}[$r])`, steady},
	{`increase(requests_total{$m}[$r])`, steady},
	{`sum by (le) (rate(latency_bucket{$m}[$r]))`, steady},
	{`histogram_count(increase(size{$m}[$r]))`, steady},
	{`histogram_sum(rate(custom{$m}[$r]))`, steady},
	{`increase(jobs_total{$m}[$r])`, bursty},
}

// span is where a suite is asked: at each step of [from, to].
type span struct {
	from, to   time.Time
	step, rng  time.Duration // rng: $r
	resolution time.Duration // coarsest to be read
}

// points are series by name, values by time in ms.
type points map[string]map[int64]float64

// known is what the model has answered so far: it never changes.
type known struct {
	until  time.Time
	points points
}

// want asks the model, for times since it was asked the same before.
func (h *history) want(expr string, s span) points {
	h.t.Helper()
	key := expr + s.step.String()
	k := h.known[key]
	if k == nil {
		k = &known{until: s.from.Add(-s.step), points: points{}}
		h.known[key] = k
	}
	if from := k.until.Add(s.step); !from.After(s.to) {
		matrix, err := h.engine.Range(h.t.Context(), h.model, expr, model.Steps{Start: from, End: s.to, Step: s.step})
		require.NoError(h.t, err)
		for _, series := range matrix {
			require.Empty(h.t, series.Histograms, expr)
			name := series.Metric.String()
			if k.points[name] == nil {
				k.points[name] = map[int64]float64{}
			}
			for _, p := range series.Floats {
				k.points[name][p.T] = p.F
			}
		}
		k.until = s.to
	}
	return k.points.since(s.from)
}

// since returns the values from a time on.
func (p points) since(from time.Time) points {
	out := points{}
	for name, values := range p {
		for t, v := range values {
			if t < from.UnixMilli() {
				continue
			}
			if out[name] == nil {
				out[name] = map[int64]float64{}
			}
			out[name][t] = v
		}
	}
	return out
}

// got asks a querier. It is safe for concurrent use.
func (h *history) got(q *stack.Firnline, expr string, s span) (points, error) {
	params := rangeParams(expr, s.from, s.to, s.step)
	params.Set("max_source_resolution", s.resolution.String())
	params.Set("partial_response", "false")
	a, err := stack.Ask(h.t.Context(), "http://"+q.HTTP, "query_range", params)
	if err != nil {
		return nil, err
	}
	r, err := a.Result()
	if err != nil {
		return nil, err
	}
	for _, w := range a.Warnings {
		if !strings.Contains(w, "PromQL") {
			return nil, fmt.Errorf("a warning about data: %s", w)
		}
	}
	out := points{}
	for _, series := range r.Result {
		if len(series.Histograms) > 0 {
			return nil, fmt.Errorf("histograms in %v", series.Metric)
		}
		values := map[int64]float64{}
		for _, v := range series.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			if err != nil {
				return nil, err
			}
			values[int64(math.Round(v[0].(float64)*1000))] = f
		}
		out[labels.FromMap(series.Metric).String()] = values
	}
	return out, nil
}

// compareSuite asks all of it for the namespaces that matchers choose, some
// queries at once.
func (h *history) compareSuite(queries []pastQuery, matcher string, s span) {
	h.t.Helper()
	var asking errgroup.Group
	asking.SetLimit(4)
	for _, q := range queries {
		expr := strings.NewReplacer("$m", matcher, "$r", promDuration(s.rng)).Replace(q.expr)
		want := h.want(expr, s)
		require.NotEmpty(h.t, want, expr)
		for i, querier := range h.queriers {
			// Marked raw blocks, still there, can fill what is a gap in the downsampled
			// data: in a window that has a part of a gap, the samples would count with
			// the window and by themselves.
			if s.resolution > 0 && i != len(h.queriers)-1 {
				continue
			}
			asking.Go(func() error {
				got, err := h.got(querier, expr, s)
				if err == nil {
					err = h.compare(q, s, want, got)
				}
				if err != nil {
					h.t.Errorf("%s, asked of %s on day %s: %s", expr, querier.Name, days(h.now.UnixMilli()), err)
				}
				return nil
			})
		}
	}
	_ = asking.Wait() // what is wrong was told
}

// compare says what is wrong with an answer.
func (h *history) compare(q pastQuery, s span, want, got points) error {
	if a, b := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		return fmt.Errorf("series are %s, want %s", b, a)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		times := maps.Clone(want[name])
		maps.Copy(times, got[name])
		var wrong []string
		off := 0
		for _, t := range slices.Sorted(maps.Keys(times)) {
			w, there := want[name][t]
			g, answered := got[name][t]
			if there != answered || !q.closeTo(s, w, g) {
				wrong = append(wrong, fmt.Sprintf("day %s: %s, want %s", days(t), shown(g, answered), shown(w, there)))
			}
			if q.near == steady && g < w*(1-pastStep.Seconds()/(s.rng-s.resolution).Seconds()-rounding) {
				off++
			}
		}
		if len(wrong) > 0 {
			return fmt.Errorf("%s: %d of %d steps are wrong:\n%s", name, len(wrong), len(times), strings.Join(wrong[:min(5, len(wrong))], "\n"))
		}
		if q.near != steady {
			continue
		}
		if most := h.edgeAllowance(s, len(times)); off > most {
			return fmt.Errorf("%s: %d of %d steps lack something, at most %d may", name, off, len(times), most)
		}
	}
	return nil
}

func shown(v float64, there bool) string {
	if !there {
		return "nothing"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// rounding is what sums and quotients may differ by, since they are not made in
// the same order.
const rounding = 1e-9

// closeTo tells whether an answer is as near to the model's as its query allows.
func (q pastQuery) closeTo(s span, want, got float64) bool {
	window := max(s.resolution, pastStep)
	switch q.near {
	case steady:
		late := pastStep.Seconds()/(s.rng-window).Seconds() + rounding
		return got >= want*(1-late-window.Seconds()/s.rng.Seconds()) && got <= want*(1+late)
	case bursty:
		most, n := mostJobs*float64(window/pastStep), float64(s.rng/window)
		return math.Abs(got-want) <= most*n/(n-1)+2*mostJobs
	}
	return math.Float64bits(got) == math.Float64bits(want) || math.IsNaN(got) && math.IsNaN(want) ||
		q.near == exact && math.Abs(got-want) <= rounding*math.Abs(want)
}

// edgeAllowance is how many of so many steady answers may lack something: those
// over ranges in which a chunk begins, which has about 130 windows, or the
// resolution changes.
func (h *history) edgeAllowance(s span, steps int) int {
	chunks := s.rng.Seconds() / (130 * s.resolution.Seconds())
	resolutions := float64(len(h.edges[s.resolution])) * s.rng.Seconds() / s.step.Seconds()
	return int(float64(steps)*(chunks+0.1)+resolutions) + 1
}

func promDuration(d time.Duration) string { return fmt.Sprintf("%dm", d/time.Minute) }

// edgesOf returns the times at which the coarsest resolution of the blocks, up to a
// given one, changes.
func edgesOf(blocks []stored, most time.Duration) (out []int64) {
	at := func(t int64) int64 {
		best := int64(-1)
		for _, b := range blocks {
			if b.MinTime <= t && t < b.MaxTime && b.Resolution() <= most.Milliseconds() {
				best = max(best, b.Resolution())
			}
		}
		return best
	}
	var all []int64
	for _, b := range blocks {
		all = append(all, b.MinTime, b.MaxTime)
	}
	slices.Sort(all)
	for _, t := range slices.Compact(all) {
		if at(t-1) != at(t) {
			out = append(out, t)
		}
	}
	return out
}
