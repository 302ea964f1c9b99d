package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/tools"
)

func TestToolsReadAndBringBlocks(t *testing.T) {
	c := newBucketCLI(t)
	code, out, errs := c.run("block", "dump", "--id="+testID(1), `--match=up{cluster="a"}`, "--max-time=1970-01-01T00:00:30Z")
	require.Equal(t, exitOK, code, errs)
	require.Equal(t, "up{cluster=\"a\"} 1 0.000\nup{cluster=\"a\"} 1 15.000\nup{cluster=\"a\"} 1 30.000\n# EOF\n", out)
	require.Contains(t, errs, "1 series, 3 samples.")

	code, out, errs = cli(t, "tools", "export", c.cfg)
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, errs, "4 series, 2880 samples.")
	text := write(t, filepath.Join(t.TempDir(), "x.om"), out)
	to := folderYAML(t.TempDir())
	code, _, errs = cli(t, "tools", "import", "openmetrics", text, to, "--label=from=text")
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, errs, "2880 samples in 2 blocks.")
	_, out, _ = cli(t, "tools", "bucket", "ls", to, "-o", "template={{.Samples}}")
	require.Equal(t, "1920\n960\n", out)

	code, _, errs = cli(t, "tools", "import", "prometheus", "--path="+c.dir, to, "--label=from=folder")
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, errs, "3 blocks of 3 sent")

	code, out, errs = cli(t, "tools", "analyze", c.cfg, "-o", "json")
	require.Equal(t, exitOK, code, errs)
	var a tools.Analysis
	require.NoError(t, json.Unmarshal([]byte(out), &a))
	require.Equal(t, 2, a.Blocks, "the newest of each set of external labels")
	rules := write(t, filepath.Join(t.TempDir(), "r.yml"), "groups: [{name: g, rules: [{record: a, expr: up}]}]")
	code, out, errs = cli(t, "tools", "analyze", "--path="+c.dir, "--unused", "--rules="+rules)
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, "regex: 'down'")
	require.Contains(t, errs, "1 of 2 metrics not asked for in 1 expression")
}

func TestToolsRules(t *testing.T) {
	good := write(t, filepath.Join(t.TempDir(), "good.yml"), "groups: [{name: g, rules: [{record: a, expr: up}]}]")
	bad := write(t, filepath.Join(t.TempDir(), "bad.yml"), "groups: [{name: g, rules: [{record: a, expr: 'up{'}]}]")
	code, out, errs := cli(t, "tools", "rules", "check", good)
	require.Equal(t, exitOK, code, errs)
	require.Regexp(t, good+` +1 +1 +0 +0`, out)
	code, _, errs = cli(t, "tools", "rules", "check", good, bad)
	require.Equal(t, exitProblem, code)
	require.Contains(t, errs, bad+": ")
	code, _, _ = cli(t, "tools", "rules-check", "--rules="+filepath.Dir(good)+"/*.yml")
	require.Equal(t, exitOK, code)
	code, _, errs = cli(t, "tools", "rules-check", "--rules=none/*.yml")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "no such file")
	code, _, _ = cli(t, "tools", "rules", "check")
	require.Equal(t, exitUsage, code)
}

func TestToolsQuery(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch q := r.FormValue("query"); {
		case r.Header.Get("Tenant") != "a":
			w.WriteHeader(http.StatusUnauthorized)
		case q == "bad":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"status":"error","errorType":"bad_data","error":"1:4: parse error"}`)
		case strings.HasSuffix(r.URL.Path, "query_range"):
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up"},"values":[[0,"1"],[60,"2"]]}]}}`)
		default:
			fmt.Fprint(w, `{"status":"success","warnings":["half of it"],"data":{"resultType":"vector","result":[{"metric":{"__name__":"up","a":"b"},"value":[60,"1.5"]}]}}`)
		}
	}))
	defer srv.Close()
	to := []string{"--url=" + srv.URL, "--header=Tenant=a"}
	run := func(args ...string) (int, string, string) {
		return cli(t, append(append([]string{"tools", "query"}, args...), to...)...)
	}
	code, out, errs := run("instant", "up")
	require.Equal(t, exitOK, code, errs)
	require.Equal(t, "SERIES     VALUE  TIME\nup{a=\"b\"}  1.5    1970-01-01T00:01:00Z\n", out)
	require.Contains(t, errs, "warning: half of it")
	code, out, errs = run("range", "up", "--width=40", "--height=3")
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, "         2 |                                       *\n")
	code, out, errs = run("range", "up", "--values", "-o", "json")
	require.Equal(t, exitOK, code, errs)
	require.True(t, json.Valid([]byte(out)))
	code, _, errs = run("instant", "bad")
	require.Equal(t, exitProblem, code)
	require.Contains(t, errs, "bad_data: 1:4: parse error")
	code, _, errs = cli(t, "tools", "query", "instant", "up", "--url=http://127.0.0.1:1")
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, errs, "can't be reached")
}

func TestToolsReady(t *testing.T) {
	var asked atomic.Int32
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/other/-/ready" && asked.Add(1) > 1:
			fmt.Fprintln(w, "ready")
		case r.URL.Path != "/-/ready" && r.URL.Path != "/other/-/ready":
			http.NotFound(w, r)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "not ready, waiting for\nprometheus: connection refused\nbucket: first listing\n")
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	for name, tc := range map[string]struct {
		args      []string
		code      int
		out, errs string
	}{
		"no":           {[]string{"--url=" + plain.URL}, exitProblem, "", plain.URL + "/-/ready: not ready: waiting for prometheus: connection refused; bucket: first listing\n"},
		"waits":        {[]string{"--url=" + plain.URL + "/other/", "--wait=5m"}, exitOK, "ready\n", ""},
		"TLS":          {[]string{"--url=" + secure.URL + "/other"}, exitOK, "ready\n", ""},
		"another path": {[]string{"--url=" + plain.URL + "/x"}, exitProblem, "", "it answers 404 Not Found; the address may lack a path"},
		"nobody":       {[]string{"--url=http://127.0.0.1:1"}, exitUnreachable, "", "the server can't be reached"},
		"no address":   {[]string{"--url=localhost:10902"}, exitUsage, "", "want an address"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "TLS" {
				asked.Store(1)
			}
			code, out, errs := cli(t, append([]string{"tools", "ready"}, tc.args...)...)
			require.Equal(t, tc.code, code, errs)
			require.Equal(t, tc.out, out)
			require.Contains(t, errs, tc.errs)
		})
	}
}

// TestToolsReadyInVain: once the time is over it says what was waited for. A machine on
// which nobody answers within a second has more.
func TestToolsReadyInVain(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not ready, waiting for\nprometheus: connection refused", http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	for _, wait := range []string{"1s", "10s", "2m"} {
		code, out, errs := cli(t, "tools", "ready", "--url="+srv.URL, "--wait="+wait)
		if code == exitUnreachable && wait != "2m" {
			continue
		}
		require.Equal(t, exitProblem, code, errs)
		require.Empty(t, out)
		require.Contains(t, errs, "after "+wait+": ")
		require.Contains(t, errs, "not ready: waiting for prometheus: connection refused")
		return
	}
}

func TestToolsDataBadInput(t *testing.T) {
	c := newBucketCLI(t)
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"dump: nothing":           {[]string{"block", "dump"}, exitUsage, "give one of them, a folder with blocks or a bucket"},
		"dump: no id":             {[]string{"block", "dump", c.cfg}, exitUsage, "--id: give the ULID"},
		"dump: both":              {[]string{"block", "dump", "--path=x", "--id=" + testID(1)}, exitUsage, "not with --path"},
		"dump: unknown":           {[]string{"block", "dump", c.cfg, "--id=" + testID(9)}, exitProblem, "no such block in the bucket"},
		"dump: empty folder":      {[]string{"block", "dump", "--path=" + empty}, exitProblem, "no blocks in the folder"},
		"dump: format":            {[]string{"block", "dump", "--path=" + empty, "--format=xml"}, exitUsage, "want openmetrics or jsonl"},
		"dump: match":             {[]string{"block", "dump", "--path=" + empty, "--match=up{"}, exitUsage, "--match"},
		"export: missing":         {[]string{"export", folderYAML(filepath.Join(empty, "x"))}, exitUnreachable, "[bucket-missing]"},
		"analyze: unused":         {[]string{"analyze", c.cfg, "--unused"}, exitUsage, "give it together with"},
		"analyze: no dashboards":  {[]string{"analyze", c.cfg, "--unused", "--dashboards=" + empty}, exitUsage, "no files with .json"},
		"analyze: missing":        {[]string{"analyze", folderYAML(filepath.Join(empty, "x"))}, exitUnreachable, "[bucket-missing]"},
		"query: none":             {[]string{"query", "instant"}, exitUsage, "want one argument"},
		"query: url":              {[]string{"query", "instant", "up", "--url=localhost"}, exitUsage, "want an address"},
		"query: times":            {[]string{"query", "range", "up", "--start=-1h", "--end=-2h"}, exitUsage, "--start is not before --end"},
		"query: header":           {[]string{"query", "range", "up", "--header=x"}, exitUsage, "want NAME=VALUE"},
		"import: no label":        {[]string{"import", "openmetrics", "x", c.cfg}, exitUsage, "give external labels"},
		"import: no file":         {[]string{"import", "openmetrics", filepath.Join(empty, "x"), c.cfg, "--label=a=b"}, exitProblem, "no such file"},
		"import: no folder":       {[]string{"import", "prometheus", "--path=" + filepath.Join(empty, "x"), c.cfg, "--label=a=b"}, exitUsage, "no such file"},
		"import: empty folder":    {[]string{"import", "prometheus", "--path=" + empty, c.cfg, "--label=a=b"}, exitProblem, "no blocks in the folder"},
		"import: no times":        {[]string{"import", "remote-read", "--url=http://127.0.0.1:1", c.cfg, "--label=a=b"}, exitUsage, "--min-time: say from when on"},
		"prove: window":           {[]string{"prove", "--prove.window=x"}, exitUsage, "want a duration"},
		"prove: nobody there":     {[]string{"prove", "--write.url=http://127.0.0.1:1/w", "--url=http://127.0.0.1:1", "--prove.interval=1s", "--prove.settle=10ms", "--prove.duration=1ms"}, exitUnreachable, "nothing is proven"},
		"prove: port is not free": {[]string{"prove", "--http-address=256.0.0.1:1"}, exitProblem, "--http-address"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := cli(t, append([]string{"tools"}, tc.args...)...)
			require.Equal(t, tc.code, code, errs)
			require.Contains(t, errs, tc.want)
		})
	}
	left, err := os.ReadDir(empty)
	require.NoError(t, err)
	require.Empty(t, left)
}
