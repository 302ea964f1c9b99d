package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// TestMixin runs everything, as `make demo` does: what is pushed and what is scraped
// is found at one place, the queries of all dashboards are answered from it, and the
// rules that we ship work, and are quiet.
func TestMixin(t *testing.T) {
	rules, err := stack.RuleFiles()
	require.NoError(t, err)
	c := pairs(t, stack.ClustersConfig{Whole: true, RuleFiles: rules})
	eventually(t, 2*time.Minute, func() error {
		r, err := ask(t.Context(), c, "query", url.Values{"query": {`count by (job) (count_over_time(firnline_build_info{cluster="ops"}[5m]) > 20)`}})
		if err == nil && len(r.Result) != 5 {
			err = fmt.Errorf("metrics of %d components", len(r.Result))
		}
		return err
	})
	r, err := ask(t.Context(), c, "query", url.Values{"query": {`sum by (cluster) (last_over_time(app_requests_total[10m]))`}})
	require.NoError(t, err)
	require.Len(t, r.Result, 3, "two clusters behind sidecars, one that pushes")
	waitForHistory(t, c)

	files, err := filepath.Glob("../deploy/mixin/dashboards/*.json")
	require.NoError(t, err)
	require.Len(t, files, 7)
	// What counts mishaps by kind has no series before the first; other things take a while to happen.
	eventually(t, 2*time.Minute, func() error {
		asked, empty := 0, []string{}
		for _, f := range files {
			for panel, exprs := range panelsOf(t, f) {
				for _, expr := range exprs {
					r, err := ask(t.Context(), c, "query", url.Values{"query": {expr}})
					require.NoError(t, err, "%s: %s: %s", f, panel, expr)
					if asked++; len(r.Result) == 0 {
						empty = append(empty, fmt.Sprintf("%s: %s: %s", filepath.Base(f), panel, expr))
					}
				}
			}
		}
		if 10*len(empty) >= 3*asked {
			return fmt.Errorf("%d of %d queries of dashboards show nothing:\n%s", len(empty), asked, strings.Join(empty, "\n"))
		}
		return nil
	})
	eventually(t, time.Minute, func() error { return checkRules(t, c.Monitor) })
}

// panelsOf returns the queries of a dashboard by panel, with everything chosen.
func panelsOf(t *testing.T, path string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &d))
	out := map[string][]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], strings.NewReplacer("$job", ".+", "$instance", ".+", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	return out
}

// checkRules is nil once Prometheus has evaluated all rules. It insists that none has
// an error, and that nothing is the matter.
func checkRules(t *testing.T, p *stack.Prometheus) error {
	t.Helper()
	a, err := stack.Ask(t.Context(), p.URL, "rules", nil)
	require.NoError(t, err)
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	require.NoError(t, json.Unmarshal(a.Data, &data))
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health == "unknown" {
				return fmt.Errorf("%s has not been evaluated yet", r.Name)
			}
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
			require.NotEqual(t, "firing", r.State, r.Name)
		}
	}
	require.Greater(t, n, 60)
	return nil
}
