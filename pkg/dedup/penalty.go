package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// initialPenaltyMillis holds back the replica that was not chosen first, while
// no interval between samples is known (COMPAT A4.12).
const initialPenaltyMillis = 5000

// newPenalties folds replicas pairwise; corrected: see NewCorrected.
func newPenalties(counter, corrected bool, replicas []chunkenc.Iterator) chunkenc.Iterator {
	merged := replicas[0]
	for _, r := range replicas[1:] {
		p := &penalties{counter: counter, lastT: math.MinInt64}
		if corrected {
			p.level = &level{}
		}
		p.side[0].Iterator, p.side[1].Iterator = merged, r
		merged = p
	}
	return merged
}

// penalties merges two replicas as Thanos' querier does: the one with the earlier
// sample is read, and the other one may speak again only after twice the
// distance of the last two samples. A counter that is lower after a change of
// replica is raised by the difference from there on.
type penalties struct {
	counter bool
	level   *level // where counters are corrected ones; else nil
	side    [2]penalised
	use     int // side of the current sample

	started bool
	typ     chunkenc.ValueType
	lastT   int64
	v       float64                   // of the current sample, raised, where level is set
	h       *histogram.FloatHistogram // likewise
	err     error
}

type penalised struct {
	chunkenc.Iterator
	typ     chunkenc.ValueType
	penalty int64 // ms
	missed  missed
}

func (p *penalties) Next() chunkenc.ValueType {
	if p.err != nil {
		return chunkenc.ValNone
	}
	lastV, wasFloat := 0.0, p.started && p.typ == chunkenc.ValFloat
	if wasFloat {
		_, lastV = p.At()
	}
	before, began := p.use, p.started
	p.choose()
	moved := began && p.use != before
	switch {
	case p.level != nil:
		p.raise(moved)
	case p.counter && wasFloat && moved && p.typ == chunkenc.ValFloat:
		if _, v := p.At(); lastV > v {
			p.side[p.use].missed.v += lastV - v
		}
	}
	return p.typ
}

// raise adds to the current sample what its side's counter has missed.
func (p *penalties) raise(moved bool) {
	s := &p.side[p.use]
	switch p.typ {
	case chunkenc.ValFloat:
		_, v := s.At()
		p.v = p.level.float(v, &s.missed)
	case chunkenc.ValFloatHistogram:
		_, h := s.AtFloatHistogram(nil)
		if p.h, p.err = p.level.histogram(h, &s.missed, moved); p.err != nil {
			p.typ = chunkenc.ValNone
		}
	}
}

func (p *penalties) choose() {
	for i := range p.side {
		s := &p.side[i]
		switch {
		case !p.started:
			s.typ = s.Next()
		default:
			// It is never far, and a Seek of chained iterators builds them anew.
			for s.typ != chunkenc.ValNone && s.AtT() < p.lastT+1+s.penalty {
				s.typ = s.Next()
			}
		}
	}
	p.started = true
	a, b := &p.side[0], &p.side[1]
	switch {
	case a.typ == chunkenc.ValNone:
		p.take(1)
	case b.typ == chunkenc.ValNone:
		p.take(0)
	default:
		i := 0
		if b.AtT() < a.AtT() {
			i = 1
		}
		other := &p.side[1-i]
		if other.penalty = initialPenaltyMillis; p.lastT != math.MinInt64 {
			other.penalty = 2 * (p.side[i].AtT() - p.lastT)
		}
		p.take(i)
	}
}

func (p *penalties) take(i int) {
	s := &p.side[i]
	p.use, p.typ, s.penalty = i, s.typ, 0
	if s.typ != chunkenc.ValNone {
		p.lastT = s.AtT()
	}
}

// Seek walks, so that penalties don't depend on where a reader begins.
func (p *penalties) Seek(t int64) chunkenc.ValueType {
	if p.started && p.typ != chunkenc.ValNone && p.lastT >= t {
		return p.typ
	}
	for {
		if typ := p.Next(); typ == chunkenc.ValNone || p.lastT >= t {
			return typ
		}
	}
}

func (p *penalties) At() (int64, float64) {
	s := &p.side[p.use]
	t, v := s.At()
	switch {
	case p.level != nil:
		return t, p.v
	case s.missed.v == 0: // Adding would not keep the bits of a stale marker.
		return t, v
	}
	return t, v + s.missed.v
}

func (p *penalties) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return p.side[p.use].AtHistogram(h)
}

func (p *penalties) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	switch {
	case p.level == nil:
		return p.side[p.use].AtFloatHistogram(fh)
	case fh == nil:
		return p.lastT, p.h.Copy()
	}
	p.h.CopyTo(fh)
	return p.lastT, fh
}

func (p *penalties) AtT() int64  { return p.lastT }
func (p *penalties) AtST() int64 { return p.side[p.use].AtST() }

func (p *penalties) Err() error {
	if p.err != nil {
		return p.err
	}
	if err := p.side[0].Err(); err != nil {
		return err
	}
	return p.side[1].Err()
}
