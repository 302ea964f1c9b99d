package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// bareRig starts nothing: for tests that need no object store.
func bareRig(t *testing.T) *rig {
	t.Helper()
	return &rig{t: t, dir: t.TempDir(), hour: time.Now().Truncate(time.Hour)}
}

// ingestArgs are those of a node with this name, which has its ring for itself
// unless told whom to join.
func (r *rig) ingestArgs(name string, args ...string) []string {
	r.t.Helper()
	gossip, err := stack.FreeAddr()
	require.NoError(r.t, err)
	return r.ringArgs(name, gossip, args...)
}

// ringArgs have a node wait for itself and others as long as on a busy machine it may take.
func (r *rig) ringArgs(name, gossip string, args ...string) []string {
	return append([]string{"ingest", "--tsdb.path=" + filepath.Join(r.dir, name), fmt.Sprintf("--label=ingest=%q", name),
		"--remote-write.address=", "--ring.instance-id=" + name, "--ring.bind-address=" + gossip, "--ring.tokens=64",
		"--ring.heartbeat-period=1s", "--ring.heartbeat-timeout=1m", "--receive-forward-timeout=2m", "--shutdown-delay=100ms"}, args...)
}

// ingest runs a node by itself.
func (r *rig) ingest(name string, args ...string) *stack.Firnline {
	r.t.Helper()
	return r.start(r.ingestArgs(name, args...)...)
}

// asks runs a querier over endpoints; ingesters with the same data are one.
func (r *rig) asks(endpoints ...*stack.Firnline) *stack.Firnline {
	r.t.Helper()
	args := []string{"--query.replica-label=ingest"}
	for _, e := range endpoints {
		args = append(args, "--endpoint="+e.GRPC)
	}
	return r.querier(args...)
}

// ofTenant is the header of a tenant's requests.
func ofTenant(id string) http.Header { return http.Header{"Thanos-Tenant": {id}} }

// push sends series by remote write.
func push(t *testing.T, to *stack.Firnline, tenant string, series ...prompb.TimeSeries) stack.Posted {
	t.Helper()
	a, err := stack.PostSeries(t.Context(), "http://"+to.HTTP+"/api/v1/write", ofTenant(tenant), series)
	require.NoError(t, err)
	return a
}

// floats makes a series: labels as pairs, then its samples.
func floats(pairs []string, samples ...prompb.Sample) prompb.TimeSeries {
	s := prompb.TimeSeries{Samples: samples}
	for i := 0; i < len(pairs); i += 2 {
		s.Labels = append(s.Labels, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return s
}

// result asks and insists on a complete answer without warnings about data.
func result(t *testing.T, base, path string, params url.Values) (stack.Result, error) {
	t.Helper()
	params.Set("partial_response", "false")
	a, err := stack.Ask(t.Context(), base, path, params)
	if err != nil {
		return stack.Result{}, err
	}
	return a.Result()
}

// rawSamples returns what a selector has in a window before a time: samples by
// time in ms, by the value of a label.
func rawSamples(t *testing.T, q *stack.Firnline, selector, by string, at time.Time, window time.Duration) (map[string]map[int64]string, error) {
	t.Helper()
	r, err := result(t, "http://"+q.HTTP, "query", url.Values{
		"query": {fmt.Sprintf("%s[%dms]", selector, window.Milliseconds())}, "time": {unix(at)},
	})
	if err != nil {
		return nil, err
	}
	out := map[string]map[int64]string{}
	for _, s := range r.Result {
		samples := map[int64]string{}
		for _, v := range s.Values {
			samples[int64(v[0].(float64)*1000+0.5)] = v[1].(string)
		}
		if out[s.Metric[by]] != nil {
			return nil, fmt.Errorf("%s=%q twice: %v", by, s.Metric[by], s.Metric)
		}
		out[s.Metric[by]] = samples
	}
	return out, nil
}
