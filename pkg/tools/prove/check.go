package prove

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// stepsOf is how many samples lie between two steps of a range query, which so
// fall on times that were written.
const stepsOf = 4

// check reads back over all windows.
func (p *Prover) check(ctx context.Context) {
	end := p.now().Add(-p.cfg.Settle).Truncate(p.cfg.Interval)
	for _, window := range p.cfg.Windows {
		for _, kind := range kinds() {
			if ctx.Err() != nil {
				return
			}
			c := checking{Prover: p, kind: kind, window: window, end: end}
			c.note("raw", c.raw(ctx))
			c.note("steps", c.steps(ctx))
		}
	}
	p.metrics.lastCheck.Set(float64(p.now().Unix()))
}

// checking is one window of one metric.
type checking struct {
	*Prover
	kind   string
	window time.Duration
	end    time.Time
	bad    int
}

// note counts a check, or that it could not be made.
func (c *checking) note(how string, err error) {
	if err != nil {
		c.result.CheckFailures++
		c.metrics.checkFailures.WithLabelValues(how).Inc()
		c.log.Warn("a check could not be made", "kind", c.kind, "window", c.window, "how", how, "err", err)
		return
	}
	c.result.Checks++
	c.metrics.checks.WithLabelValues(how).Inc()
}

// raw compares each sample of the window.
func (c *checking) raw(ctx context.Context) error {
	got, err := c.store.Window(ctx, c.cfg.ID, c.kind, c.end, c.window)
	if err != nil {
		return err
	}
	byN := map[int][]Sample{}
	for _, s := range got {
		byN[s.N] = s.Samples
	}
	for n := range c.cfg.Series {
		c.compare(n, byN[n], c.end.Add(-c.window).UnixMilli()+1, c.step())
	}
	return nil
}

// steps compares the values at each step of a range query.
func (c *checking) steps(ctx context.Context) error {
	step := stepsOf * c.cfg.Interval
	start := c.end.Add(-c.window).Truncate(step)
	if first, ok := c.taken.first(); ok && start.UnixMilli() < first { // before, there may be nothing
		start = time.UnixMilli(first).Add(step - 1).Truncate(step)
	}
	end := c.end.Truncate(step)
	if !start.Before(end) {
		return nil
	}
	got, err := c.store.Steps(ctx, c.cfg.ID, c.kind, v1.Range{Start: start, End: end, Step: step})
	if err != nil {
		return err
	}
	byN := map[int][]Sample{}
	for _, s := range got {
		for _, v := range s.Samples {
			if c.taken.has(v.T) { // else the value is that of a time before
				byN[s.N] = append(byN[s.N], v)
			}
		}
	}
	for n := range c.cfg.Series {
		c.compare(n, byN[n], start.UnixMilli(), step.Milliseconds())
	}
	return nil
}

// compare finds samples that are missing, wrong, or should not be there, on the
// grid of step from from to the end.
func (c *checking) compare(n int, got []Sample, from, step int64) {
	have := make(map[int64]float64, len(got))
	for _, s := range got {
		have[s.T] = s.V
		switch {
		case s.T%c.step() != 0:
			c.mismatch("extra", n, s.T, fmt.Sprintf("%v, at a time when nothing is written", s.V))
		case s.V != Value(c.kind, n, s.T):
			c.mismatch("wrong", n, s.T, fmt.Sprintf("%v instead of %v", s.V, Value(c.kind, n, s.T)))
		}
	}
	for t := ceil(from, step); t <= c.end.UnixMilli(); t += step {
		if _, ok := have[t]; !ok && c.taken.has(t) {
			c.mismatch("missing", n, t, "it was taken and does not show")
		}
	}
}

// ceil is the first multiple of step from t on.
func ceil(t, step int64) int64 { return (t + step - 1) / step * step }

// shown is how many mismatches of a check are logged.
const shown = 3

func (c *checking) mismatch(what string, n int, t int64, how string) {
	c.metrics.mismatches.WithLabelValues(what).Inc()
	text := fmt.Sprintf("%s: %s{n=\"%d\"} at %s, window %s: %s", what, c.kind, n, time.UnixMilli(t).UTC().Format(time.RFC3339Nano), c.window, how)
	if c.result.Mismatches++; c.result.First == "" {
		c.result.First = text
	}
	if c.bad++; c.bad <= shown {
		c.log.Error("mismatch", "what", text)
	}
}
