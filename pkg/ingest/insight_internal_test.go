package ingest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/tenant"
)

// RELIABILITY P11: a tenant is shown its own pairs and endpoints; an operator all.
func TestInsightIsOfOneTenant(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "forward.yml")
	require.NoError(t, os.WriteFile(rules, []byte(`endpoints:
  - {name: one, url: "http://127.0.0.1:1/a", tenants: [team-a]}
  - {name: some, url: "http://127.0.0.1:1/b", tenants: [team-a, team-b]}
  - {name: all, url: "http://127.0.0.1:1/c"}
`), 0o644))
	in := idle(t, "--ingest.forward-config-file="+rules)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- in.path.forwarder.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-ended) }()
	for _, id := range []tenant.ID{"team-a", "team-b"} {
		in.tracker.Take(ha.Pair{Tenant: id, Cluster: "of-" + string(id)}, "replica", ha.Rules{Failover: time.Minute}, time.Now())
	}
	ask := func(path, id string) string {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set(tenant.DefaultHeader, id)
		w := httptest.NewRecorder()
		in.Handler().ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		return w.Body.String()
	}
	require.Equal(t, 3, strings.Count(ask("/api/v1/ingest/forward?all_tenants=true", "team-b"), `"endpoint"`))
	own := ask("/api/v1/ingest/forward", "team-a")
	require.Contains(t, own, `"endpoint":"one"`)
	require.Equal(t, 1, strings.Count(own, `"endpoint"`), own)
	require.NotContains(t, ask("/api/v1/ingest/forward", "team-b"), `"endpoint"`)

	require.Contains(t, ask("/api/v1/ingest/ha", "team-a"), "of-team-a")
	require.NotContains(t, ask("/api/v1/ingest/ha", "team-a"), "of-team-b")
	both := ask("/api/v1/ingest/ha?all_tenants=true", "team-a")
	require.Contains(t, both, "of-team-a")
	require.Contains(t, both, "of-team-b")
}
