package model

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
)

var seedFlag = flag.Uint64("seed", 0, "run this seed alone")

// soon is when what was about to happen has happened, on a busy machine, too.
const soon = 5 * time.Minute

func TestMain(m *testing.M) { proctest.Main(m) }

// TestRandomRuns writes, ships, compacts and reads under random settings, faults
// and restarts, in one process. At any time what is read was once written; with
// all faults gone everything is shipped within two passes, and each answer
// equals the model's.
//
// It runs the first seeds for 12 seconds, and new ones for 8.
func TestRandomRuns(t *testing.T) {
	if asked(t, run) {
		return
	}
	seedsFor(t, 1, 12*time.Second, run)
	seedsFor(t, freshSeed(t), 8*time.Second, run)
}

// asked runs what was asked for, if anything was: the seed of -seed alone, or new
// ones for as long as FIRNLINE_SOAK says.
func asked(t *testing.T, run func(*testing.T, uint64)) bool {
	t.Helper()
	soak := os.Getenv("FIRNLINE_SOAK")
	switch {
	case *seedFlag != 0:
		seed(t, *seedFlag, run)
	case soak != "":
		last, err := time.ParseDuration(soak)
		require.NoError(t, err, "FIRNLINE_SOAK")
		seedsFor(t, freshSeed(t), last, run)
	default:
		return false
	}
	return true
}

// freshSeed is the first of the new seeds: FIRNLINE_SEED or, without it, one by the clock.
func freshSeed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("FIRNLINE_SEED")
	if s == "" {
		return uint64(time.Now().Unix())
	}
	first, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, "FIRNLINE_SEED")
	return first
}

// seedsFor runs seed after seed for a while, at least one.
func seedsFor(t *testing.T, first uint64, last time.Duration, run func(*testing.T, uint64)) {
	t.Helper()
	t.Logf("seeds from %d", first)
	longest := time.Duration(0) // none is begun that would not end in time
	for n, began := first, time.Now(); time.Since(began)+longest < last && !t.Failed(); n++ {
		start := time.Now()
		seed(t, n, run)
		longest = max(longest, time.Since(start))
	}
}

// seed runs one seed. When it fails, the last line of what it prints is the command
// that runs it again.
func seed(t *testing.T, n uint64, run func(*testing.T, uint64)) {
	t.Helper()
	name := t.Name()
	t.Run(fmt.Sprint("seed=", n), func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("to run it again: go test ./e2e/model -run '^%s$' -seed=%d", name, n)
			}
		})
		run(t, n)
	})
}

func run(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, seed))
	w := newWorld(t, rnd)
	read := &faults{rnd: rand.New(rand.NewPCG(seed, 1))}
	gateway := startGateway(t, bucket.WithFaults(w.memory, read.hook), gatewayFlags[rnd.IntN(len(gatewayFlags))]...)
	for n := range int64(12 + rnd.IntN(12)) {
		w.step(n)
		read.draw()
		r, err := readAll(t.Context(), gateway, w.model, 0)
		require.Empty(t, r.wrong, "read what was never written")
		if err != nil {
			require.ErrorContains(t, err, errFault.Error())
		}
	}
	w.heal()
	read.end()
	cut := w.cut()
	want := w.model.Samples(0, cut)
	require.Positive(t, want)
	var last reading
	var err error
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last, err = readAll(t.Context(), gateway, w.model, cut); err == nil && last.samples == want {
			break
		}
	}
	require.NoError(t, err, "the gateway has not converged")
	require.Empty(t, last.wrong)
	require.Equal(t, want, last.samples, "samples before %d", cut)
	compare(t, w, gateway, cut)
}

// compare asks a querier over one or two gateways, of which one lived through
// the faults, and the model.
func compare(t *testing.T, w *world, gateway storeapi.Store, cut int64) {
	endpoints := []string{listen(t, storeapi.Services{Store: gateway})}
	if w.rnd.IntN(2) == 0 { // a second one with the same blocks
		fresh := startGateway(t, w.memory, gatewayFlags[w.rnd.IntN(len(gatewayFlags))]...)
		endpoints = append(endpoints, listen(t, storeapi.Services{Store: fresh}))
	}
	querier := startQuerier(t, endpoints)
	equal(t, w.model, querier, questions(w.rnd, begin, cut, 60), "false")
	same := questions(w.rnd, begin, cut, 40)
	same = slices.DeleteFunc(same, func(q question) bool { return q.path == "labels" }) // names the replica label in any case
	for _, q := range same {
		restrict(t, q.params, labels.MustNewMatcher(labels.MatchEqual, "cluster", "same"))
	}
	equal(t, w.model.Without("replica"), querier, same, "true")
	fromReplicas(t, w.model, querier, cut)
}

// equal asks each question twice, so that caches are cold and warm.
func equal(t *testing.T, m *Model, querier http.Handler, questions []question, dedup string) {
	t.Helper()
	oracle := oracle(t, m)
	for _, q := range questions {
		want := ask(t, oracle, q.path, q.params)
		q.params.Set("dedup", dedup)
		q.params.Set("partial_response", "false")
		for _, caches := range []string{"cold", "warm"} {
			got := ask(t, querier, q.path, q.params)
			require.Equal(t, want.Status, got.Status, "%s %v: %s", q.path, q.params, got.Error)
			require.Equal(t, string(want.Data), string(got.Data), "%s %v, caches %s", q.path, q.params, caches)
		}
	}
}

// restrict puts a matcher into every selector of a request.
func restrict(t *testing.T, params url.Values, m *labels.Matcher) {
	t.Helper()
	for _, name := range []string{"query", "match[]"} {
		if !params.Has(name) {
			continue
		}
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(params.Get(name))
		require.NoError(t, err)
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				v.LabelMatchers = append(v.LabelMatchers, m)
			}
			return nil
		})
		params.Set(name, expr.String())
	}
}

// fromReplicas checks a pair whose replicas scrape each for itself: every sample
// of a deduplicated gauge is one that a replica has.
func fromReplicas(t *testing.T, m *Model, querier http.Handler, cut int64) {
	t.Helper()
	a := ask(t, querier, "query", url.Values{"query": {`queue{cluster="own"}[10h]`}, "time": {seconds(cut - 1)}, "dedup": {"true"}})
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(a.Data, &data), a.Error)
	require.NotEmpty(t, data.Result)
	for _, s := range data.Result {
		require.NotContains(t, s.Metric, "replica")
		for _, point := range s.Values {
			require.True(t, oneHas(t, m, s.Metric, point), "%v: no replica has %s", s.Metric, point)
		}
	}
}

func oneHas(t *testing.T, m *Model, metric map[string]string, point [2]json.RawMessage) bool {
	t.Helper()
	at, err := strconv.ParseFloat(string(point[0]), 64)
	require.NoError(t, err)
	v, err := strconv.ParseFloat(strings.Trim(string(point[1]), `"`), 64)
	require.NoError(t, err)
	sample := Sample{Time: int64(math.Round(at * 1000)), Value: v}
	if math.IsNaN(v) {
		sample.Value = math.NaN()
	}
	for _, replica := range []string{"a", "b"} {
		if m.Has(labels.NewBuilder(labels.FromMap(metric)).Set("replica", replica).Labels(), sample) {
			return true
		}
	}
	return false
}
