package fanout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Parser parses PromQL.
type Parser interface {
	ParseExpr(input string) (parser.Expr, error)
}

// selectorsOf returns the series selectors in an expression.
func (f *Fanout) selectorsOf(query string) ([][]*labels.Matcher, error) {
	expr, err := f.parser.ParseExpr(query)
	if err != nil {
		return nil, fmt.Errorf("%w: query of exemplars: %w", storeapi.ErrBadRequest, err)
	}
	return parser.ExtractSelectors(expr), nil
}

// exemplarQuery writes the selectors that concern an endpoint as an expression
// for it, or returns "" where none does. Prometheus does not know its external
// labels there, so that matchers on them go, unless one is asked that does and may
// have several sets of them: another querier, a store gateway, an ingester.
func exemplarQuery(selectors [][]*labels.Matcher, selector labels.Labels, info storeapi.Info) string {
	var parts []string
	for _, matchers := range selectors {
		matchers, ok := block.MatchExternal(selector, matchers)
		if !ok || !anyMatches(info.LabelSets, matchers) {
			continue
		}
		var written []string
		for _, m := range matchers {
			external := slices.ContainsFunc(info.LabelSets, func(l labels.Labels) bool { return l.Has(m.Name) })
			if !external || slices.Contains([]string{"query", "store", "receive"}, info.Component) {
				written = append(written, m.String())
			}
		}
		if len(written) == 0 {
			written = []string{`__name__=~".+"`} // a selector must not be empty
		}
		parts = append(parts, "{"+strings.Join(written, ",")+"}")
	}
	return strings.Join(parts, " + ")
}

// exemplarsOverlap tells whether an endpoint may hold exemplars of [start, end], ms.
func exemplarsOverlap(p peer, start, end int64) bool {
	s := p.Info.Services
	if !p.Known || s.ExemplarsMint == 0 && s.ExemplarsMaxt == 0 {
		return true
	}
	return s.ExemplarsMint <= end && start <= s.ExemplarsMaxt
}

// mergeExemplars takes replica labels off the series and merges equal ones. The
// result is sorted by series, its exemplars by time, each once.
func mergeExemplars(list []storeapi.ExemplarSeries, replica []string) []storeapi.ExemplarSeries {
	sorted := make([]storeapi.ExemplarSeries, 0, len(list))
	for _, s := range list {
		if len(s.Exemplars) > 0 {
			sorted = append(sorted, storeapi.ExemplarSeries{SeriesLabels: without(s.SeriesLabels, replica), Exemplars: slices.Clone(s.Exemplars)})
		}
	}
	slices.SortStableFunc(sorted, func(a, b storeapi.ExemplarSeries) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	var merged []storeapi.ExemplarSeries
	for _, s := range sorted {
		if n := len(merged); n > 0 && labels.Equal(merged[n-1].SeriesLabels, s.SeriesLabels) {
			merged[n-1].Exemplars = append(merged[n-1].Exemplars, s.Exemplars...)
			continue
		}
		merged = append(merged, s)
	}
	for i := range merged {
		e := merged[i].Exemplars
		slices.SortFunc(e, compareExemplars)
		merged[i].Exemplars = slices.CompactFunc(e, func(a, b exemplar.Exemplar) bool { return compareExemplars(a, b) == 0 })
	}
	return merged
}

func compareExemplars(a, b exemplar.Exemplar) int {
	return cmp.Or(cmp.Compare(a.Ts, b.Ts), labels.Compare(a.Labels, b.Labels), cmp.Compare(a.Value, b.Value))
}
