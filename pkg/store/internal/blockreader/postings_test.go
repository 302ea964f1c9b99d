package blockreader

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexheader"
)

// table is a postings offset table in memory: values by name.
type table map[string][]string

func (t table) posting(name, value string) indexheader.Posting {
	return indexheader.Posting{Value: value, Span: fetch.Span{Start: int64(len(name)), End: int64(len(value))}}
}

func (t table) Postings(_ context.Context, name string, values []string) (out []indexheader.Posting, _ error) {
	sort.Strings(values)
	for _, v := range slices.Compact(values) {
		if slices.Contains(t[name], v) {
			out = append(out, t.posting(name, v))
		}
	}
	return out, nil
}

func (t table) Match(_ context.Context, name, prefix string, match func(string) bool) (out []indexheader.Posting, _ error) {
	for _, v := range t[name] {
		if strings.HasPrefix(v, prefix) && (match == nil || match(v)) {
			out = append(out, t.posting(name, v))
		}
	}
	return out, nil
}

func (t table) All(context.Context) (indexheader.Posting, bool, error) {
	return indexheader.Posting{}, len(t) > 0, nil
}

// TestPlanMatchers prints which lists a selector needs and how they combine.
func TestPlanMatchers(t *testing.T) {
	off := table{"job": {"a", "ab", "b", "c"}, "code": {"200", "404", "500"}}
	datadriven.RunTest(t, "testdata/plan_matchers", func(t *testing.T, d *datadriven.TestData) string {
		var ms []*labels.Matcher
		if d.Input != "{}" {
			var err error
			ms, err = parser.NewParser(parser.Options{}).ParseMetricSelector(d.Input)
			if err != nil { // the parser refuses selectors that match the empty string
				ms = matchersOf(t, d.Input)
			}
		}
		p, err := planMatchers(t.Context(), ms, off)
		require.NoError(t, err)
		if p.none {
			return "none\n"
		}
		var out strings.Builder
		for i, g := range slices.Concat(p.add, p.sub) {
			sign := "and"
			if i >= len(p.add) {
				sign = "not"
			}
			var values []string
			for _, l := range g.lists {
				values = append(values, l.Value)
			}
			fmt.Fprintf(&out, "%s %s: %s\n", sign, g.name, strings.Join(values, " "))
		}
		return strings.ReplaceAll(out.String(), "and : ", "and all series")
	})
}

// matchersOf parses {a="x",b!="y"} without the parser's checks.
func matchersOf(t *testing.T, s string) []*labels.Matcher {
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(`{__name__!="",` + s[1:])
	require.NoError(t, err)
	return ms[1:]
}

func TestExpandOrder(t *testing.T) {
	b := &Block{}
	_, err := b.expand(t.Context(), index.NewListPostings([]storage.SeriesRef{1, 5, 5}), nil)
	require.ErrorContains(t, err, "out of order")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.expand(ctx, index.NewListPostings([]storage.SeriesRef{1, 5}), nil)
	require.ErrorIs(t, err, context.Canceled)
}

func BenchmarkEvaluate(b *testing.B) {
	list := func(every uint32, n int) []byte {
		out := binary.BigEndian.AppendUint32(nil, uint32(n))
		for i := range n {
			out = binary.BigEndian.AppendUint32(out, uint32(i)*every)
		}
		return out
	}
	raw := map[fetch.Span][]byte{{Start: 1}: list(5, 10_000), {Start: 2}: list(2, 25_000), {Start: 3}: list(35, 1000)}
	lists := func(at int64) []indexheader.Posting {
		return []indexheader.Posting{{Span: fetch.Span{Start: at}}}
	}
	p := plan{add: []group{{"a", lists(1)}, {"b", lists(2)}}, sub: []group{{"c", lists(3)}}}
	b.Run("10000and25000not1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			it, err := p.evaluate(b.Context(), func(s fetch.Span) (index.Postings, error) {
				_, it, err := index.DecodePostingsRaw(encoding.Decbuf{B: raw[s]})
				return it, err
			})
			require.NoError(b, err)
			if _, err := (&Block{}).expand(b.Context(), it, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
