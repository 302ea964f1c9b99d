package storeapi

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Extender gives series their external labels and takes replica labels away.
// It is not safe for concurrent use.
type Extender struct {
	ext     labels.Labels
	add     []labels.Label // external labels but those in without, by name
	without []string
	builder labels.Builder
}

// NewExtender makes an Extender which sets ext on each series, over labels of
// the same name, and then removes those named in without.
func NewExtender(ext labels.Labels, without []string) *Extender {
	e := &Extender{ext: ext, without: slices.Sorted(slices.Values(without))}
	ext.Range(func(l labels.Label) {
		if !slices.Contains(without, l.Name) {
			e.add = append(e.add, l)
		}
	})
	return e
}

// Extend returns lset with the external labels and without the replica labels.
func (e *Extender) Extend(lset labels.Labels) labels.Labels {
	e.builder.Reset(lset)
	for _, l := range e.add {
		e.builder.Set(l.Name, l.Value)
	}
	e.builder.Del(e.without...)
	return e.builder.Labels()
}

// Replica returns what goes into Chunk.Replica for the chunks of a series that
// had the labels lset before Extend: 0 if no labels are taken away.
func (e *Extender) Replica(lset labels.Labels) uint32 {
	if len(e.without) == 0 {
		return 0
	}
	var buf []byte
	for _, name := range e.without {
		v := e.ext.Get(name)
		if v == "" {
			v = lset.Get(name)
		}
		if v != "" {
			buf = append(append(append(append(buf, name...), 0xff), v...), 0xff)
		}
	}
	return uint32(xxhash.Sum64(buf)) | 1
}

// mark notes in chunks which replica they are of, unless that is known already.
func mark(chunks []Chunk, replica uint32) {
	for i := range chunks {
		if chunks[i].Replica == 0 {
			chunks[i].Replica = replica
		}
	}
}

// Extended sets external labels on each series of a sorted set, removes the
// labels named in without, and keeps the result sorted, each series once.
//
// Set clash when a label of either kind may occur in the series themselves: then
// order and equality can change at will, and the whole set is held and sorted.
// Otherwise order can change only where one label set is a prefix of the next,
// and the set streams, holding back not more series than a series has labels.
// Should a label occur although clash is unset, the set ends with
// ErrUnavailable: the data has changed since it was asked for its label names.
func Extended(set SeriesSet, ext labels.Labels, without []string, clash bool) SeriesSet {
	e := NewExtender(ext, without)
	if clash {
		return Sorted(set, e)
	}
	if len(e.add) == 0 && len(without) == 0 {
		return set
	}
	last := ""
	if n := len(e.add); n > 0 {
		last = e.add[n-1].Name
	}
	return &extendedSet{SeriesSet: set, extender: e, last: last, replica: e.Replica(labels.EmptyLabels())}
}

// extendedSet adds the same labels to all series of a sorted set, none of which
// has one of them.
//
// For X before Y in the set, X and Y differ at some label that both have, and
// then adding labels leaves their order alone; or X is a prefix of Y. In that
// case, with q the name of Y's first label beyond X, Y moves before X exactly if
// some added name is greater than q. All such Y follow X immediately, so X waits
// for them on a stack. Invariant: each on the stack is a prefix of the one above.
type extendedSet struct {
	SeriesSet
	extender *Extender
	last     string // greatest name added
	replica  uint32 // of all series, since none has a label that is taken away

	stack []*heldSeries
	ahead *heldSeries // read, but not yet compared with the stack
	cur   *heldSeries
	free  []*heldSeries
	ended bool
	err   error
}

// heldSeries is a series that outlives the call of Next that read it.
type heldSeries struct {
	plain    []labels.Label // before the change
	extended labels.Labels
	chunks   []Chunk
}

func (s *extendedSet) Next() bool {
	if s.cur != nil {
		s.free = append(s.free, s.cur)
		s.cur = nil
	}
	for s.err == nil {
		if s.ahead == nil && !s.ended {
			s.read()
			continue
		}
		if n := len(s.stack); n > 0 && (s.ahead == nil || !s.waits(s.stack[n-1])) {
			s.cur, s.stack = s.stack[n-1], s.stack[:n-1]
			return true
		}
		if s.ahead == nil {
			return false
		}
		s.stack, s.ahead = append(s.stack, s.ahead), nil
	}
	return false
}

// read takes the next series into ahead, or notes the end.
func (s *extendedSet) read() {
	if !s.SeriesSet.Next() {
		s.ended, s.err = true, s.SeriesSet.Err()
		return
	}
	at, h := s.SeriesSet.At(), s.hold()
	at.Labels.Range(func(l labels.Label) { h.plain = append(h.plain, l) })
	h.extended = s.extender.Extend(at.Labels)
	h.chunks = append(h.chunks, at.Chunks...)
	mark(h.chunks, s.replica)
	if h.extended.Len() != len(h.plain)+len(s.extender.add) {
		s.err = fmt.Errorf("%w: series %s has come up with an external or replica label; ask again", ErrUnavailable, at.Labels)
		return
	}
	s.ahead = h
}

func (s *extendedSet) hold() *heldSeries {
	if n := len(s.free); n > 0 {
		h := s.free[n-1]
		s.free = s.free[:n-1]
		h.plain, h.chunks = h.plain[:0], h.chunks[:0]
		return h
	}
	return &heldSeries{}
}

// waits tells whether x has to come after the series ahead.
func (s *extendedSet) waits(x *heldSeries) bool {
	n, y := len(x.plain), s.ahead.plain
	return len(y) > n && y[n].Name < s.last && slices.Equal(x.plain, y[:n])
}

func (s *extendedSet) At() Series {
	return Series{Labels: s.cur.extended, Chunks: s.cur.chunks}
}

func (s *extendedSet) Err() error { return s.err }

func (s *extendedSet) Close() {
	s.SeriesSet.Close()
	s.stack, s.ahead, s.ended = nil, nil, true
}
