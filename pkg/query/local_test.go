package query

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// startLocal runs a querier over stores in this process.
func startLocal(t *testing.T, locals []Local, args ...string) *Query {
	t.Helper()
	cfg, err := parse(t, append([]string{"--query.replica-label=replica"}, args...)...)
	require.NoError(t, err)
	q, err := New(cfg, Parts{Local: locals}, quiet(), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, q.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, func() bool { return q.Ready() == nil })
	return q
}

// TestLocalAnswersAsOverTheWire: called directly, stores give the answers,
// limits, warnings and errors that they give over gRPC.
func TestLocalAnswersAsOverTheWire(t *testing.T) {
	a, b := counter(t, "cluster", "x", "replica", "a"), counter(t, "cluster", "x", "replica", "b")
	atA, _ := listen(t, storeapi.Services{Store: a})
	atB, _ := listen(t, storeapi.Services{Store: b})
	locals := []Local{{Name: atA, Services: storeapi.Services{Store: a}}, {Name: atB, Services: storeapi.Services{Store: b}}}
	for _, limit := range []string{"0", "100"} {
		near, far := startLocal(t, locals, "--store.limits.request-samples="+limit), startQuery(t, "--endpoint="+atA, "--endpoint="+atB, "--store.limits.request-samples="+limit)
		for _, behaviour := range []storetest.Behaviour{{}, {Report: storeapi.Report{Warnings: []string{"half of it"}}}, {StreamErr: storeapi.ErrUnavailable}} {
			b.Behave(behaviour)
			for _, ask := range [][]string{
				{"/api/v1/query", "query", "requests_total", "time", "3000"},
				{"/api/v1/query_range", "query", "rate(requests_total[5m])", "start", "0", "end", "3600", "step", "60"},
				{"/api/v1/query", "query", "requests_total", "time", "3000", "dedup", "false"},
				{"/api/v1/query", "query", "requests_total", "time", "3000", "partial_response", "false"},
				{"/api/v1/labels"}, {"/api/v1/label/cluster/values"}, {"/api/v1/series", "match[]", "requests_total"},
			} {
				x, y := get(t, near, ask[0], ask[1:]...), get(t, far, ask[0], ask[1:]...)
				require.Equal(t, y.code, x.code, "%v %+v: %s %s", ask, behaviour, x.Error, y.Error)
				require.Equal(t, string(y.Data), string(x.Data), ask)
				require.Equal(t, y.Warnings, x.Warnings, ask)
				require.Equal(t, y.Type, x.Type, ask)
				require.ElementsMatch(t, strings.Fields(y.Error), strings.Fields(x.Error), ask) // in another order where a warning is the end
			}
			b.Behave(storetest.Behaviour{})
		}
	}
	require.Zero(t, a.Open()+b.Open(), "every set was closed")
}

// TestLocalEndsWithItsRequest: a store that takes its time is not waited for by a request that has gone.
func TestLocalEndsWithItsRequest(t *testing.T) {
	slow := counter(t, "cluster", "x")
	q := startLocal(t, []Local{{Name: "store", Services: storeapi.Services{Store: slow}}})
	slow.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	rec := httptest.NewRecorder()
	var wg sync.WaitGroup
	wg.Go(func() {
		q.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/api/v1/query?query=requests_total&time=3000", nil).WithContext(ctx))
	})
	eventually(t, func() bool { return slow.Open() > 0 })
	leave()
	wg.Wait()
	require.NotEqual(t, 200, rec.Code)
	eventually(t, func() bool { return slow.Open() == 0 })
}
