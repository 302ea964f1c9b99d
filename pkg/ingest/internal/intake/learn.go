package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// learnAtOnce is how many series are decided before the lock is taken for them:
// others wait for a fraction of a millisecond.
const learnAtOnce = 256

// learn makes unknown series known, those of one request with IDs in its order.
func (c *call) learn(ctx context.Context) error {
	if len(c.unknown) == 0 {
		return nil
	}
	for from := 0; from < len(c.unknown); from += learnAtOnce {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("learn series: %w", err)
		}
		some := c.unknown[from:min(from+learnAtOnce, len(c.unknown))]
		if c.full() {
			for _, i := range some {
				c.refuse(i, refuse.SeriesLimit, c.whyFull)
			}
			continue
		}
		c.fates = c.fates[:0]
		for _, i := range some {
			f, err := c.cat.rules.fateOf(c.raw, int(i))
			if err != nil {
				return err
			}
			c.fates = append(c.fates, f)
			if f.err == nil && !f.dropped {
				c.learned.add(i, f.labels, len(c.unknown))
			}
		}
		c.add(some)
	}
	clear(c.fates[:cap(c.fates)]) // labels must not outlive the request
	return nil
}

// learned is the final labels of a request's series that were not known: their
// owners don't know them either, and ask next. To make labels costs more than all else of a
// new series: made once, not twice, a request of new ones in OTLP allocates 8.8 MB instead of 15.4 (BenchmarkNewSeries).
type learned struct {
	series []uint32 // ascending
	labels []labels.Labels
}

// mostLearned bounds what is kept; labels beyond are made anew.
const mostLearned = 32 << 10

// add adds the labels of a series, which is behind those added before; most is how many may come.
func (l *learned) add(series uint32, ls labels.Labels, most int) {
	if len(l.series) >= mostLearned {
		return
	}
	if l.series == nil {
		n := min(most, mostLearned)
		l.series, l.labels = make([]uint32, 0, n), make([]labels.Labels, 0, n)
	}
	l.series, l.labels = append(l.series, series), append(l.labels, ls)
}

// find is safe to call at once.
func (l *learned) find(series uint32) (labels.Labels, bool) {
	if at, ok := slices.BinarySearch(l.series, series); ok {
		return l.labels[at], true
	}
	return labels.EmptyLabels(), false
}

// add writes what was decided into the catalog.
func (c *call) add(some []uint32) {
	c.cat.mu.Lock()
	defer c.cat.mu.Unlock()
	for n, i := range some {
		s, f := &c.batch.Series[i], &c.fates[n]
		id, isNew := c.cat.addLocked(s.Key, f, c.tick)
		if id == 0 {
			c.refuse(i, refuse.SeriesLimit, c.whyCrowded)
			continue
		}
		if isNew {
			c.in.live.Add(1)
			c.in.metrics.learned.Inc()
		}
		e := at(c.cat.entries.load(), id)
		s.ID, s.Hash = uint64(id), e.hash.Load()
		if word := e.word.Load(); word&plainBit == 0 {
			c.special = append(c.special, special{i, classOf(word), id})
		}
	}
}

// refuse refuses an unknown series without learning it.
func (c *call) refuse(i uint32, reason refuse.Reason, why func(labels.Labels) *refuse.Error) {
	c.left = true
	c.tally.Add(reason, samplesOf(&c.batch.Series[i]), func() *refuse.Error {
		l, _ := c.raw(int(i)) // without them the text is poorer
		return why(l)
	})
}

// fateOf decides about a series as it came. Labels that the decoder refuses are a fate too.
func (r *rules) fateOf(raw labelsOf, i int) (fate, error) {
	l, err := raw(i)
	if refusal, ok := errors.AsType[*refuse.Error](err); ok {
		return fate{tenant: r.own, err: refusal}, nil
	}
	if err != nil {
		return fate{}, fmt.Errorf("labels of series %d: %w", i, err)
	}
	return r.decide(l), nil
}

// final is the labels of a series that is taken.
func (r *rules) final(raw labelsOf, i int) (labels.Labels, error) {
	f, err := r.fateOf(raw, i)
	switch {
	case err != nil:
		return labels.EmptyLabels(), err
	case f.err != nil:
		return labels.EmptyLabels(), f.err
	}
	return f.labels, nil
}
