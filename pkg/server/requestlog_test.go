package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

func TestParseRequestLogging(t *testing.T) {
	datadriven.RunTest(t, "testdata/request_logging", func(t *testing.T, d *datadriven.TestData) string {
		got, err := parseRequestLogging([]byte(d.Input))
		if err != nil {
			return "error: " + err.Error()
		}
		var sb strings.Builder
		for _, r := range []struct {
			name string
			rule logRule
			keys []string
		}{
			{"http", got.http, []string{"0 /api/v1/query", "10902 /api/v1/query", "10902 /api/v1/labels"}},
			{"grpc", got.grpc, []string{"thanos.Store/Series", "thanos.Store/LabelNames"}},
		} {
			fmt.Fprintf(&sb, "%s: start=%t end=%t level=%s logs", r.name, r.rule.start, r.rule.end, r.rule.level)
			for _, k := range r.keys {
				if r.rule.applies(k) {
					fmt.Fprintf(&sb, " [%s]", k)
				}
			}
			sb.WriteByte('\n')
		}
		return sb.String()
	})
}

func TestRequestsAreLogged(t *testing.T) {
	cfg := testConfig()
	cfg.RequestLoggingFile = write(t, filepath.Join(t.TempDir(), "log.yml"), `
options: {level: DEBUG, decision: {log_start: true, log_end: true}}
http: {config: [{path: /api/logged}]}
`)
	h := newHarness(t, cfg)
	h.Handle("/api/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("fail") {
			http.Error(w, "no", http.StatusInternalServerError)
		}
	}))
	h.start(t)
	get(t, h.url("/api/quiet"))
	require.NotContains(t, h.logs.String(), "/api/quiet")
	get(t, h.url("/api/logged?q=%22%0Aup"))
	get(t, h.url("/api/logged?fail=1"))
	logs := h.logs.String()
	require.Contains(t, logs, `level=DEBUG msg="request started" protocol=http method=GET uri="/api/logged?q=%22%0Aup"`)
	require.Regexp(t, `level=DEBUG msg="request finished" .*uri="/api/logged\?q=.*" .* status=200 bytes=0 duration=\S+ request_id=`, logs)
	require.Regexp(t, `level=ERROR msg="request finished" .*uri="/api/logged\?fail=1" .* status=500 bytes=3 `, logs)
}

func TestRequestLoggingErrorsNameTheFlag(t *testing.T) {
	cfg := testConfig()
	cfg.RequestLoggingFile = write(t, filepath.Join(t.TempDir(), "log.yml"), "options:\n  level: LOUD\n")
	_, err := cfg.requestLogging()
	require.EqualError(t, err, "--request.logging-config-file: "+cfg.RequestLoggingFile+`: line 2: level: want DEBUG, INFO, WARNING or ERROR, got "LOUD"`)
}
