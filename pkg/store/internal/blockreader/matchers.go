package blockreader

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/store/internal/indexheader"
)

// offsets tell where postings lists are. (An index header.)
type offsets interface {
	Postings(ctx context.Context, name string, values []string) ([]indexheader.Posting, error)
	Match(ctx context.Context, name, prefix string, match func(string) bool) ([]indexheader.Posting, error)
	All(ctx context.Context) (indexheader.Posting, bool, error)
}

// plan says which postings lists answer a set of matchers: the intersection of
// the groups in add, less those in sub. A group is the union of its lists.
type plan struct {
	none     bool // nothing can match
	add, sub []group
}

// group is lists of one label name; the empty name stands for all series.
type group struct {
	name  string
	lists []indexheader.Posting
}

// planMatchers plans the selection of the series for which all matchers are
// true, where a label that a series lacks counts as empty, as in Prometheus. So
// a matcher that the empty string satisfies can only take series away: those
// whose value it refuses. Any other adds those whose value it accepts.
// Without a matcher that adds, all series are the base.
func planMatchers(ctx context.Context, ms []*labels.Matcher, off offsets) (plan, error) {
	var p plan
	for _, m := range ms {
		lists, err := listsOf(ctx, m, off)
		if err != nil {
			return plan{}, err
		}
		if m.Matches("") {
			if len(lists) > 0 {
				p.sub = append(p.sub, group{m.Name, lists})
			}
			continue
		}
		if len(lists) == 0 {
			return plan{none: true}, nil
		}
		p.add = append(p.add, group{m.Name, lists})
	}
	if len(p.add) == 0 {
		all, ok, err := off.All(ctx)
		if err != nil || !ok {
			return plan{none: true}, err
		}
		p.add = []group{{"", []indexheader.Posting{all}}}
	}
	return p, nil
}

// listsOf finds the values that m refuses if it accepts the empty string, and
// those that it accepts otherwise.
func listsOf(ctx context.Context, m *labels.Matcher, off offsets) ([]indexheader.Posting, error) {
	if m.Matches("") {
		switch set := m.SetMatches(); {
		case m.Type == labels.MatchNotEqual:
			return off.Postings(ctx, m.Name, []string{m.Value})
		case m.Type == labels.MatchNotRegexp && len(set) > 0:
			return off.Postings(ctx, m.Name, slices.Clone(set))
		case m.Type == labels.MatchRegexp && m.Value == ".*":
			return nil, nil
		case m.Type == labels.MatchNotRegexp:
			return off.Match(ctx, m.Name, m.Prefix(), func(v string) bool { return !m.Matches(v) })
		}
		return off.Match(ctx, m.Name, "", func(v string) bool { return !m.Matches(v) })
	}
	switch set := m.SetMatches(); {
	case m.Type == labels.MatchEqual:
		return off.Postings(ctx, m.Name, []string{m.Value})
	case m.Type == labels.MatchRegexp && len(set) > 0:
		return off.Postings(ctx, m.Name, slices.Clone(set))
	case m.Type == labels.MatchRegexp:
		return off.Match(ctx, m.Name, m.Prefix(), m.Matches)
	}
	return off.Match(ctx, m.Name, "", m.Matches)
}
