package intake

import (
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// within holds a request against limits of its size.
// Texts name its first series, which tells what its sender is.
func within(id tenant.ID, lim *limits.Limits, b *batch.Batch) error {
	if n, most := len(b.Series), lim.Request.SeriesLimit; most > 0 && n > most {
		return refuse.Errorf(refuse.TooManySeriesInside, id, "the request has %d series, limit %d (request.series_limit of tenant %s), the first is %s; send smaller ones", n, most, id, nameOf(b, 0))
	}
	if n, most := b.Samples(), lim.Request.SamplesLimit; most > 0 && n > most {
		return refuse.Errorf(refuse.TooManySeriesInside, id, "the request has %d samples, limit %d (request.samples_limit of tenant %s), the first of series %s; send smaller ones", n, most, id, nameOf(b, 0))
	}
	return nil
}

// nameOf is a series of a request in a text. Without labels the text is poorer.
func nameOf(b *batch.Batch, i uint32) string {
	l, _ := b.Labels(int(i))
	return short(l.String())
}

// dropFuture refuses samples that are too far ahead of our clock: one of them
// would move its head's time and make all others too old (RELIABILITY I8).
func (c *call) dropFuture() {
	b, lim, id := c.batch, c.lim, c.cat.rules.own
	if lim.MaxFuture == 0 {
		return
	}
	last := c.now.Add(time.Duration(lim.MaxFuture)).UnixMilli()
	if !anyAfter(b, last) {
		return
	}
	refused := func(i, n int, at int64) {
		c.cut += n
		c.tally.Add(refuse.SampleTooFarInTime, n, func() *refuse.Error {
			return refuse.Errorf(refuse.SampleTooFarInTime, id, "series %s has a sample at %s, %s ahead of our clock, limit %s (max_future of tenant %s); set the sender's clock",
				nameOf(b, uint32(i)), time.UnixMilli(at).UTC().Format(time.RFC3339Nano), time.UnixMilli(at).Sub(c.now).Round(time.Second), lim.MaxFuture, id)
		})
	}
	for i := range b.Series {
		s := &b.Series[i]
		if n, at := cut(b.Floats, &s.Floats, func(f *batch.Float) int64 { return f.T }, last); n > 0 {
			refused(i, n, at)
		}
		if n, at := cut(b.Histograms, &s.Histograms, func(h *batch.Histogram) int64 { return h.T }, last); n > 0 {
			refused(i, n, at)
		}
		n, _ := cut(b.Exemplars, &s.Exemplars, func(e *exemplar.Exemplar) int64 { return e.Ts }, last)
		c.in.metrics.exemplars.Add(float64(n)) // no reason to refuse a request
	}
}

// anyAfter looks at whole columns: the usual case costs a pass over memory.
func anyAfter(b *batch.Batch, last int64) bool {
	newest := last
	for i := range b.Floats {
		newest = max(newest, b.Floats[i].T)
	}
	for i := range b.Histograms {
		newest = max(newest, b.Histograms[i].T)
	}
	for i := range b.Exemplars {
		newest = max(newest, b.Exemplars[i].Ts)
	}
	return newest > last
}

// cut takes what is later than last out of a span, in place: spans of a batch
// don't overlap. It returns how many and the time of the first.
func cut[T any](column []T, span *batch.Span, timeOf func(*T) int64, last int64) (n int, at int64) {
	kept := span.From
	for i := span.From; i < span.To; i++ {
		v := timeOf(&column[i])
		if v <= last {
			column[kept] = column[i]
			kept++
			continue
		}
		if n == 0 {
			at = v
		}
		n++
	}
	span.To = kept
	return n, at
}

// withinRate takes those parts out that would make their tenant's rate too high.
func (c *call) withinRate(parts []Part) []Part {
	kept := parts[:0]
	for _, p := range parts {
		lim := c.in.limits.Of(p.Tenant)
		if c.in.rates.allow(p.Tenant, lim, p.Samples, c.now) {
			c.in.metrics.samples.Add(float64(p.Samples))
			kept = append(kept, p)
			continue
		}
		c.tally.Add(refuse.RateLimited, p.Samples, func() *refuse.Error {
			return refuse.Errorf(refuse.RateLimited, p.Tenant, "tenant %s sends more than %g samples a second, burst %d (samples_per_second, samples_burst of tenant %s), here series %s and others; send less or raise it",
				p.Tenant, lim.SamplesPerSecond, lim.Burst(), p.Tenant, nameOf(c.batch, p.Series[0]))
		})
		for _, i := range p.Series {
			c.batch.Series[i].ID = 0
		}
	}
	return kept
}

// full tells that no series can be learned.
func (c *call) full() bool {
	return c.in.live.Load() >= int64(c.in.cfg.MaxSeries) || c.fullShare() || c.in.crowded() != nil
}

func (c *call) fullShare() bool {
	return c.lim.HeadSeriesLimit > 0 && c.cat.live.Load() >= catalogShare(c.lim)
}

// catalogShare bounds what one tenant takes of the catalog. Heads count its series
// exactly; here one may stand under several keys (pairs of senders, protocols) and for
// longer, and the bound only keeps one tenant from taking the room of all.
func catalogShare(lim *limits.Limits) int64 { return 4*int64(lim.HeadSeriesLimit) + 10_000 }

func (c *call) whyFull(l labels.Labels) *refuse.Error {
	id := c.cat.rules.own
	if c.fullShare() {
		return refuse.Errorf(refuse.SeriesLimit, id, "series %s of metric %q is new, and tenant %s has sent far more than %d series (head_series_limit of tenant %s); send fewer or raise it",
			short(l.String()), short(l.Get(model.MetricNameLabel)), id, c.lim.HeadSeriesLimit, id)
	}
	if why := c.in.crowded(); why != nil {
		return refuse.Errorf(refuse.SeriesLimit, id, "series %s of metric %q is new here: %s; series that are known here go on", short(l.String()), short(l.Get(model.MetricNameLabel)), why)
	}
	return refuse.Errorf(refuse.SeriesLimit, id, "series %s is new, and the catalog is full with %d series of all tenants (--%scatalog.max-series); send fewer or raise it",
		short(l.String()), c.in.cfg.MaxSeries, c.in.cfg.prefix)
}

func (c *call) whyCrowded(l labels.Labels) *refuse.Error {
	id := c.cat.rules.own
	return refuse.Errorf(refuse.SeriesLimit, id, "series %s is new, and what tenant %s sends has too many different metrics, tenants and senders of pairs; send fewer",
		short(l.String()), id)
}
