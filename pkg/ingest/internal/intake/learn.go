package intake

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// learnAtOnce is how many series are decided before the lock is taken for them:
// others wait for a fraction of a millisecond.
const learnAtOnce = 256

// labelsOf gives labels as they came.
type labelsOf func(i int) (labels.Labels, error)

// lesson is what learning needs beside the catalog.
type lesson struct {
	batch *batch.Batch
	raw   labelsOf
	lim   *limits.Limits
	tally *refuse.Tally
	tick  uint8
}

// learn makes unknown series known, those of one request with IDs in its order.
func (in *Intake) learn(ctx context.Context, c *catalog, sc *scratch, l lesson) error {
	for from := 0; from < len(sc.unknown); from += learnAtOnce {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("learn series: %w", err)
		}
		some := sc.unknown[from:min(from+learnAtOnce, len(sc.unknown))]
		if full := in.full(c, l.lim); full != nil {
			sc.left = true
			refuseAll(some, l, func(series labels.Labels) *refuse.Error { return full(series, c.rules.own) })
			continue
		}
		sc.fates = sc.fates[:0]
		for _, i := range some {
			f, err := c.rules.fateOf(l.raw, int(i))
			if err != nil {
				return err
			}
			sc.fates = append(sc.fates, f)
		}
		in.add(c, sc, some, l)
	}
	clear(sc.fates[:cap(sc.fates)]) // labels must not outlive the request
	return nil
}

// add writes what was decided into the catalog.
func (in *Intake) add(c *catalog, sc *scratch, some []uint32, l lesson) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, i := range some {
		s, f := &l.batch.Series[i], &sc.fates[n]
		id, isNew := c.addLocked(s.Key, f, l.tick)
		if id == 0 {
			sc.left = true
			refuseAll([]uint32{i}, l, func(labels.Labels) *refuse.Error {
				return refuse.Errorf(refuse.SeriesLimit, c.rules.own, "series %s: tenant %s has too many different metrics, tenants and pairs of senders; try later", f.labels, c.rules.own)
			})
			continue
		}
		if isNew {
			in.live.Add(1)
			in.metrics.learned.Inc()
		}
		e := at(c.entries.load(), id)
		s.ID, s.Hash = uint64(id), e.hash.Load()
		if word := e.word.Load(); word&plainBit == 0 {
			sc.special = append(sc.special, special{i, classOf(word), id})
		}
	}
}

// refuseAll refuses unknown series without learning them.
func refuseAll(some []uint32, l lesson, why func(labels.Labels) *refuse.Error) {
	reason := why(labels.EmptyLabels()).Reason
	for _, i := range some {
		s := &l.batch.Series[i]
		l.tally.Add(reason, samplesOf(s), func() *refuse.Error {
			series, _ := l.raw(int(i)) // without them the text is poorer
			return why(series)
		})
	}
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

func samplesOf(s *batch.Series) int { return s.Floats.Len() + s.Histograms.Len() }
