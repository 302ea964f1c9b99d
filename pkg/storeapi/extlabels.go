package storeapi

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// MatchExternal evaluates matchers against external labels. It returns the
// matchers that the external labels say nothing about, and false when one of
// those they do speak of doesn't match, so that nothing can be selected.
func MatchExternal(ext labels.Labels, matchers []*labels.Matcher) (rest []*labels.Matcher, ok bool) {
	for _, m := range matchers {
		if !ext.Has(m.Name) {
			rest = append(rest, m)
			continue
		}
		if !m.Matches(ext.Get(m.Name)) {
			return nil, false
		}
	}
	return rest, true
}

// Extender gives series their external labels and takes replica labels away.
// It is not safe for concurrent use.
type Extender struct {
	ext     labels.Labels
	without []string
	builder labels.Builder
}

// NewExtender makes an Extender which sets ext on each series, over labels of
// the same name, and then removes those named in without.
func NewExtender(ext labels.Labels, without []string) *Extender {
	return &Extender{ext: ext, without: slices.Clone(without)}
}

// Extend returns lset with the external labels and without the replica labels.
func (e *Extender) Extend(lset labels.Labels) labels.Labels {
	e.builder.Reset(lset)
	e.ext.Range(func(l labels.Label) { e.builder.Set(l.Name, l.Value) })
	e.builder.Del(e.without...)
	return e.builder.Labels()
}
