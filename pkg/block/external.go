package block

import "github.com/prometheus/prometheus/model/labels"

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
