// Package e2e drives the built binary beside real Prometheus servers and a real
// MinIO, on loopback. `make e2e` builds the binary first.
package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// shipSpan is how long a sidecar's live data reaches back here. What is older
// comes from the bucket, so it must have landed by then.
const shipSpan = 90 * time.Second

// pairs starts two clusters whose sidecars only serve the last 90 seconds, and
// waits until the store gateway serves blocks of all four Prometheus servers.
func pairs(t *testing.T, cfg stack.ClustersConfig) *stack.Clusters {
	t.Helper()
	cfg.Dir = t.TempDir()
	if cfg.BlockSeconds == 0 {
		cfg.BlockSeconds = 10
	}
	cfg.SidecarArgs = append(cfg.SidecarArgs, "--min-time=-"+shipSpan.String())
	cfg.Progress = t.Logf
	c, err := stack.StartClusters(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, f := range []*stack.Firnline{c.Query, c.Store, c.Replicas[0].Sidecar} {
				t.Logf("end of %s:\n%s", f.LogPath, f.Tail(15))
			}
		}
		c.Close()
	})
	return c
}

// waitForHistory waits until the store gateway has data of every replica.
func waitForHistory(t *testing.T, c *stack.Clusters) {
	t.Helper()
	params := url.Values{
		"query":        {"count by (cluster, replica) (last_over_time(app_queue_length[10m]))"},
		"dedup":        {"false"},
		"storeMatch[]": {fmt.Sprintf("{__address__=%q}", c.Store.GRPC)},
	}
	eventually(t, 3*time.Minute, func() error {
		r, err := ask(t.Context(), c, "query", params)
		if err == nil && len(r.Result) < len(c.Replicas) {
			err = fmt.Errorf("history of %d of %d replicas", len(r.Result), len(c.Replicas))
		}
		return err
	})
}

func ask(ctx context.Context, c *stack.Clusters, path string, params url.Values) (stack.Result, error) {
	a, err := stack.Ask(ctx, "http://"+c.Query.HTTP, path, params)
	if err != nil {
		return stack.Result{}, err
	}
	return a.Result()
}

// patience is how long eventually waits at the least. Only a test that fails takes so long.
const patience = 5 * time.Minute

// eventually waits for what a machine that has nothing else to do brings about
// within a time. This one may be slow, and run other tests, too.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	var err error
	within = max(4*within, patience)
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	require.NoError(t, err, "not within %s", within)
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func rangeParams(expr string, start, end time.Time, step time.Duration) url.Values {
	return url.Values{"query": {expr}, "start": {unix(start)}, "end": {unix(end)}, "step": {step.String()}}
}

// bySeries turns a result into series name → values, without the given labels.
func bySeries(t *testing.T, r stack.Result, without ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, s := range r.Result {
		m := maps.Clone(s.Metric)
		for _, l := range without {
			delete(m, l)
		}
		name, err := json.Marshal(m)
		require.NoError(t, err)
		values, err := json.Marshal([]any{s.Value, s.Values, s.Histogram, s.Histograms})
		require.NoError(t, err)
		require.NotContains(t, out, string(name), "the same series twice")
		out[string(name)] = string(values)
	}
	return out
}

func TestMain(m *testing.M) {
	if _, err := stack.Binary(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// These tests wait more than they work, so more of them run at once than there are CPUs.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		if err := f.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
