package fanout

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestChoose(t *testing.T) {
	var peers []endpoint.Peer
	datadriven.RunTest(t, "testdata/choose", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "endpoints":
			peers = nil
			for line := range strings.Lines(d.Input) {
				peers = append(peers, parsePeer(t, strings.Fields(line)))
			}
			slices.SortFunc(peers, func(a, b endpoint.Peer) int { return strings.Compare(a.Name, b.Name) })
		case "down":
			for i := range peers {
				if slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == peers[i].Name }) {
					peers[i].Down = errors.New("gone")
				}
			}
		case "choose":
			return runChoose(t, peers, d)
		}
		return "ok"
	})
}

// runChoose reads times, matchers and storeMatch[] selectors off the input.
func runChoose(t *testing.T, peers []endpoint.Peer, d *datadriven.TestData) string {
	args := strings.Fields(d.Input)
	sel := storeapi.Selection{Mint: number(t, args[0]), Maxt: number(t, args[1]), Matchers: matchers(t, args[2])}
	var only [][]*labels.Matcher
	for _, a := range args[3:] {
		only = append(only, matchers(t, strings.TrimPrefix(a, "only=")))
	}
	c := chooseStores(peers, only, sel)
	var out strings.Builder
	for _, part := range []struct {
		word  string
		peers []endpoint.Peer
	}{{"ask", c.ask}, {"down", c.down}} {
		if len(part.peers) == 0 {
			continue
		}
		out.WriteString(part.word)
		for _, p := range part.peers {
			out.WriteString(" " + p.Name)
		}
		out.WriteString("\n")
	}
	if out.Len() == 0 {
		return "nobody\n"
	}
	return out.String()
}

func parsePeer(t *testing.T, fields []string) endpoint.Peer {
	p := endpoint.Peer{Name: fields[0], Known: fields[1] != "unknown"}
	if len(fields) < 4 {
		return p
	}
	p.Info.Services.Store = true
	p.Info.LabelSets = labelSets(t, fields[1])
	p.Info.Mint, p.Info.Maxt = number(t, fields[2]), number(t, fields[3])
	for _, f := range fields[4:] {
		set, times, _ := strings.Cut(f, "}:")
		from, to, _ := strings.Cut(times, "-")
		p.Info.TSDBs = append(p.Info.TSDBs, storeapi.TSDBInfo{Labels: labelSets(t, set+"}")[0], Mint: number(t, from), Maxt: number(t, to)})
	}
	return p
}

func labelSets(t *testing.T, s string) (sets []labels.Labels) {
	if s == "{}" {
		return nil
	}
	for _, part := range strings.SplitAfter(s, "}") {
		if part = strings.TrimPrefix(part, ","); part == "" {
			continue
		}
		var pairs []string
		for _, m := range matchers(t, part) {
			pairs = append(pairs, m.Name, m.Value)
		}
		sets = append(sets, labels.FromStrings(pairs...))
	}
	return sets
}

func matchers(t *testing.T, s string) []*labels.Matcher {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
	require.NoError(t, err, s)
	return ms
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	if s == "max" {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err)
	return n
}

func TestDescribe(t *testing.T) {
	known := func(sets string, mint, maxt int64) endpoint.Peer {
		return endpoint.Peer{Known: true, Info: storeapi.Info{
			Services: storeapi.ServiceSet{Store: true}, LabelSets: labelSets(t, sets), Mint: mint, Maxt: maxt,
			TSDBs: []storeapi.TSDBInfo{{Labels: labelSets(t, sets+`{z="z"}`)[0], Mint: mint, Maxt: maxt}},
		}}
	}
	selector := labels.FromStrings("region", "eu")
	info := describe([]endpoint.Peer{known(`{a="1"}`, 5, 10), known(`{a="2"},{a="1"}`, 7, math.MaxInt64), {Known: true}}, selector)
	require.Equal(t, `[{a="1", region="eu"} {a="2", region="eu"}]`, fmt.Sprint(info.LabelSets))
	require.Equal(t, []int64{5, math.MaxInt64}, []int64{info.Mint, info.Maxt})
	require.Len(t, info.TSDBs, 2)
	require.Equal(t, `{a="1", region="eu"}`, info.TSDBs[0].Labels.String())
	require.Equal(t, "query", info.Component)

	t.Run("who is down still counts", func(t *testing.T) {
		down := known(`{a="1"}`, 5, 10)
		down.Down = errors.New("gone")
		require.Len(t, describe([]endpoint.Peer{down}, labels.EmptyLabels()).LabelSets, 1)
	})
	t.Run("who has told nothing may hold anything", func(t *testing.T) {
		info := describe([]endpoint.Peer{known(`{a="1"}`, 5, 10), {Down: errors.New("gone")}}, labels.EmptyLabels())
		require.Empty(t, info.LabelSets)
		require.Empty(t, info.TSDBs)
		require.Equal(t, []int64{math.MinInt64, math.MaxInt64}, []int64{info.Mint, info.Maxt})
	})
	t.Run("without endpoints", func(t *testing.T) {
		info := describe(nil, selector)
		require.Equal(t, `[{region="eu"}]`, fmt.Sprint(info.LabelSets))
	})
}
