package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

// FuzzParameters sends any query string to each route: no panic, no 5xx, and always an answer in Prometheus' shape.
// RELIABILITY P12.
func FuzzParameters(f *testing.F) {
	for _, req := range readRequests(f) {
		f.Add(req.path, req.form.Encode())
	}
	for _, s := range []string{
		"dedup=x&partial_response=&engine=a", "max_source_resolution=1e400", "shard_info={}", "shard_info={\"shard_index\":-1}",
		"storeMatch[]=%00", "%zz", "a=1;b=2", "query=up&timeout=NaN", "start=NaN&end=NaN&step=1&query=1", "start=-Inf&end=Inf&step=1&query=1",
		"group_limit=1&group_next_token=%ff", "limit=99999999999999999999", "limit=9223372036854775807&match[]=up",
	} {
		for _, path := range []string{"query", "query_range", "series", "labels", "label/a/values", "rules", "targets", "metadata", "status/tsdb", "query_exemplars"} {
			f.Add(path, s)
		}
	}
	a := newTestAPI(f, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }), nil)
	f.Fuzz(func(t *testing.T, path, params string) {
		r, err := http.NewRequest(http.MethodGet, "/api/v1/"+path, nil)
		if err != nil {
			return
		}
		r.URL.RawQuery = params
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%s?%s: %s", path, params, w.Body)
		if w.Header().Get("Content-Type") == "application/json" {
			require.True(t, json.Valid(w.Body.Bytes()), "%s", w.Body)
		}
	})
}
