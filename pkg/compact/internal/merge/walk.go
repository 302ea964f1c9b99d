package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// seriesReader is what walk needs of a block.
type seriesReader interface {
	Next(ctx context.Context) (*input.Series, error)
}

// names turns numbers of the common symbol table into strings.
type names interface {
	Len() int
	At(i uint32) string
	Find(s string) (i uint32, found bool)
}

// head is the next series of one source, its labels in numbers of the common
// table, which are in the order of their strings.
type head struct {
	src    int // index of the source
	series seriesReader
	remap  []uint32

	labels []input.Label
	chunks []input.Chunk // valid until the head moves on
	before []input.Label // of the series before; to check the order
	begun  bool
}

// advance reads the next series, io.EOF at the end.
func (h *head) advance(ctx context.Context) error {
	s, err := h.series.Next(ctx)
	if err != nil {
		return err
	}
	h.before, h.labels = h.labels, h.before[:0]
	h.labels, err = remapped(h.labels, s.Labels, h.remap)
	if err != nil {
		return err
	}
	h.chunks = s.Chunks
	return nil
}

// remapped appends the labels in numbers of the common table to dst.
func remapped(dst, in []input.Label, remap []uint32) ([]input.Label, error) {
	for _, l := range in {
		if int(l.Name) >= len(remap) || int(l.Value) >= len(remap) {
			return dst, fmt.Errorf("%w: a series refers to symbols %d and %d, there are %d", block.ErrCorrupt, l.Name, l.Value, len(remap))
		}
		dst = append(dst, input.Label{Name: remap[l.Name], Value: remap[l.Value]})
	}
	return dst, nil
}

// walk yields the series of several sources side by side, in the order of their
// labels, and checks that each source is in that order itself.
type walk struct {
	names names
	to    bound
	heap  []*head // the least first, by labels and source
	group []*head // that share the current labels, by source
}

// newWalk reads the first series of each source.
func newWalk(ctx context.Context, names names, to bound, heads []*head) (*walk, error) {
	w := &walk{names: names, to: to}
	for _, h := range heads {
		if err := w.push(ctx, h); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// next returns the heads of the sources that have the next series, in the order
// of the sources; none at the end. They are valid until the next call.
func (w *walk) next(ctx context.Context) ([]*head, error) {
	for _, h := range w.group {
		if err := w.push(ctx, h); err != nil {
			return nil, err
		}
	}
	w.group = w.group[:0]
	for len(w.heap) > 0 && (len(w.group) == 0 || input.CompareLabels(w.group[0].labels, w.heap[0].labels) == 0) {
		w.group = append(w.group, w.pop())
	}
	return w.group, nil
}

// push moves a head on and puts it back, unless its source or the range ends.
func (w *walk) push(ctx context.Context, h *head) error {
	err := h.advance(ctx)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return &sourceError{src: h.src, err: err}
	}
	if err := w.check(h); err != nil {
		return &sourceError{src: h.src, err: err}
	}
	if w.to != nil && w.to.compare(h.labels) >= 0 {
		return nil
	}
	w.heap = append(w.heap, h)
	for i := len(w.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !less(w.heap[i], w.heap[up]) {
			break
		}
		w.heap[i], w.heap[up] = w.heap[up], w.heap[i]
		i = up
	}
	return nil
}

func (w *walk) pop() *head {
	top, last := w.heap[0], len(w.heap)-1
	w.heap[0] = w.heap[last]
	w.heap = w.heap[:last]
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < last; down++ {
			if less(w.heap[down], w.heap[least]) {
				least = down
			}
		}
		if least == i {
			return top
		}
		w.heap[i], w.heap[least] = w.heap[least], w.heap[i]
		i = least
	}
}

func less(a, b *head) bool {
	return cmp.Or(input.CompareLabels(a.labels, b.labels), cmp.Compare(a.src, b.src)) < 0
}

// check tells whether the head lies behind the series before it.
func (w *walk) check(h *head) error {
	for i := 1; i < len(h.labels); i++ {
		if h.labels[i-1].Name >= h.labels[i].Name {
			return fmt.Errorf("%w: the labels of series %s are not in order", block.ErrCorrupt, stringsOf(w.names, h.labels))
		}
	}
	if h.begun && input.CompareLabels(h.before, h.labels) >= 0 {
		return fmt.Errorf("%w: series %s is not behind %s", block.ErrCorrupt, stringsOf(w.names, h.labels), stringsOf(w.names, h.before))
	}
	h.begun = true
	return nil
}

// sourceError says which source an error is of; Run makes an *input.Error of it.
type sourceError struct {
	src int
	err error
}

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// stringsOf returns labels as strings that share the table's memory at most.
func stringsOf(names names, in []input.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(in))
	for _, l := range in {
		b.Add(names.At(l.Name), names.At(l.Value))
	}
	return b.Labels()
}

// bound is a label set to compare series with, given by its places in the
// common table, of which it need not be a part. nil: no bound.
type bound []boundLabel

type boundLabel struct{ name, value place }

// place is where a string stands in the table, or would.
type place struct {
	at    uint32
	found bool
}

func newBound(names names, lset labels.Labels) bound {
	var b bound
	find := func(s string) place {
		at, found := names.Find(s)
		return place{at, found}
	}
	lset.Range(func(l labels.Label) { b = append(b, boundLabel{find(l.Name), find(l.Value)}) })
	return b
}

// compare orders a series against the bound.
func (b bound) compare(in []input.Label) int {
	for i := range min(len(b), len(in)) {
		if c := cmp.Or(b[i].name.compare(in[i].Name), b[i].value.compare(in[i].Value)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(in), len(b))
}

// compare orders the string with number i against the one at p.
func (p place) compare(i uint32) int {
	if p.found || i < p.at {
		return cmp.Compare(i, p.at)
	}
	return 1
}
